# SPDX-License-Identifier: LGPL-2.1-or-later
"""ELF notes: registers of CPUs, VMCOREINFO and who wrote the dump."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from vmcheck.formats.file import DumpFile, Window
from vmcheck.header import CpuNote, Note

NT_PRSTATUS = 1
NT_PRPSINFO = 3
NT_AUXV = 6
NT_FILE = 0x46494C45

CORE = "CORE"
VMCOREINFO = "VMCOREINFO"
QEMU = "QEMU"
ERASEINFO = "ERASEINFO"

MOST_NOTES = 1 << 17
"""8192 CPUs, the most that Linux has, with the ten notes that s390 writes for each."""
LARGEST_PRSTATUS = 4096
LARGEST_VMCOREINFO = 1 << 20
"""The kernel gives it a page, and makedumpfile copies it as it is."""
LONGEST_NAME = 256

HEADER_SIZE = 12
WINDOW = 1 << 16

PR_PID = {32: 24, 64: 32}
"""Offset of pr_pid in ``struct elf_prstatus`` (include/linux/elfcore.h)."""


class NoteHeader(NamedTuple):
    """An ELF note without its descriptor, which may be a device's whole memory."""

    name: str
    type: int
    descsz: int
    desc_offset: int
    """In the file."""


@dataclass
class Notes:
    """What the notes of one dump say."""

    byteorder: str
    bits: int
    headers: list[NoteHeader] = field(default_factory=list)
    cpus: list[CpuNote] = field(default_factory=list)
    vmcoreinfo: list[bytes] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)

    @property
    def listed(self) -> tuple[Note, ...]:
        return tuple(Note(note.name, note.type, note.descsz) for note in self.headers)

    @property
    def from_hypervisor(self) -> bool:
        """QEMU adds a note of its own for each CPU (target/*/arch_dump.c)."""
        return any(note.name == QEMU for note in self.headers)

    def read(self, file: DumpFile, offset: int, size: int, what: str = "PT_NOTE") -> None:
        """Add the notes of ``size`` bytes at ``offset``, as far as they make sense."""
        end = min(offset + size, file.size)
        if offset + size > file.size:
            self.defects.append(
                f"{what} ends at {offset + size:#x}, past the end of the file ({file.size:#x})"
            )
        window = Window(file, end, WINDOW)
        for header in self._walk(window, offset, end, what):
            self.headers.append(header)
            if header.name == CORE and header.type == NT_PRSTATUS:
                self._add_prstatus(header, window)
            elif header.name == VMCOREINFO:
                self._add_vmcoreinfo(header, window)

    def _walk(self, window: Window, offset: int, end: int, what: str) -> Iterator[NoteHeader]:
        layout = struct.Struct("<III" if self.byteorder == "little" else ">III")
        while offset + HEADER_SIZE <= end:
            namesz, descsz, type_ = layout.unpack(window.read(offset, HEADER_SIZE))
            if namesz == descsz == type_ == 0:
                # append_elf_note()'s end mark (kernel/crash_core.c final_note()).
                return
            here = f"{what}: the note at {offset:#x}"
            desc_offset = offset + HEADER_SIZE + _padded(namesz)
            if namesz > LONGEST_NAME:
                self.defects.append(f"{here} has n_namesz {namesz:#x}, more than any note's ({LONGEST_NAME})")
                return
            if desc_offset + descsz > end:
                self.defects.append(
                    f"{here} has n_namesz {namesz:#x} and n_descsz {descsz:#x}, and ends past {end:#x}"
                )
                return
            if len(self.headers) >= MOST_NOTES:
                self.defects.append(f"{here} is one more than {MOST_NOTES} notes, which no machine has")
                return
            name = window.read(offset + HEADER_SIZE, namesz).split(b"\0")[0]
            yield NoteHeader(name.decode("ascii", "backslashreplace"), type_, descsz, desc_offset)
            offset = desc_offset + _padded(descsz)

    def _add_prstatus(self, header: NoteHeader, window: Window) -> None:
        pid_end = PR_PID[self.bits] + 4
        if not pid_end <= header.descsz <= LARGEST_PRSTATUS:
            self.defects.append(
                f"NT_PRSTATUS {len(self.cpus)} has n_descsz {header.descsz:#x}; struct elf_prstatus has "
                f"{pid_end:#x} to {LARGEST_PRSTATUS:#x} bytes"
            )
            return
        descriptor = window.read(header.desc_offset, header.descsz)
        order = "<i" if self.byteorder == "little" else ">i"
        (pid,) = struct.unpack_from(order, descriptor, PR_PID[self.bits])
        self.cpus.append(CpuNote(len(self.cpus), pid, descriptor))

    def _add_vmcoreinfo(self, header: NoteHeader, window: Window) -> None:
        if header.descsz > LARGEST_VMCOREINFO:
            self.defects.append(
                f"VMCOREINFO has n_descsz {header.descsz:#x}, more than {LARGEST_VMCOREINFO:#x}"
            )
            return
        self.vmcoreinfo.append(window.read(header.desc_offset, header.descsz).rstrip(b"\0"))


def _padded(size: int) -> int:
    """The kernel aligns names and descriptors to 4 bytes, in ELF64 too."""
    return -(-size // 4) * 4
