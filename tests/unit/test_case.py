# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a whole dump would hold, and whose each note is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import GiB, MiB
from tests.rules.cases import (
    DUMP,
    HEALTHY,
    KERNEL,
    RAM,
    UNREAD,
    blocks,
    cut_short,
    dump,
    kernel,
    notes,
    registers,
    resources,
    saved,
    sections,
)
from vmcheck.facts.case import Case, NoteMap
from vmcheck.facts.header import CpuNote
from vmcheck.facts.ranges import EMPTY, RangeSet
from vmcheck.facts.topology import NotKnown, SavedNote, Unknown

DIMM = RangeSet([(4 * GiB, 5 * GiB)])


def test_a_healthy_dump_lacks_nothing() -> None:
    assert Case(DUMP, KERNEL).undescribed == EMPTY
    assert Case(DUMP, KERNEL).unseen is None


def test_pages_that_a_range_only_touches_are_covered() -> None:
    assert Case(dump(RangeSet([(0x1800, 0x2801)])), KERNEL).covered == RangeSet([(0x1000, 0x3000)])


def test_half_a_page_of_ram_is_not_expected() -> None:
    assert Case(DUMP, kernel(RAM | RangeSet([(GiB + 512, GiB + 4096)]))).undescribed == EMPTY


def test_online_is_told_by_blocks_where_sections_are_lost() -> None:
    torn = replace(kernel(RAM, hot_added=DIMM), sections=UNREAD)
    assert torn.system_ram == RAM | DIMM
    assert Case(DUMP, torn).undescribed == DIMM
    assert Case(DUMP, replace(torn, blocks=blocks(RAM, DIMM))).undescribed == EMPTY


def test_without_sections_and_blocks_nobody_knows_what_is_online() -> None:
    torn = replace(KERNEL, sections=UNREAD, blocks=UNREAD)
    assert torn.system_ram == UNREAD
    with pytest.raises(NotKnown):
        _ = Case(DUMP, torn).undescribed


def test_a_section_of_which_a_page_is_described_is_not_a_loss_by_itself() -> None:
    """The resources were lost, and only they say what of a section is memory."""
    torn = replace(kernel(RAM, hot_added=DIMM), resources=UNREAD)
    one_page = RangeSet([(4 * GiB + 4096, 4 * GiB + 8192)])
    assert Case(dump(HEALTHY | one_page), torn).undescribed == DIMM - RangeSet(
        [(4 * GiB, 4 * GiB + 128 * MiB)]
    )


def test_what_is_seen_of_cut_resources_is_compared_page_by_page() -> None:
    grew = kernel(RAM, hot_added=DIMM)
    partial = replace(grew, resources=cut_short(resources(DIMM)))
    first_page = RangeSet([(4 * GiB, 4 * GiB + 4096)])
    assert Case(dump(HEALTHY | first_page), partial).undescribed == DIMM - first_page


def test_exclusions_that_are_lost_excuse_nothing_that_was_hot_added() -> None:
    torn = replace(kernel(RAM, hot_added=DIMM), resources=UNREAD, excluded=UNREAD)
    assert Case(dump(EMPTY), torn).undescribed == DIMM


@pytest.mark.parametrize(
    ("topology", "why"),
    [
        (replace(KERNEL, resources=UNREAD), "crash_notes: lost"),
        (
            replace(KERNEL, resources=cut_short(resources(RAM))),
            "iomem_resource could not be read to its end: the rest is lost",
        ),
        (
            replace(KERNEL, sections=cut_short(sections(RAM, RAM, RAM))),
            "mem_section could not be read to its end: the rest is lost",
        ),
    ],
)
def test_what_could_hide_a_loss_is_named(topology: object, why: str) -> None:
    assert Case(DUMP, topology).unseen == why  # type: ignore[arg-type]


# Notes.


def test_notes_are_known_by_their_bytes() -> None:
    found = Case(replace(DUMP, cpu_notes=notes(3, 1, 9)), replace(KERNEL, saved_notes=saved(0, 1, 3))).notes
    assert found == NoteMap(cpu_of={0: 3, 1: 1}, unclaimed=(2,), without=(0,), unread=())


def test_notes_that_are_equal_keep_the_order_of_the_cpus() -> None:
    same = SavedNote(b"never ran")
    header = replace(DUMP, cpu_notes=(CpuNote(0, 0, b"never ran"), CpuNote(1, 0, b"never ran")))
    found = Case(header, replace(KERNEL, saved_notes={2: same, 0: same, 1: same})).notes
    assert found == NoteMap(cpu_of={0: 0, 1: 1}, unclaimed=(), without=(2,), unread=())


def test_cpus_that_saved_nothing_or_are_unread_claim_no_note() -> None:
    kernel_notes: dict[int, SavedNote | Unknown] = {0: SavedNote(b""), 1: UNREAD, 2: SavedNote(registers(2))}
    found = Case(replace(DUMP, cpu_notes=notes(1, 2)), replace(KERNEL, saved_notes=kernel_notes)).notes
    assert found == NoteMap(cpu_of={1: 2}, unclaimed=(0,), without=(), unread=(1,))


@pytest.mark.parametrize(
    "damage",
    [
        lambda note: note[:40] + b"!" + note[41:],
        lambda note: note[:60] + bytes(len(note) - 60),
    ],
)
def test_a_note_that_was_changed_is_still_its_cpu_s(damage: Callable[[bytes], bytes]) -> None:
    """One bit of CPU 1's note, or its end zeroed: was "CPU 1 was added after the load", certain."""
    first, second = notes(0, 1)
    header = replace(DUMP, cpu_notes=(first, replace(second, descriptor=damage(second.descriptor))))
    found = Case(header, replace(KERNEL, saved_notes=saved(0, 1))).notes
    assert found == NoteMap(cpu_of={0: 0, 1: 1}, unclaimed=(), without=(), unread=(), changed={1: 1})


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 5), max_size=8),
    st.dictionaries(st.integers(0, 20), st.integers(-1, 5), max_size=8),
)
def test_each_note_and_each_saved_cpu_is_told_of_once(in_file: list[int], in_memory: dict[int, int]) -> None:
    header = replace(DUMP, cpu_notes=tuple(CpuNote(n, 0, registers(what)) for n, what in enumerate(in_file)))
    kernel_notes = {cpu: SavedNote(registers(what) if what >= 0 else b"") for cpu, what in in_memory.items()}
    found = Case(header, replace(KERNEL, saved_notes=kernel_notes)).notes
    assert sorted([*found.cpu_of, *found.unclaimed]) == list(range(len(in_file)))
    assert sorted([*found.cpu_of.values(), *found.without]) == sorted(
        cpu for cpu, what in in_memory.items() if what >= 0
    )
    for position, cpu in found.cpu_of.items():
        assert in_file[position] == in_memory[cpu]
    for cpu in found.without:
        assert in_memory[cpu] not in [in_file[position] for position in found.unclaimed]
