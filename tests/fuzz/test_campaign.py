# SPDX-License-Identifier: LGPL-2.1-or-later
"""The campaign counts what fails, ends what hangs, and every reader survives its first cases."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.fuzz import campaign
from tests.fuzz.campaign import Answer, guarded, minimised, operations, run
from tests.fuzz.mutations import changed, changed_json, changed_text
from tests.fuzz.readers import Reader, readers
from tests.fuzz.truths import Damaged, damaged
from vmcheck.errors import VmcheckError


def test_what_fails_hangs_or_dies_is_counted_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "HANGS", 0.5)

    def attempt(case: int, folder: Path) -> Answer:
        (folder / "left").write_text("behind")
        if case == 103:
            time.sleep(600)
        if case == 104:
            os.kill(os.getpid(), signal.SIGSEGV)
        return guarded(lambda: refuse(case))

    def refuse(case: int) -> None:
        if case == 101:
            raise VmcheckError("vmcore: no dump")
        if case == 102:
            raise ZeroDivisionError("a bug")

    result = run(attempt, 100, 10, 60, 2)
    assert result.cases == 10
    assert result.outcomes == {"answered": 6, "refused": 1, "traceback": 1, "hang": 1, "killed": 1}
    assert {case: answer.outcome for case, answer in result.failures.items()} == {
        102: "traceback",
        103: "hang",
        104: "killed",
    }
    assert "ZeroDivisionError: a bug" in result.failures[102].detail


def test_what_needs_too_much_memory_is_ended_by_the_budget() -> None:
    assert guarded(lambda: bytearray(2 << 30).clear()) == Answer("budget")


def test_a_case_is_the_same_each_time_and_has_no_more_than_it_needs() -> None:
    assert operations(5) == operations(5) != operations(6)
    assert minimised(lambda some: 3 in some and 7 in some, [1, 3, 5, 7, 9]) == [3, 7]


def test_the_same_operations_make_the_same_change() -> None:
    data, document = bytes(range(256)) * 40, {"a": [1, {"b": "c"}], "d": None}
    made_of = [11, 22, 33]
    assert changed(data, [(0, 64)], made_of) == changed(data, [(0, 64)], made_of) != data
    assert changed_text("A=1\nB=2\n", made_of) == changed_text("A=1\nB=2\n", made_of) != "A=1\nB=2\n"
    assert changed_json(document, made_of) == changed_json(document, made_of) != document


@pytest.mark.parametrize("reader", readers(), ids=lambda reader: reader.name)
def test_every_reader_survives_its_first_cases(reader: Reader, tmp_path: Path) -> None:
    for case in range(6):
        folder = tmp_path / str(case)
        folder.mkdir()
        made_of = operations(case)
        answer = guarded(lambda: reader.read(made_of, folder))  # noqa: B023
        assert answer.outcome in ("answered", "refused"), answer.detail
        assert reader.input(made_of) is not None


@pytest.mark.parametrize("dump", damaged()[:3], ids=lambda dump: dump.name)
def test_a_damaged_dump_is_not_called_complete(dump: Damaged, tmp_path: Path) -> None:
    for case in range(8):
        answer = dump.attempt(operations(case), tmp_path)
        assert answer.outcome in ("answered", "refused", "unchanged"), answer.detail
