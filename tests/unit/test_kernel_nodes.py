# SPDX-License-Identifier: LGPL-2.1-or-later
"""NUMA nodes by the spans in pglist_data; those of the memory blocks are in the captures."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders import GiB, MiB
from tests.kernels import EARLY, HAS_MEM_MAP, ONLINE, PRESENT, Machine, healthy, words
from vmcheck.facts.ranges import EMPTY, RangeSet
from vmcheck.facts.topology import Unknown, known

AT_BOOT = PRESENT | HAS_MEM_MAP | ONLINE | EARLY
RAM = {**dict.fromkeys(range(8), AT_BOOT), 32: PRESENT | ONLINE}
PAGE = 4096


def with_nodes(*spans: tuple[int, int], length: int = 8) -> Machine:
    """A kernel with 1 GiB from 0 and 128 MiB from 4 GiB, whose nodes span ``[start, end)``."""
    machine = healthy(ram=RAM)
    places = [
        machine.place(words(7, start // PAGE, (end - start) // PAGE, number))
        for number, (start, end) in enumerate(spans)
    ]
    machine.vmcoreinfo |= {
        "SYMBOL(node_data)": f"{machine.place(words(*places, *[0] * (8 - len(places)))):x}",
        "LENGTH(node_data)": str(length),
        "OFFSET(pglist_data.node_start_pfn)": "8",
        "OFFSET(pglist_data.node_spanned_pages)": "16",
    }
    return machine


def test_holes_in_a_span_are_no_memory_of_the_node(tmp_path: Path) -> None:
    found = with_nodes((0, 512 * MiB), (512 * MiB, 4 * GiB + 64 * MiB)).topology(tmp_path)
    assert found.nodes == {
        0: RangeSet([(0, 512 * MiB)]),
        1: RangeSet([(512 * MiB, GiB), (4 * GiB, 4 * GiB + 64 * MiB)]),
    }


def test_memory_that_two_nodes_span_is_given_to_neither(tmp_path: Path) -> None:
    found = with_nodes((0, 4 * GiB + 128 * MiB), (512 * MiB, GiB)).topology(tmp_path)
    assert found.nodes == {0: RangeSet([(0, 512 * MiB), (4 * GiB, 4 * GiB + 128 * MiB)]), 1: EMPTY}


def test_of_three_nodes_that_overlap_each_has_what_it_has_alone(tmp_path: Path) -> None:
    found = with_nodes((0, 384 * MiB), (128 * MiB, 512 * MiB), (256 * MiB, GiB)).topology(tmp_path)
    assert found.nodes == {
        0: RangeSet([(0, 128 * MiB)]),
        1: EMPTY,
        2: RangeSet([(512 * MiB, GiB)]),
    }


@pytest.mark.parametrize("span", [(0, 0), (0, 1 << 75), (1 << 74, 1 << 75)])
def test_an_absurd_span_is_no_node(tmp_path: Path, span: tuple[int, int]) -> None:
    assert with_nodes((0, GiB), span).topology(tmp_path).nodes == {0: RangeSet([(0, GiB)])}


@pytest.mark.parametrize("length", [0, -1, 1 << 60])
def test_an_absurd_number_of_nodes_is_told(tmp_path: Path, length: int) -> None:
    assert with_nodes((0, GiB), length=length).topology(tmp_path).nodes == Unknown(
        f"NUMA nodes: VMCOREINFO has LENGTH(node_data)={length}"
    )


def test_a_kernel_without_numa_has_no_nodes(tmp_path: Path) -> None:
    machine = healthy()
    machine.vmcoreinfo["SYMBOL(contig_page_data)"] = "ffffffff81000000"
    assert known(machine.topology(tmp_path).nodes) == {}
