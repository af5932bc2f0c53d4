# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from dataclasses import replace

from tests.rules.cases import DUMP, KERNEL, UNREAD, clean, findings, notes, outcome, saved, skipped
from vmcheck.facts.findings import Finding, Severity

RULE = "note-without-cpu"
THREE_NOTES = replace(DUMP, cpu_notes=notes(0, 7, 1))


def test_a_note_that_equals_no_crash_notes_is_wrong() -> None:
    assert findings(RULE, THREE_NOTES) == [
        Finding(
            Severity.WRONG,
            "1 of 3 register notes are no CPU's",
            evidence=("NT_PRSTATUS 1 (pid 107) equals no crash_notes",),
        )
    ]


def test_a_note_may_be_that_of_a_cpu_whose_crash_notes_are_lost() -> None:
    kernel = replace(KERNEL, saved_notes=saved(0, 1) | {2: UNREAD})
    assert outcome(RULE, THREE_NOTES, kernel) == skipped(
        RULE, "crash_notes of 1 CPUs could not be read; the notes may be theirs"
    )


def test_more_notes_than_unread_cpus_are_wrong_all_the_same() -> None:
    kernel = replace(KERNEL, saved_notes=saved(0, 1) | {2: UNREAD})
    dump = replace(DUMP, cpu_notes=notes(0, 1, 7, 8))
    assert findings(RULE, dump, kernel)[0].summary == "2 of 4 register notes are no CPU's"


def test_unread_crash_notes_are_skipped() -> None:
    assert outcome(RULE, DUMP, replace(KERNEL, saved_notes=UNREAD)) == skipped(RULE, "crash_notes: lost")


def test_a_note_for_each_cpu_is_clean() -> None:
    assert outcome(RULE) == clean(RULE)
