# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from dataclasses import replace

from tests.rules.cases import DUMP, KERNEL, UNREAD, clean, findings, notes, outcome, saved, skipped
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.topology import SavedNote

RULE = "cpu-without-note"


def test_a_cpu_that_came_after_the_load_is_lost_and_recoverable() -> None:
    kernel = replace(KERNEL, saved_notes=saved(0, 1, 2, 3))
    assert findings(RULE, replace(DUMP, cpu_notes=notes(0, 1)), kernel) == [
        Finding(
            Severity.LOST,
            "registers that were saved have no note: elfcorehdr was written before the CPU came",
            cpus=(2, 3),
            evidence=("crash_notes in memory holds an NT_PRSTATUS that equals no note of the file",),
            recoverable=True,
        )
    ]


def test_a_cpu_that_saved_nothing_wants_no_note() -> None:
    kernel = replace(KERNEL, saved_notes=saved(0, 1) | {2: SavedNote(b""), 3: UNREAD})
    assert outcome(RULE, DUMP, kernel) == clean(RULE)


def test_a_dump_with_no_note_at_all_lost_every_cpu() -> None:
    assert findings(RULE, replace(DUMP, cpu_notes=()))[0].cpus == (0, 1)


def test_unread_crash_notes_are_skipped() -> None:
    assert outcome(RULE, DUMP, replace(KERNEL, saved_notes=UNREAD)) == skipped(RULE, "crash_notes: lost")
