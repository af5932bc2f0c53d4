# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from dataclasses import replace

from tests.rules.cases import DUMP, clean, findings, outcome
from vmcheck.findings import Finding, Severity

DEFECT = "PT_NOTE: the note at 0x1000 has n_namesz 0x5 and n_descsz 0xffff, and ends past 0x2000"


def test_an_impossible_note_is_wrong() -> None:
    dump = replace(DUMP, note_defects=(DEFECT,))
    assert findings("bad-notes", dump) == [
        Finding(Severity.WRONG, "the notes are damaged", evidence=(DEFECT,))
    ]


def test_ten_thousand_defects_are_told_by_eight() -> None:
    dump = replace(DUMP, note_defects=(DEFECT,) * 10_000)
    assert findings("bad-notes", dump)[0].evidence == (DEFECT,) * 8


def test_notes_without_defects_are_clean() -> None:
    assert outcome("bad-notes") == clean("bad-notes")
