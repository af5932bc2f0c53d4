# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real dumps in other clothes, which makedumpfile dresses them in: the findings stay the same."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from tests.dumps import every_real_dump, name, real_dumps
from tests.peers.fresh import LOST, Captures
from vmcheck.check import Report
from vmcheck.facts.case import Case
from vmcheck.facts.ranges import EMPTY, RangeSet
from vmcheck.operations.examine import examine

Found = list[tuple[str, list[tuple[int, int]], tuple[int, ...]]]

LEFT_OUT = "kernel-data-filtered"
"""A makedumpfile that does not know the kernel leaves slab pages out when it dresses a dump, at any -d."""

FLATTENED, SPLIT = "flattened", "split"
EVERY_DUMP = {
    "lzo, not filtered, flattened": (["-l", "-d", "0"], FLATTENED),
    "lzo, filtered, split": (["-l", "-d", "31"], SPLIT),
}
ONE_DUMP = {
    "zlib, filtered": (["-c", "-d", "31"], ""),
    "zstd": (["-z", "-d", "31"], ""),
    "zlib, flattened": (["-c", "-d", "31"], FLATTENED),
    "not compressed": (["-d", "31"], ""),
}


@cache
def report(*paths: Path) -> Report:
    return examine([str(path) for path in paths])


def findings(found: Report) -> Found:
    return [
        (rule, list(finding.ranges), finding.cpus)
        for rule, finding in found.named_findings
        if rule != LEFT_OUT
    ]


def dress(vmcore: Path, options: Sequence[str], manner: str, folder: Path) -> list[Path]:
    """The files that makedumpfile makes of a dump."""
    if not shutil.which("makedumpfile"):
        pytest.skip("no makedumpfile here")
    parts = [folder / "part1", folder / "part2"] if manner == SPLIT else [folder / "vmcore"]
    command = ["makedumpfile", "--message-level", "1", *options]
    if manner == FLATTENED:
        with parts[0].open("wb") as stream:
            subprocess.run([*command, "-F", str(vmcore)], stdout=stream, check=True)
    else:
        split = ["--split"] if manner == SPLIT else []
        subprocess.run([*command, *split, str(vmcore), *map(str, parts)], check=True)
    return parts


def left_out(found: Report) -> RangeSet:
    return next((finding.ranges for rule, finding in found.named_findings if rule == LEFT_OUT), EMPTY)


def assert_same(vmcore: Path, parts: list[Path]) -> None:
    before, after = report(vmcore), report(*parts)
    assert findings(after) == findings(before)
    # makedumpfile leaves out a page of which a segment has only a part.
    assert before.header.described.aligned_inward(4096) - after.header.described == EMPTY
    assert after.header.described - Case(before.header, before.topology).covered == EMPTY
    dropped = before.header.stored - after.header.stored
    assert left_out(after) - left_out(before) - dropped == EMPTY
    if not dropped:
        assert after.verdict == before.verdict
        assert after.topology.system_ram == before.topology.system_ram


@pytest.mark.parametrize("clothes", EVERY_DUMP)
@every_real_dump
def test_every_dump(real: Path, clothes: str, tmp_path: Path) -> None:
    options, manner = EVERY_DUMP[clothes]
    parts = dress(real, options, manner, tmp_path)
    assert_same(real, parts)
    made = report(*parts).header
    assert made.compression == "lzo"
    assert (made.flattened, len(made.split)) == ((True, 0) if manner == FLATTENED else (False, 2))


@pytest.mark.parametrize("clothes", ONE_DUMP)
def test_one_dump_in_every_clothing(clothes: str, tmp_path: Path) -> None:
    wanted = [path for path in real_dumps() if name(path) == "debian-6.1/memory-and-cpu-added"]
    if not wanted:
        pytest.skip("no debian-6.1/memory-and-cpu-added here")
    options, manner = ONE_DUMP[clothes]
    assert_same(wanted[0], dress(wanted[0], options, manner, tmp_path))


@pytest.mark.lab
def test_a_raw_dump_as_filtered_elf(captures: Captures, tmp_path: Path) -> None:
    raw = captures[LOST].vmcore
    assert_same(raw, dress(raw, ["-E", "-d", "31"], "", tmp_path))


def test_one_part_of_a_split_dump_says_that_it_is_one(tmp_path: Path) -> None:
    """What is in the other part is not lost."""
    if not real_dumps():
        pytest.skip("no real dumps here")
    vmcore = real_dumps()[0]
    first, second = dress(vmcore, ["-l", "-d", "31"], SPLIT, tmp_path)
    whole, part = report(vmcore), report(first)
    assert whole.header.described.aligned_inward(4096) - part.header.described == EMPTY
    assert part.header.absent_parts == report(second).header.stored
    assert part.lost_memory == whole.lost_memory
