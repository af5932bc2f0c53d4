# SPDX-License-Identifier: LGPL-2.1-or-later
"""CPU masks and crash_notes, and what hostile ones cost."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.builders import prstatus
from tests.kernels import Machine, Types, healthy, kernel_types, note, words
from vmcheck.facts.topology import SavedNote, Unknown, known
from vmcheck.kernel import btf, cpus

WILD = 0xFFFF900000000000


def registers(cpu: int) -> SavedNote:
    return SavedNote(prstatus(100 + cpu).descriptor)


def crash_notes(machine: Machine, cpu: int) -> int:
    """The address of a CPU's note."""
    offset = machine.word(machine.symbols["__per_cpu_offset"] + 8 * cpu)
    return (machine.word(machine.symbols["crash_notes"]) + offset) % 2**64


def test_the_masks_and_notes_of_a_healthy_kernel(tmp_path: Path) -> None:
    found = healthy().topology(tmp_path)
    assert [known(mask) for mask in (found.possible_cpus, found.present_cpus, found.online_cpus)] == [
        {0, 1, 2, 3},
        {0, 1},
        {0, 1},
    ]
    assert found.saved_notes == {0: registers(0), 1: registers(1), 2: SavedNote(b""), 3: SavedNote(b"")}


def test_a_sparse_mask(tmp_path: Path) -> None:
    machine = healthy()
    machine.place(words(1 << 63 | 1 << 17 | 1), "__cpu_online_mask")
    assert known(machine.topology(tmp_path).online_cpus) == {0, 17, 63}


def test_a_mask_that_is_lost_is_unknown(tmp_path: Path) -> None:
    machine = healthy()
    machine.lose(machine.on_its_own_page(words(1), "__cpu_online_mask"))
    found = machine.topology(tmp_path)
    assert isinstance(found.online_cpus, Unknown)
    assert found.online_cpus.why.startswith("cpu_online_mask: ")
    assert known(found.present_cpus) == {0, 1}


def test_no_mask_has_more_cpus_than_linux(tmp_path: Path) -> None:
    types = kernel_types()
    types._records[_record(types, "cpumask")] = struct.pack(
        "<6I", types.string("cpumask"), btf.STRUCT << 24 | 1, 1 << 28, types.string("bits"), 1, 0
    )
    machine = healthy(types)
    machine.place(b"\xff" * (1 << 16), "__cpu_possible_mask", align=4096)
    found = machine.topology(tmp_path)
    assert known(found.possible_cpus) == set(range(8192))


def _record(types: Types, name: str) -> int:
    return next(
        n for n, data in enumerate(types._records) if data[:4] == types.string(name).to_bytes(4, "little")
    )


@pytest.mark.parametrize("offset", [WILD, WILD + 1, 0x1000])
def test_a_cpu_whose_area_is_lost_hides_no_other(tmp_path: Path, offset: int) -> None:
    machine = healthy()
    machine.put(machine.symbols["__per_cpu_offset"] + 8, words(offset))
    saved = known(machine.topology(tmp_path).saved_notes)
    lost = saved[1]
    assert isinstance(lost, Unknown)
    assert lost.why.startswith("crash_notes of CPU 1: ")
    assert saved[0] == registers(0)


@pytest.mark.parametrize(
    "header", [(5, 336, 2), (4, 336, 1), (2**32 - 1, 336, 1), (5, 2**32 - 1, 1), (5, 349, 1)]
)
def test_a_torn_note_is_unknown(tmp_path: Path, header: tuple[int, int, int]) -> None:
    machine = healthy()
    machine.put(crash_notes(machine, 1), struct.pack("<III", *header))
    saved = known(machine.topology(tmp_path).saved_notes)
    assert saved[1] == Unknown(
        f"crash_notes begins with n_namesz {header[0]}, n_descsz {header[1]}, n_type {header[2]}"
    )


def test_a_note_of_another_name_is_unknown(tmp_path: Path) -> None:
    machine = healthy()
    machine.put(crash_notes(machine, 1) + 12, b"ROCE\0")
    assert isinstance(known(machine.topology(tmp_path).saved_notes)[1], Unknown)


def test_crash_notes_that_were_never_allocated(tmp_path: Path) -> None:
    machine = healthy()
    machine.place(words(0), "crash_notes")
    assert machine.topology(tmp_path).saved_notes == Unknown("crash_notes: crash_notes was never allocated")


@pytest.mark.parametrize("symbol", ["crash_notes", "__per_cpu_offset"])
def test_without_its_symbols_there_are_no_notes(tmp_path: Path, symbol: str) -> None:
    machine = healthy()
    del machine.symbols[symbol]
    found = machine.topology(tmp_path).saved_notes
    assert isinstance(found, Unknown)
    assert symbol in found.why


@pytest.mark.parametrize("size", [0, 4, 1 << 30])
def test_a_note_type_that_cannot_be_is_not_believed(tmp_path: Path, size: int) -> None:
    types = kernel_types()
    u32 = types.integer("unsigned int", 4)
    types._records[_record(types, "note_buf_t")] = struct.pack(
        "<3I", types.string("note_buf_t"), btf.TYPEDEF << 24, types.array(u32, size // 4)
    )
    machine = healthy(types)
    machine.place(bytes(cpus.MAX_NOTE))
    saved = machine.topology(tmp_path).saved_notes
    # A note cut short is no note; one of a gigabyte is not read as such.
    assert not isinstance(saved, Unknown)
    assert isinstance(saved[0], Unknown) if size < 1 << 30 else saved[0] == registers(0)


def test_kernels_without_a_type_for_notes_have_the_usual_one(tmp_path: Path) -> None:
    types = kernel_types()
    types._records[_record(types, "note_buf_t")] = struct.pack("<3I", 0, btf.TYPEDEF << 24, 1)
    machine = healthy(types)
    machine.place(bytes(1024))
    assert known(machine.topology(tmp_path).saved_notes)[0] == registers(0)


def test_a_note_is_what_crash_save_cpu_writes() -> None:
    assert len(note(0)) == 12 + 8 + 336
