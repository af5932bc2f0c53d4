# SPDX-License-Identifier: LGPL-2.1-or-later
"""ELF notes: registers of CPUs, VMCOREINFO and who wrote the dump."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from vmcheck.facts.header import CpuNote, Note, Producer
from vmcheck.facts.machine import PR_PID, PRSTATUS, PRSTATUS_32, ByteOrder
from vmcheck.formats.file import DumpFile, Window

NT_PRSTATUS = 1
NT_GNU_BUILD_ID = 3
NT_PRPSINFO = 3
NT_TASKSTRUCT = 4
NT_AUXV = 6
NT_FILE = 0x46494C45

CORE = "CORE"
VMCOREINFO = "VMCOREINFO"
QEMU = "QEMU"
ERASEINFO = "ERASEINFO"
XEN = "Xen"
VMCOREINFO_XEN = "VMCOREINFO_XEN"
XEN_ELFNOTE_CRASH_INFO, XEN_ELFNOTE_CRASH_REGS = 0x1000001, 0x1000002
WRITERS = (CORE, VMCOREINFO, "LINUX", "GNU", XEN, VMCOREINFO_XEN)
"""Names of notes that kernels and hypervisors write; QEMU's notes have type 0."""

MOST_NOTES = 1 << 17
"""8192 CPUs, the most that Linux has, with the ten notes that s390 writes for each."""
LARGEST_PRSTATUS = 4096
LARGEST_VMCOREINFO = 1 << 20
"""The kernel gives it a page, and makedumpfile copies it as it is."""
MOST_VMCOREINFO = 16
MOST_DEFECTS = 1000
LONGEST_NAME = 256

HEADER_SIZE = 12
WINDOW = 1 << 16


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

    byteorder: ByteOrder
    bits: int
    """Of the kernel's pointers, which is not the ELF file's class where the kernel has 32."""
    padded: bool = False
    """In a kernel's memory, zeros fill the rest of the page; /proc/vmcore leaves them out."""
    headers: list[NoteHeader] = field(default_factory=list)
    cpus: list[CpuNote] = field(default_factory=list)
    vmcoreinfo: list[bytes] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)

    @property
    def listed(self) -> tuple[Note, ...]:
        return tuple(Note(note.name, note.type, note.descsz) for note in self.headers)

    @property
    def producer(self) -> Producer:
        """Who wrote the dump. Each answer but kdump needs more than one note that only its writer adds."""
        names = Counter((note.name, note.type) for note in self.headers)
        # QEMU adds a note of its own for each CPU, and numbers the CPUs from 1 as pr_pid
        # (target/i386/arch_dump.c).
        pids = [cpu.pid for cpu in self.cpus]
        if names[QEMU, 0] == len(pids) > 0 and pids == list(range(1, len(pids) + 1)):
            return Producer.HYPERVISOR
        # xen/include/public/elfnote.h: XEN_ELFNOTE_CRASH_INFO, and XEN_ELFNOTE_CRASH_REGS of each CPU.
        xen = names[XEN, XEN_ELFNOTE_CRASH_INFO], names[XEN, XEN_ELFNOTE_CRASH_REGS]
        if any(note.name == VMCOREINFO_XEN for note in self.headers) and any(xen):
            return Producer.XEN
        # fs/proc/kcore.c writes these two; the kernel adds CRASHTIME when it crashes.
        crashed = any(b"\nCRASHTIME=" in b"\n" + text for text in self.vmcoreinfo)
        if names[CORE, NT_PRPSINFO] and names[CORE, NT_TASKSTRUCT] and self.vmcoreinfo and not crashed:
            return Producer.KCORE
        return Producer.KDUMP

    def read(self, file: DumpFile, offset: int, size: int, what: str = "PT_NOTE") -> None:
        """Add the notes of ``size`` bytes at ``offset``, as far as they make sense."""
        if len(self.defects) > MOST_DEFECTS:
            return
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
            elif header.type == NT_PRSTATUS and header.descsz in PRSTATUS and header.name not in WRITERS:
                self.defects.append(
                    f"{what}: a note of NT_PRSTATUS's type and size is named {header.name!r}, not CORE"
                )

    def _walk(self, window: Window, offset: int, end: int, what: str) -> Iterator[NoteHeader]:
        layout = struct.Struct("<III" if self.byteorder == "little" else ">III")
        while offset + HEADER_SIZE <= end:
            namesz, descsz, type_ = layout.unpack(window.read(offset, HEADER_SIZE))
            if namesz == descsz == type_ == 0:
                # append_elf_note()'s end mark (kernel/crash_core.c final_note()).
                if not self.padded:
                    self.defects.append(f"{what}: no note at {offset:#x}, and the end is {end:#x}")
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
        if offset < end and not self.padded:
            self.defects.append(f"{what}: {end - offset} bytes behind the last note are too few for a note")

    def _add_prstatus(self, header: NoteHeader, window: Window) -> None:
        # QEMU calls a machine x86_64 whose CPUs are in 32-bit mode, and writes their notes as i386's.
        place = PR_PID[32 if header.descsz in PRSTATUS_32 else self.bits]
        pid_end = place + 4
        if not pid_end <= header.descsz <= LARGEST_PRSTATUS:
            self.defects.append(
                f"NT_PRSTATUS {len(self.cpus)} has n_descsz {header.descsz:#x}; struct elf_prstatus has "
                f"{pid_end:#x} to {LARGEST_PRSTATUS:#x} bytes"
            )
            return
        descriptor = window.read(header.desc_offset, header.descsz)
        order = "<i" if self.byteorder == "little" else ">i"
        (pid,) = struct.unpack_from(order, descriptor, place)
        self.cpus.append(CpuNote(len(self.cpus), pid, descriptor))

    def _add_vmcoreinfo(self, header: NoteHeader, window: Window) -> None:
        if header.descsz > LARGEST_VMCOREINFO:
            self.defects.append(
                f"VMCOREINFO has n_descsz {header.descsz:#x}, more than {LARGEST_VMCOREINFO:#x}"
            )
            return
        if len(self.vmcoreinfo) == MOST_VMCOREINFO:
            self.defects.append(f"more than {MOST_VMCOREINFO} notes of VMCOREINFO: the others are not read")
            return
        self.vmcoreinfo.append(window.read(header.desc_offset, header.descsz).rstrip(b"\0"))


def gnu_build_id(notes: bytes, byteorder: ByteOrder) -> str | None:
    """NT_GNU_BUILD_ID of a kernel's own notes (__start_notes), in hexadecimal; None where there is none."""
    layout = struct.Struct("<III" if byteorder == "little" else ">III")
    place = 0
    while place + HEADER_SIZE <= len(notes):
        namesz, descsz, type_ = layout.unpack_from(notes, place)
        name, descriptor = place + HEADER_SIZE, place + HEADER_SIZE + _padded(namesz)
        # Xen's notes stand there too, one of them of type 3.
        if type_ == NT_GNU_BUILD_ID and notes[name : name + namesz] == b"GNU\0" and 8 <= descsz <= 64:
            if descriptor + descsz <= len(notes):
                return notes[descriptor : descriptor + descsz].hex()
            return None
        place = descriptor + _padded(descsz)
    return None


def _padded(size: int) -> int:
    """The kernel aligns names and descriptors to 4 bytes, in ELF64 too."""
    return -(-size // 4) * 4
