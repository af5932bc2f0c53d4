# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a dump's headers claim."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vmcheck.facts.machine import ByteOrder, Machine, named
from vmcheck.facts.ranges import EMPTY, RangeSet


class Format(str, enum.Enum):
    ELF = "ELF"
    KDUMP = "kdump-compressed"


class Producer(str, enum.Enum):
    """Who wrote the headers, which decides what they can be blamed for."""

    KDUMP = "kdump"
    """elfcorehdr, written before the crash by kexec or the kernel: it can be stale."""
    HYPERVISOR = "QEMU dump-guest-memory"
    """Written after the fact from the machine's own memory map: it cannot be stale."""
    KCORE = "makedumpfile on /proc/kcore"
    """Of a running kernel: there was no crash, and no CPU saved its registers."""
    XEN = "Xen"
    """kdump of a Xen host: the hypervisor saved the registers, and p_paddr are machine addresses."""
    LOADED = "the loaded crash image"
    """elfcorehdr where it lies in a live kernel's memory: the headers of a dump, were it to crash now."""


def unwritten_registers(address: int) -> bytes:
    """Stands for the registers that a CPU will save at a physical address: no two CPUs' are alike."""
    return b"crash_notes at %#x" % address


class Segment(NamedTuple):
    """One PT_LOAD program header. Bytes, except addresses."""

    p_offset: int
    p_vaddr: int
    p_paddr: int
    p_filesz: int
    p_memsz: int


@dataclass(frozen=True)
class Segments:
    """The PT_LOAD program headers in the file's order, as columns of ``uint64``, shape ``(n,)``."""

    p_offset: npt.NDArray[np.uint64]
    p_vaddr: npt.NDArray[np.uint64]
    p_paddr: npt.NDArray[np.uint64]
    p_filesz: npt.NDArray[np.uint64]
    p_memsz: npt.NDArray[np.uint64]

    @classmethod
    def of(cls, segments: Iterable[Segment]) -> Segments:
        columns = np.array(list(segments), dtype=np.uint64).reshape(-1, len(Segment._fields)).T
        return cls(*columns)

    def __iter__(self) -> Iterator[Segment]:
        columns = (self.p_offset, self.p_vaddr, self.p_paddr, self.p_filesz, self.p_memsz)
        return map(Segment, *(column.tolist() for column in columns))

    def __len__(self) -> int:
        return len(self.p_offset)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Segments) and list(self) == list(other)

    def __hash__(self) -> int:
        return hash(tuple(self))


NO_SEGMENTS = Segments.of(())


@dataclass(frozen=True)
class CpuNote:
    """One NT_PRSTATUS: the registers of a CPU that saved them.

    ``position`` counts the NT_PRSTATUS notes of the file from 0. It is **not** a CPU
    number: /proc/vmcore merges all PT_NOTEs and drops the empty ones.
    """

    position: int
    pid: int
    descriptor: bytes
    """``struct elf_prstatus``, whose size depends on the machine."""


@dataclass(frozen=True)
class Note:
    """One ELF note as the file has it, whatever it is."""

    name: str
    type: int
    descsz: int


def parsed_vmcoreinfo(text: str) -> Mapping[str, str]:
    """``KEY=VALUE`` lines; the first of doubled keys."""
    found: dict[str, str] = {}
    for line in text.split("\n"):
        key, separator, value = line.partition("=")
        if separator:
            found.setdefault(key, value)
    return found


@dataclass(frozen=True)
class DumpHeader:
    """What a dump says of itself, the same from every format it may come in."""

    path: str
    format: Format
    producer: Producer
    machine: str
    """As ``uname -m`` prints it: ``x86_64``, ``aarch64``, ``ppc64le``, ``s390x``..."""
    bits: int
    """Of the kernel's pointers: an ELF64 file may be around a 32-bit kernel."""
    byteorder: ByteOrder
    page_size: int
    """Bytes. From the kdump header, VMCOREINFO's PAGESIZE, or the machine's least."""
    described: RangeSet
    """Memory the headers claim: every PT_LOAD's p_memsz, or the first bitmap."""
    stored: RangeSet
    """The part of it whose bytes are in the file: p_filesz, or the second bitmap."""
    file_size: int
    """Bytes."""
    expected_size: int
    """Bytes: where the last thing that the headers point at ends."""
    segments: Segments = NO_SEGMENTS
    """Empty for a kdump-compressed file, which has no program headers."""
    cpu_notes: tuple[CpuNote, ...] = ()
    notes: tuple[Note, ...] = ()
    note_defects: tuple[str, ...] = ()
    """What is wrong with the notes' own headers; the walk stops at the first such place."""
    vmcoreinfo_notes: tuple[bytes, ...] = ()
    """The text of each VMCOREINFO found. A healthy dump has one."""
    incomplete: bool = False
    """makedumpfile ran out of space and said so: DUMP_ELF_INCOMPLETE or DUMP_DH_COMPRESSED_INCOMPLETE."""
    flattened: bool = False
    """The file is a ``makedumpfile -F`` stream of the above."""
    header_version: int | None = None
    """Of disk_dump_header; none for ELF."""
    dump_level: int | None = None
    """makedumpfile's -d; not recorded in ELF."""
    compression: str | None = None
    """zlib, lzo, snappy, zstd, or none where the file says that no page is compressed."""
    split: tuple[tuple[int, int], ...] = ()
    """Page frame numbers ``[start, end)`` that each given part of ``makedumpfile --split`` holds."""
    absent_parts: RangeSet = EMPTY
    """Memory stored in parts of a split dump that were not given."""
    cut: RangeSet = EMPTY
    """The part of ``stored`` that a truncated or incomplete file does not hold after all."""
    utsname: tuple[str, ...] = ()
    """sysname, nodename, release, version, machine, domainname of disk_dump_header."""
    timestamp: int | None = None
    """Seconds since the epoch, of disk_dump_header; 0 is none."""

    remarks: tuple[str, ...] = ()
    """What was assumed to read the headers."""

    @cached_property
    def vmcoreinfo(self) -> Mapping[str, str]:
        """``KEY=VALUE`` lines of the first VMCOREINFO; the first of doubled keys."""
        return parsed_vmcoreinfo((self.vmcoreinfo_notes or (b"",))[0].decode("utf-8", "backslashreplace"))

    @property
    def arch(self) -> Machine:
        """All that is known of the machine."""
        return named(self.machine)

    @property
    def forecast(self) -> bool:
        """The kernel is alive: a dump would have these headers, were it to crash now."""
        return self.producer is Producer.LOADED

    @property
    def filtered(self) -> RangeSet:
        """Described and not stored: left out by the dump level. Never *missing*."""
        return self.described - self.stored - self.absent_parts
