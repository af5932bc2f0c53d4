# SPDX-License-Identifier: LGPL-2.1-or-later
"""elfcorehdr as it is loaded: what the headers of a dump would be, were the kernel to crash now.

It lies in the crash kernel's reservation, in one of the segments that kexec_load or
kexec_file_load put there. Its PT_NOTEs point at the memory where each CPU will save its
registers, so whose note each is needs no guess; the notes themselves are still empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from vmcheck.errors import PageNotStored, UnreadableFile
from vmcheck.facts.header import CpuNote, DumpHeader, Format, Producer, Segments, unwritten_registers
from vmcheck.facts.machine import ByteOrder, page_size
from vmcheck.facts.ranges import EMPTY
from vmcheck.formats import elf
from vmcheck.formats.file import DumpFile
from vmcheck.formats.notes import MOST_NOTES, Notes

LARGEST = 64 << 20
"""Bytes. The kernel's own is 64 + 56 * (2 + NR_CPUS_DEFAULT + 8192), 1 MiB at most."""
LARGEST_NOTE = 1 << 16
"""Bytes. note_buf_t has 148 to 536 by machine, VMCOREINFO a page."""

NAME = "elfcorehdr"


class Memory(Protocol):
    """Physical memory of a live kernel."""

    def read(self, address: int, size: int) -> bytes:
        """Raises PageNotStored for what cannot be read."""


class NoElfcorehdr(UnreadableFile):
    """No segment of the crash image begins as elfcorehdr does."""


class _PhysicalFile(DumpFile):
    """A stretch of physical memory as a file, so that the reader of ELF files reads it."""

    def __init__(self, memory: Memory, address: int, size: int) -> None:
        super().__init__(NAME, size)
        self._memory = memory
        self._address = address

    def _read(self, offset: int, size: int) -> bytes:
        try:
            return self._memory.read(self._address + offset, size)
        except PageNotStored as absent:
            raise UnreadableFile(f"{self.name}: {absent}") from None


def read(memory: Memory, segments: Sequence[tuple[int, int, int]]) -> DumpHeader:
    """The header of the crash image with these segments: (mem, memsz, bufsz) of each.

    Raises NoElfcorehdr where none of them is one, UnreadableFile where it contradicts itself.
    """
    file, used = _find(memory, segments)
    table = elf.read_table(file)
    notes = Notes(table.elf.byteorder, table.elf.machine.kernel_bits(table.elf.bits))
    cpu_notes: list[CpuNote] = []
    for header in table.notes[:MOST_NOTES]:
        address = int(header["p_paddr"])
        if not _is_vmcoreinfo(memory, address, int(header["p_memsz"]), notes):
            cpu_notes.append(CpuNote(len(cpu_notes), 0, unwritten_registers(address)))
    made = DumpHeader(
        path=NAME,
        format=Format.ELF,
        producer=Producer.LOADED,
        machine=table.elf.machine.name,
        bits=table.elf.machine.kernel_bits(table.elf.bits),
        byteorder=table.elf.byteorder,
        page_size=0,
        described=table.described,
        stored=table.described,
        file_size=used,
        expected_size=used,
        segments=table.physical,
        cpu_notes=tuple(cpu_notes),
        notes=notes.listed,
        note_defects=tuple(notes.defects),
        vmcoreinfo_notes=tuple(notes.vmcoreinfo),
    )
    return replace(made, page_size=page_size(made.arch, made.vmcoreinfo))


def none_loaded(machine: str, bits: int, byteorder: ByteOrder, page: int) -> DumpHeader:
    """The header that is not there: no dump would describe anything."""
    return DumpHeader(
        path=NAME,
        format=Format.ELF,
        producer=Producer.LOADED,
        machine=machine,
        bits=bits,
        byteorder=byteorder,
        page_size=page,
        described=EMPTY,
        stored=EMPTY,
        file_size=0,
        expected_size=0,
        segments=Segments.of(()),
    )


def _find(memory: Memory, segments: Sequence[tuple[int, int, int]]) -> tuple[DumpFile, int]:
    """The segment as a file, and the bytes of it that were given.

    The kernel finds it in the same way (crash_handle_hotplug_event()). Another segment is a
    kernel image, which on some machines is an ELF file too, though not a core.
    """
    unreadable = []
    for mem, memsz, bufsz in segments:
        file = _PhysicalFile(memory, mem, min(memsz, LARGEST))
        try:
            start = file.read(0, min(18, file.size))
        except UnreadableFile as error:
            unreadable.append(str(error))
            continue
        core = start[16:18] in (b"\x04\x00", b"\x00\x04")
        if start[:4] == elf.SIGNATURE and core:
            return file, min(bufsz or memsz, memsz)
    # Until Linux kernel commit 0d124e96051b ("arm64: kdump : take off the protection on crashkernel
    # memory region") (in v6.4), arm64 unmaps the reservation, and /proc/kcore reads it as zeros.
    raise NoElfcorehdr(
        f"{NAME}: none of the {len(segments)} segments of the loaded crash image begins as an ELF core"
        + (f"; {unreadable[0]}" if unreadable else "")
    )


def _is_vmcoreinfo(memory: Memory, address: int, size: int, notes: Notes) -> bool:
    """Whether the PT_NOTE names VMCOREINFO, which is there already and is added to ``notes``."""
    file = _PhysicalFile(memory, address, min(size, LARGEST_NOTE))
    mine = Notes(notes.byteorder, notes.bits, padded=True)
    try:
        mine.read(file, 0, file.size, f"the PT_NOTE for {address:#x}")
    except UnreadableFile as error:
        notes.defects.append(str(error))
        return False
    if not mine.vmcoreinfo:
        # A CPU's: zeros until the crash.
        return False
    notes.headers += mine.headers
    notes.vmcoreinfo += mine.vmcoreinfo
    notes.defects += mine.defects
    return True
