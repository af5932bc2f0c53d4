# SPDX-License-Identifier: LGPL-2.1-or-later
"""The benchmarks run, at the smallest sizes. Nothing here is about time."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import headers, page, ranges, topology
from benchmarks.__main__ import BENCHMARKS, main, measure
from benchmarks.inputs import ROOT, Inputs
from benchmarks.measure import Lacking, Row, in_turns, peak_memory, seconds
from tests.builders import PAGE
from vmcheck.formats import read_header
from vmcheck.formats.bitmap import read_bitmap
from vmcheck.formats.file import StoredFile


@pytest.fixture
def smallest(tmp_path: Path) -> Inputs:
    return Inputs(tmp_path, repetitions=1, scale=1 << 10)


def test_contenders_take_turns_and_the_first_round_does_not_count() -> None:
    turns: list[str] = []
    timings = in_turns([lambda: turns.append("ours"), lambda: turns.append("theirs")], repetitions=2)
    assert turns == ["ours", "theirs"] * 3
    assert all(0 <= timing.best <= timing.median for timing in timings)


def test_what_is_lacking_is_named_and_the_others_are_measured(smallest: Inputs) -> None:
    rows = measure(["raw", "ranges"], replace(smallest, given_raw=None))
    if not any(Path(ROOT).glob("build/lab/*/*/vmcore")):
        assert rows[0].ours.startswith("not measured: no raw dump: python -m fixtures.lab run ")
    assert [row.peer for row in rows[1:]] == ["numpy sorting their bounds"] * 4


def test_every_range_operation_has_a_row(smallest: Inputs) -> None:
    whats = [row.what.split(" of ")[0] for row in ranges.range_sets(smallest)]
    assert whats == ["union", "intersection", "difference", "a RangeSet from 488 ranges in any order"]


def test_bitmaps_of_three_machines_with_few_and_many_runs(smallest: Inputs) -> None:
    rows = list(headers.bitmaps(smallest))
    assert len(rows) == 6
    assert all(row.target == "at most 3 times the peer" and row.reached is not None for row in rows)
    assert list(smallest.folder.iterdir()) == []


def test_the_bitmaps_that_are_built_read_back(tmp_path: Path) -> None:
    pages, runs = 1 << 16, 100
    with StoredFile(headers.write_bitmaps(tmp_path / "bitmaps", pages, runs)) as file:
        first = read_bitmap(file, 0, pages, PAGE, "the first bitmap")
        second = read_bitmap(file, pages // 8, pages, PAGE, "the second bitmap")
    assert len(first) == 4
    assert runs // 2 < len(second) <= runs + 1


def test_the_elf_that_is_built_has_all_its_memory(tmp_path: Path) -> None:
    header = read_header([headers.write_elf(tmp_path / "vmcore", 70_000)])
    assert len(header.stored) == 70_000
    assert header.stored == header.described
    assert header.expected_size == header.file_size


def test_a_large_machine_is_laid_over_a_real_dump(smallest: Inputs) -> None:
    rows = list(topology.topology(replace(smallest, scale=1 << 6)))
    assert [row.what.split(" (")[0] for row in rows] == ["4,096 sections", "4,096 memory blocks"]


def test_the_memory_of_a_child_counts() -> None:
    hold = "import time; held = bytes([1]) * 40_000_000; time.sleep(0.1)"
    peak = peak_memory(["sh", "-c", f"'{sys.executable}' -c '{hold}'; true"], dict(os.environ))
    assert min(peak) > 40_000_000


def test_the_table_goes_between_its_markers(tmp_path: Path) -> None:
    rows = [
        Row("a", "1 ms / 2 ms", "b", "2 ms / 2 ms", 0.5, "at most 1 times the peer", True),
        Row("c", "not measured: no crash"),
    ]
    target = tmp_path / "page.md"
    target.write_text(f"before\n{page.BEGIN}\nold\n{page.END}\nafter\n")
    page.write(target, page.table(rows))
    before, table, after = target.read_text().partition(page.table(rows))
    assert (before, after) == (f"before\n{page.BEGIN}\n\n", f"\n\n{page.END}\nafter\n")
    assert "| a | 1 ms / 2 ms | b | 2 ms / 2 ms | 0.5 | at most 1 times the peer, reached |" in table
    assert "| c | not measured: no crash |  |  |  |  |" in table


def test_the_page_has_the_markers() -> None:
    text = (ROOT / "docs" / "performance.md").read_text()
    assert text.count(page.BEGIN) == text.count(page.END) == 1


@pytest.mark.parametrize(("value", "text"), [(1.234, "1.23 s"), (0.0456, "45.6 ms"), (7e-6, "7 µs")])
def test_times_are_for_people(value: float, text: str) -> None:
    assert seconds(value) == text


def test_an_unknown_name_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["bitmap"])
    assert "no benchmark bitmap" in capsys.readouterr().err


def test_a_dump_is_found_in_every_checkout(smallest: Inputs) -> None:
    assert smallest.dump.exists()
    assert "check" in BENCHMARKS


def test_a_vmlinux_of_another_kernel_is_refused(smallest: Inputs, tmp_path: Path) -> None:
    dump = next(ROOT.glob("fixtures/captures/*/*/vmcore.distilled"))
    with pytest.raises(Lacking, match="no vmlinux of "):
        _ = replace(smallest, given_dump=dump, given_vmlinux=tmp_path / "vmlinux").vmlinux
