# SPDX-License-Identifier: LGPL-2.1-or-later
"""Filtered pages judged by their struct pages: slab by flag, by type, head and tail."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from tests.builders import MiB
from tests.kernels import EARLY, ONLINE, PRESENT, Machine, healthy, words
from vmcheck.facts.header import DumpHeader, Format
from vmcheck.facts.ranges import RangeSet
from vmcheck.facts.topology import SlabSample, Topology, Unknown
from vmcheck.operations.examine import read_kernel

FIRST = 64 * MiB // 4096
"""The page frame number of the first of 64 pages that were filtered out."""
LEFT_OUT = RangeSet([(64 * MiB, 64 * MiB + 64 * 4096)])
SLAB = 1 << 7


class Memmap:
    """A kernel whose section 0 has struct pages for the filtered memory."""

    def __init__(self) -> None:
        self.machine: Machine = healthy()
        self.structs = self.machine.place(bytes(64 * 64), align=4096)
        flags = PRESENT | ONLINE | EARLY
        roots = int(self.machine.vmcoreinfo["SYMBOL(mem_section)"], 16)
        # sparse_encode_mem_map(): the map's address less the section's first PFN.
        self.machine.put(self.machine.word(roots), words(self.structs - FIRST * 64 | flags))

    def page(self, n: int, flags: int = 0, link: int = 0, type_: int = 0xFFFFFFFF) -> None:
        self.machine.put(self.structs + 64 * n, words(flags, link) + bytes(32) + struct.pack("<I", type_))

    def topology(self, directory: Path) -> Topology:
        header: DumpHeader = self.machine.header(directory)
        header = replace(header, format=Format.KDUMP, described=header.stored | LEFT_OUT)
        return read_kernel(header, self.machine, self.machine.symbol_file(directory))

    def sample(self, directory: Path) -> SlabSample:
        found = self.topology(directory).filtered_slab
        assert isinstance(found, SlabSample)
        return found


def pages(*numbers: int) -> RangeSet:
    return RangeSet((64 * MiB + n * 4096, 64 * MiB + (n + 1) * 4096) for n in numbers)


def test_free_pages_are_no_slab(tmp_path: Path) -> None:
    assert Memmap().sample(tmp_path) == SlabSample(64, RangeSet())


def test_slab_by_its_flag(tmp_path: Path) -> None:
    memmap = Memmap()
    memmap.page(5, SLAB)
    memmap.page(6, ~SLAB % 2**64)
    assert memmap.sample(tmp_path) == SlabSample(64, pages(5))


@pytest.mark.parametrize(
    ("value", "types"),
    [
        # v6.10 clears a bit for each type, v6.11 on has the type in the top byte.
        ("-4097", {5: 0xFFFFEFFF, 6: 0xFFFFFF7F}),
        ("-184549376", {5: 0xF5000000, 6: 0xF5FFFFFF, 7: 0xF0000000}),
    ],
)
def test_slab_by_its_page_type(tmp_path: Path, value: str, types: dict[int, int]) -> None:
    memmap = Memmap()
    memmap.machine.vmcoreinfo |= {
        "NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)": value,
        "OFFSET(page._mapcount)": "48",
    }
    for n, type_ in types.items():
        memmap.page(n, SLAB, type_=type_)
    assert memmap.sample(tmp_path).slab == (pages(5) if value == "-4097" else pages(5, 6))


def test_a_tail_is_what_its_head_is(tmp_path: Path) -> None:
    memmap = Memmap()
    memmap.page(8, SLAB)
    for n in (9, 10):
        memmap.page(n, link=memmap.structs + 64 * 8 | 1)
    memmap.page(12, link=memmap.structs + 64 * 20 | 1)
    assert memmap.sample(tmp_path).slab == pages(8, 9, 10)


def test_a_tail_finds_its_head_by_a_mask(tmp_path: Path) -> None:
    """Linux 7.x: compound_info of a tail is a mask, not an address."""
    memmap = Memmap()
    memmap.machine.vmcoreinfo["OFFSET(page.compound_info)"] = "8"
    memmap.page(8, SLAB)
    for n in range(9, 16):
        memmap.page(n, link=~(8 * 64 - 1) % 2**64 | 1)
    assert memmap.sample(tmp_path).slab == pages(*range(8, 16))


@pytest.mark.parametrize("head", [1, 0xFFFF900000000001, 2**64 - 1])
def test_a_tail_of_a_wild_head_is_no_slab(tmp_path: Path, head: int) -> None:
    memmap = Memmap()
    memmap.page(9, link=head)
    assert memmap.sample(tmp_path) == SlabSample(64, RangeSet())


def test_struct_pages_that_are_lost_are_not_counted(tmp_path: Path) -> None:
    memmap = Memmap()
    memmap.page(5, SLAB)
    memmap.machine.lose(memmap.structs)
    assert memmap.sample(tmp_path) == SlabSample(0, RangeSet())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("SIZE(page)", "0"),
        ("SIZE(page)", "-64"),
        ("SIZE(page)", "4096"),
        ("SIZE(page)", "9999999999999999999"),
        ("SIZE(page)", "<script>"),
        ("OFFSET(page.flags)", "64"),
        ("OFFSET(page.flags)", "-8"),
        ("OFFSET(page.compound_head)", "57"),
        ("NUMBER(PG_slab)", "-1"),
    ],
)
def test_absurd_struct_pages_are_told(tmp_path: Path, key: str, value: str) -> None:
    memmap = Memmap()
    memmap.machine.vmcoreinfo[key] = value
    found = memmap.topology(tmp_path).filtered_slab
    assert isinstance(found, Unknown)
    assert found.why.startswith("struct page: ")


def test_a_flag_past_the_word_is_nobodys(tmp_path: Path) -> None:
    memmap = Memmap()
    memmap.page(5, 2**64 - 1)
    memmap.machine.vmcoreinfo["NUMBER(PG_slab)"] = "64"
    assert memmap.sample(tmp_path).slab == RangeSet()
