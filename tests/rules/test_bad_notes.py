# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from dataclasses import replace

from tests.rules.cases import DUMP, KERNEL, clean, findings, notes, outcome, saved
from vmcheck.facts.findings import Finding, Severity

DEFECT = "PT_NOTE: the note at 0x1000 has n_namesz 0x5 and n_descsz 0xffff, and ends past 0x2000"


def test_an_impossible_note_is_wrong() -> None:
    dump = replace(DUMP, note_defects=(DEFECT,))
    assert findings("bad-notes", dump) == [
        Finding(Severity.WRONG, "the notes are damaged", evidence=(DEFECT,))
    ]


def test_ten_thousand_defects_are_told_by_eight() -> None:
    dump = replace(DUMP, note_defects=(DEFECT,) * 10_000)
    assert findings("bad-notes", dump)[0].evidence == (DEFECT,) * 8


def test_a_register_note_that_was_changed_is_damage_and_no_other_rule_s() -> None:
    first, second = notes(0, 1)
    torn = replace(second, descriptor=second.descriptor[:60] + bytes(len(second.descriptor) - 60))
    dump, kernel = replace(DUMP, cpu_notes=(first, torn)), replace(KERNEL, saved_notes=saved(0, 1))
    assert findings("bad-notes", dump, kernel) == [
        Finding(
            Severity.WRONG,
            "the notes are damaged",
            evidence=("NT_PRSTATUS 1 differs from CPU 1's crash_notes in memory in a few bytes",),
        )
    ]
    assert findings("cpu-without-note", dump, kernel) == []
    assert findings("note-without-cpu", dump, kernel) == []


def test_notes_without_defects_are_clean() -> None:
    assert outcome("bad-notes") == clean("bad-notes")
