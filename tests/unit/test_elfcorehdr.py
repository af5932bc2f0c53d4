# SPDX-License-Identifier: LGPL-2.1-or-later
"""A loaded elfcorehdr, as kexec_load and kexec_file_load lay it into the crash kernel's reservation."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import pytest

from tests.builders import MiB
from vmcheck.errors import PageNotStored, UnreadableFile
from vmcheck.facts.header import CpuNote, Producer, unwritten_registers
from vmcheck.facts.ranges import RangeSet
from vmcheck.formats import elfcorehdr

HEADER_AT = 0x0F00_0000
KERNEL_AT = 0x0E00_0000
NOTES_AT = {0: 0x3FE0_0000, 1: 0x3FE8_0000}
"""crash_notes of each CPU, physical."""
VMCOREINFO_AT = 0x0100_0000
VMCOREINFO = b"OSRELEASE=6.1.0-test\nPAGESIZE=4096\n"


class Memory:
    """Physical memory that is zero but for a few places, and absent from ``end`` on."""

    def __init__(self, places: Mapping[int, bytes], end: int = 1 << 30) -> None:
        self.places = places
        self.end = end

    def read(self, address: int, size: int) -> bytes:
        if address + size > self.end:
            raise PageNotStored(f"physical address {address:#x}: no memory", address)
        data = bytearray(size)
        for start, content in self.places.items():
            for i, byte in enumerate(content):
                if address <= start + i < address + size:
                    data[start + i - address] = byte
        return bytes(data)


def ehdr(phnum: int, e_type: int = 4) -> bytes:
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    return ident + struct.pack("<HHIQQQIHHHHHH", e_type, 62, 1, 0, 64, 0, 0, 64, 56, phnum, 0, 0, 0)


def phdr(p_type: int, paddr: int, memsz: int, offset: int | None = None) -> bytes:
    return struct.pack("<IIQQQQQQ", p_type, 0, paddr if offset is None else offset, 0, paddr, memsz, memsz, 0)


def note(name: bytes, type_: int, descriptor: bytes) -> bytes:
    pad = -len(descriptor) % 4
    return (
        struct.pack("<III", len(name) + 1, len(descriptor), type_)
        + name.ljust(12, b"\0")
        + descriptor
        + bytes(pad)
    )


CPUS = [phdr(4, address, 368) for address in NOTES_AT.values()]
INFO = phdr(4, VMCOREINFO_AT, 4096)
LOADS = [phdr(1, 1 * MiB, 99 * MiB), phdr(1, 512 * MiB, 512 * MiB)]
HEALTHY = ehdr(5) + b"".join([*CPUS, INFO, *LOADS])
SEGMENTS = [(KERNEL_AT, 8 * MiB, 6 * MiB), (HEADER_AT, 16384, 344)]


def memory(header: bytes = HEALTHY) -> Memory:
    return Memory({HEADER_AT: header, VMCOREINFO_AT: note(b"VMCOREINFO", 0, VMCOREINFO)})


def test_the_header_is_the_segment_that_begins_as_an_elf_core() -> None:
    header = elfcorehdr.read(memory(), SEGMENTS)
    assert header.producer is Producer.LOADED
    assert header.described == header.stored == RangeSet([(1 * MiB, 100 * MiB), (512 * MiB, 1024 * MiB)])
    assert header.vmcoreinfo["OSRELEASE"] == "6.1.0-test"
    assert (header.machine, header.page_size, header.file_size) == ("x86_64", 4096, 344)


def test_a_note_is_known_by_the_place_where_its_cpu_will_save() -> None:
    header = elfcorehdr.read(memory(), SEGMENTS)
    assert header.cpu_notes == tuple(
        CpuNote(position, 0, unwritten_registers(address))
        for position, address in enumerate(NOTES_AT.values())
    )


def test_a_program_header_whose_bytes_come_from_a_backup_describes_its_own_address() -> None:
    low = phdr(1, 0x1000, 0x9E000, offset=HEADER_AT + MiB)
    header = elfcorehdr.read(memory(ehdr(2) + INFO + low), SEGMENTS)
    assert header.described == RangeSet([(0x1000, 0x9F000)])


def test_a_kernel_that_is_an_elf_file_is_not_taken_for_the_header() -> None:
    places = {KERNEL_AT: ehdr(1, e_type=2) + LOADS[0], HEADER_AT: HEALTHY}
    assert len(elfcorehdr.read(Memory(places), SEGMENTS).segments) == 2


def test_an_image_without_a_header_is_an_error_of_one_line() -> None:
    with pytest.raises(elfcorehdr.NoElfcorehdr, match=r"none of the 2 segments .* begins as an ELF core"):
        elfcorehdr.read(Memory({}), SEGMENTS)


def test_a_segment_outside_memory_is_said_to_be() -> None:
    with pytest.raises(elfcorehdr.NoElfcorehdr, match="0x80000000: no memory"):
        elfcorehdr.read(Memory({}), [(2 << 30, 4096, 4096)])


def test_a_header_longer_than_its_segment_is_refused() -> None:
    with pytest.raises(UnreadableFile, match=r"300 program headers .* past the end"):
        elfcorehdr.read(memory(ehdr(300) + b"".join(CPUS)), SEGMENTS)


def test_a_note_that_points_at_no_memory_is_a_defect_and_a_note_that_is_no_cpus() -> None:
    header = elfcorehdr.read(memory(ehdr(2) + phdr(4, 4 << 30, 368) + INFO), SEGMENTS)
    assert len(header.note_defects) == 1
    assert "0x100000000: no memory" in header.note_defects[0]
    assert [each.descriptor for each in header.cpu_notes] == [unwritten_registers(4 << 30)]


def test_a_header_that_does_not_name_vmcoreinfo_has_none() -> None:
    header = elfcorehdr.read(memory(ehdr(3) + b"".join([*CPUS, *LOADS[:1]])), SEGMENTS)
    assert header.vmcoreinfo_notes == ()
    assert len(header.cpu_notes) == 2
