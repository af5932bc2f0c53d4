# SPDX-License-Identifier: LGPL-2.1-or-later
"""ELF cores: /proc/vmcore, ``makedumpfile -E``, QEMU's dump-guest-memory.

pyelftools reads the ELF header and nothing else: it knows the machines' names, and is
wrong on hostile input, so every bound is checked here against the file's length.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from elftools.construct import ConstructError
from elftools.elf.structs import ELFStructs

from vmcheck.errors import PageNotStored, UnreadableFile, UnsupportedFormat
from vmcheck.facts.body import Body, Verified
from vmcheck.facts.header import DumpHeader, Format, Segments
from vmcheck.facts.machine import ByteOrder, Machine, of_elf, page_size
from vmcheck.facts.ranges import ADDRESS_LIMIT, RangeSet
from vmcheck.formats.file import DumpFile
from vmcheck.formats.notes import CORE, NT_AUXV, NT_FILE, Notes

SIGNATURE = b"\x7fELF"
PT_LOAD = 1
PT_NOTE = 4
PN_XNUM = 0xFFFF
DUMP_ELF_INCOMPLETE = 1
"""In e_flags (makedumpfile.h)."""
MOST_PROGRAM_HEADERS = 1 << 20
"""A machine of 262,144 scattered memory blocks has one for each."""
LARGEST_STRING_TABLE = 1 << 16

PROGRAM_HEADER = {
    32: [
        ("p_type", "u4"),
        ("p_offset", "u4"),
        ("p_vaddr", "u4"),
        ("p_paddr", "u4"),
        ("p_filesz", "u4"),
        ("p_memsz", "u4"),
        ("p_flags", "u4"),
        ("p_align", "u4"),
    ],
    64: [
        ("p_type", "u4"),
        ("p_flags", "u4"),
        ("p_offset", "u8"),
        ("p_vaddr", "u8"),
        ("p_paddr", "u8"),
        ("p_filesz", "u8"),
        ("p_memsz", "u8"),
        ("p_align", "u8"),
    ],
}


READ_AT_ONCE = 1 << 16
"""Bytes: the grain in which a disk's failures are named."""
DEFECTS_NAMED = 4

EI_PAD = 9
"""Seven bytes of e_ident that no reader looks at."""
DISTILLED = b"vmcheck"


@dataclass(frozen=True)
class ElfHeader:
    """``Ehdr``, and section header 0 where it is needed."""

    bits: int
    byteorder: ByteOrder
    e_type: str | int
    machine: Machine
    e_flags: int
    e_phoff: int
    e_phentsize: int
    phnum: int
    """e_phnum, or what section header 0 says where that is PN_XNUM."""
    e_shoff: int
    e_shentsize: int
    e_shnum: int
    e_shstrndx: int


class ElfMemory:
    """Physical memory of an ELF core."""

    def __init__(self, file: DumpFile, segments: Segments, header: DumpHeader) -> None:
        self._file = file
        self._segments = segments
        self._header = header

    @cached_property
    def _pieces(self) -> tuple[list[int], list[int], list[int]]:
        """Disjoint pieces in rising order: start, end, and start in the file.

        The kernel's text has a segment of its own over RAM that another one covers too;
        either has the same bytes.
        """
        paddr, filesz, offset = (
            column.astype(np.int64)
            for column in (self._segments.p_paddr, _stored_sizes(self._segments), self._segments.p_offset)
        )
        order = np.argsort(paddr, kind="stable")
        paddr, filesz, offset = paddr[order], filesz[order], offset[order]
        ends = paddr + filesz
        covered = np.maximum.accumulate(np.append(np.zeros(min(1, len(ends)), dtype=np.int64), ends[:-1]))
        starts = np.maximum(paddr, covered)
        kept = starts < ends
        return (
            starts[kept].tolist(),
            ends[kept].tolist(),
            (offset + starts - paddr)[kept].tolist(),
        )

    def body(self) -> Body:
        """An ELF dump has no table of pages, and nothing in it says whether a page is right."""
        return Body(
            distilled=self._file.read(EI_PAD, len(DISTILLED)) == DISTILLED, changed=self._file.changed()
        )

    def verify(self, start: int, end: int) -> Verified:
        """Read every byte of ``[start, end)`` that the file holds."""
        page, size, zeros = self._header.page_size, 0, 0
        damaged, defects = list[tuple[int, int]](), list[str]()
        for first, last, offset in zip(*self._pieces, strict=True):
            begin, stop = max(first, start), min(last, end, first + max(0, self._file.size - offset))
            while begin < stop:
                place = offset + begin - first
                length = min(stop - begin, READ_AT_ONCE)
                hole = min(length, self._file.next_data(place) - place)
                try:
                    if hole < length:
                        self._file.read(place, length)
                except UnreadableFile as error:
                    damaged.append((begin, begin + length))
                    defects += [str(error)] if len(defects) < DEFECTS_NAMED else []
                zeros, size, begin = zeros + hole, size + length, begin + length
        pages = -(-size // page)
        return Verified(start, end, pages, pages, zeros, RangeSet(damaged), tuple(defects))

    def mark(self) -> dict[int, bytes]:
        """By file offset, what says that the file is distilled."""
        return {EI_PAD: DISTILLED}

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes at a physical address."""
        starts, ends, offsets = self._pieces
        piece = bisect_right(starts, address) - 1
        if piece >= 0 and address + size <= ends[piece]:
            offset = offsets[piece] + address - starts[piece]
            if offset + size <= self._file.size:
                return self._file.read(offset, size)
        return self._read_piecewise(address, size)

    def _read_piecewise(self, address: int, size: int) -> bytes:
        """Across segments, or up to where the memory ends, to say so."""
        starts, ends, offsets = self._pieces
        parts: list[bytes] = []
        end = address + size
        while address < end:
            piece = bisect_right(starts, address) - 1
            if piece < 0 or address >= ends[piece]:
                raise PageNotStored(f"physical address {address:#x}: {self._why_not(address)}", address)
            offset = offsets[piece] + address - starts[piece]
            length = min(end, ends[piece]) - address
            if offset + length > self._file.size:
                address += max(self._file.size - offset, 0)
                raise PageNotStored(
                    f"physical address {address:#x}: past the end of the truncated file", address
                )
            parts.append(self._file.read(offset, length))
            address += length
        return b"".join(parts)

    def header_patches(self) -> dict[int, bytes]:
        """By file offset, what blanks the machine's name: an ELF core's headers have none."""
        return {}

    def page_patches(self, address: int, page: bytes) -> dict[int, bytes]:
        """By file offset, what makes a stored page hold other bytes."""
        starts, _, offsets = self._pieces
        piece = bisect_right(starts, address) - 1
        return {offsets[piece] + address - starts[piece]: page}

    def _why_not(self, address: int) -> str:
        if 0 <= address < ADDRESS_LIMIT and address in self._header.described:
            return "filtered: makedumpfile left it out"
        return "not described by any PT_LOAD"


class Table(NamedTuple):
    """The program headers of a core, bounds-checked."""

    elf: ElfHeader
    notes: npt.NDArray[Any]
    """Records of PROGRAM_HEADER."""
    segments: Segments
    """Every PT_LOAD."""
    physical: Segments
    """Those with a physical address, each inside the address space."""
    described: RangeSet


def read_table(file: DumpFile) -> Table:
    """Raises UnreadableFile where a program header makes no sense."""
    elf = _elf_header(file)
    _refuse_other_types(file, elf)
    return _table(file, elf, _program_headers(file, elf))


def _table(file: DumpFile, elf: ElfHeader, table: npt.NDArray[Any]) -> Table:
    loads = table[table["p_type"] == PT_LOAD]
    names = ("p_offset", "p_vaddr", "p_paddr", "p_filesz", "p_memsz")
    segments = Segments(*(loads[name].astype(np.uint64) for name in names))
    physical = _physical(file, segments, elf.bits)
    described = _covered(physical.p_paddr, physical.p_memsz)
    return Table(elf, table[table["p_type"] == PT_NOTE], segments, physical, described)


def read(file: DumpFile) -> tuple[DumpHeader, ElfMemory]:
    elf = _elf_header(file)
    _refuse_other_types(file, elf)
    table = _program_headers(file, elf)
    notes = _notes(file, table[table["p_type"] == PT_NOTE], elf)
    _refuse_process(file, notes)
    _, _, segments, physical, described = _table(file, elf, table)
    stored_sizes = _stored_sizes(physical)
    there = np.minimum(stored_sizes, np.maximum(file.size, physical.p_offset) - physical.p_offset)
    stored = _covered(physical.p_paddr, stored_sizes)
    header = DumpHeader(
        path=file.name,
        format=Format.ELF,
        producer=notes.producer,
        machine=elf.machine.name,
        bits=elf.machine.kernel_bits(elf.bits),
        byteorder=elf.byteorder,
        page_size=0,
        described=described,
        stored=stored,
        file_size=file.size,
        expected_size=max(elf.e_phoff + table.nbytes, _end_of_contents(table)),
        cut=stored - _covered(physical.p_paddr, there),
        segments=segments,
        cpu_notes=tuple(notes.cpus),
        notes=notes.listed,
        note_defects=tuple(notes.defects),
        vmcoreinfo_notes=tuple(notes.vmcoreinfo),
        incomplete=bool(elf.e_flags & DUMP_ELF_INCOMPLETE),
    )
    size = page_size(elf.machine, header.vmcoreinfo)
    if header.vmcoreinfo.get("PAGESIZE") != str(size):
        remark = f"the page size is assumed: {size:,} bytes, the machine's least; no PAGESIZE says it"
        header = replace(header, remarks=(remark,))
    header = replace(header, page_size=size)
    return header, ElfMemory(file, physical, header)


def _elf_header(file: DumpFile) -> ElfHeader:
    identity = file.read(0, min(16, file.size)).ljust(16, b"\0")
    if identity[4] not in (1, 2) or identity[5] not in (1, 2):
        raise UnreadableFile(
            f"{file.name}: EI_CLASS is {identity[4]} and EI_DATA {identity[5]}; each can only be 1 or 2"
        )
    bits = 32 * identity[4]
    byteorder: ByteOrder = "little" if identity[5] == 1 else "big"
    structs = ELFStructs(little_endian=byteorder == "little", elfclass=bits)
    structs.create_basic_structs()
    size = structs.Elf_Ehdr.sizeof()
    if file.size < size:
        raise UnreadableFile(f"{file.name}: the ELF header has {size} bytes, and the file {file.size}")
    try:
        ehdr = structs.Elf_Ehdr.parse(file.read(0, size))
    except (ConstructError, ValueError, OverflowError) as error:
        raise UnreadableFile(f"{file.name}: the ELF header cannot be parsed: {error}") from None
    return ElfHeader(
        bits=bits,
        byteorder=byteorder,
        e_type=ehdr.e_type,
        machine=of_elf(ehdr.e_machine, bits, byteorder),
        e_flags=ehdr.e_flags,
        e_phoff=ehdr.e_phoff,
        e_phentsize=ehdr.e_phentsize,
        phnum=_extended_phnum(file, ehdr, bits, byteorder) if ehdr.e_phnum == PN_XNUM else ehdr.e_phnum,
        e_shoff=ehdr.e_shoff,
        e_shentsize=ehdr.e_shentsize,
        e_shnum=ehdr.e_shnum,
        e_shstrndx=ehdr.e_shstrndx,
    )


def _extended_phnum(file: DumpFile, ehdr: Any, bits: int, byteorder: ByteOrder) -> int:
    """The number of program headers where e_phnum cannot hold it: sh_info of section header 0."""
    # Elf32_Shdr and Elf64_Shdr: sh_info is the eighth member.
    sh_info = ehdr.e_shoff + (28 if bits == 32 else 44)
    if not ehdr.e_shoff or sh_info + 4 > file.size:
        raise UnreadableFile(
            f"{file.name}: e_phnum is PN_XNUM, and section header 0 that would hold the number of program "
            f"headers is at e_shoff {ehdr.e_shoff:#x} of a file of {file.size:#x} bytes"
        )
    (phnum,) = struct.unpack("<I" if byteorder == "little" else ">I", file.read(sh_info, 4))
    return int(phnum)


def _refuse_other_types(file: DumpFile, elf: ElfHeader) -> None:
    if elf.e_type in ("ET_EXEC", "ET_DYN"):
        raise UnsupportedFormat(
            f"{file.name}: a kernel image or a program ({elf.e_type}), not a dump; a vmlinux is given with -s"
        )
    if elf.e_type != "ET_CORE":
        raise UnsupportedFormat(f"{file.name}: an ELF file of type {elf.e_type}, not a core (ET_CORE)")
    if b".xen_" in _section_names(file, elf):
        raise UnsupportedFormat(f"{file.name}: a Xen guest's dump-core, which vmcheck cannot read")


def _section_names(file: DumpFile, elf: ElfHeader) -> bytes:
    """The section name string table, or nothing where it makes no sense: a kernel's dump has none."""
    entry = elf.e_shoff + elf.e_shstrndx * elf.e_shentsize
    if elf.e_shstrndx >= elf.e_shnum or entry + elf.e_shentsize > file.size:
        return b""
    order = "<" if elf.byteorder == "little" else ">"
    # sh_offset and sh_size.
    layout, first = (struct.Struct(order + "II"), 16) if elf.bits == 32 else (struct.Struct(order + "QQ"), 24)
    if elf.e_shentsize < first + layout.size:
        return b""
    offset, size = layout.unpack(file.read(entry + first, layout.size))
    if offset + size > file.size or size > LARGEST_STRING_TABLE:
        return b""
    return file.read(offset, size)


def _program_headers(file: DumpFile, elf: ElfHeader) -> npt.NDArray[Any]:
    """The whole table, in its own byte order, one record a program header."""
    order = "<" if elf.byteorder == "little" else ">"
    layout = np.dtype([(name, order + kind) for name, kind in PROGRAM_HEADER[elf.bits]])
    if not elf.phnum:
        raise UnreadableFile(f"{file.name}: e_phnum is 0: the core has no program headers, so no memory")
    if elf.e_phentsize != layout.itemsize:
        raise UnreadableFile(
            f"{file.name}: e_phentsize is {elf.e_phentsize}, and an ELF{elf.bits} program header "
            f"has {layout.itemsize} bytes"
        )
    end = elf.e_phoff + elf.phnum * layout.itemsize
    if end > file.size:
        raise UnreadableFile(
            f"{file.name}: the {elf.phnum} program headers at {elf.e_phoff:#x} end at {end:#x}, "
            f"past the end of the file ({file.size:#x})"
        )
    if elf.phnum > MOST_PROGRAM_HEADERS:
        raise UnreadableFile(
            f"{file.name}: {elf.phnum} program headers, more than any dump's ({MOST_PROGRAM_HEADERS})"
        )
    return np.frombuffer(file.read(elf.e_phoff, elf.phnum * layout.itemsize), dtype=layout)


def _notes(file: DumpFile, headers: npt.NDArray[Any], elf: ElfHeader) -> Notes:
    notes = Notes(elf.byteorder, elf.machine.kernel_bits(elf.bits))
    for header in headers:
        notes.read(file, int(header["p_offset"]), int(header["p_filesz"]))
    return notes


def _refuse_process(file: DumpFile, notes: Notes) -> None:
    """A process's core has notes that no kernel writes. s390 kernels write an NT_PRPSINFO too."""
    if notes.vmcoreinfo:
        return
    if any(note.name == CORE and note.type in (NT_AUXV, NT_FILE) for note in notes.headers):
        raise UnsupportedFormat(f"{file.name}: a process's core dump, not a kernel's: open it with gdb")


def _physical(file: DumpFile, segments: Segments, bits: int) -> Segments:
    """The segments that have a physical address, each inside the address space.

    /proc/kcore says p_paddr = -1 of what is only virtual (fs/proc/kcore.c).
    """
    for name in ("p_offset", "p_filesz", "p_memsz"):
        column: npt.NDArray[np.uint64] = getattr(segments, name)
        if len(wrong := np.flatnonzero(column > ADDRESS_LIMIT)):
            raise UnreadableFile(
                f"{file.name}: PT_LOAD {wrong[0]} has {name} {column[wrong[0]]:#x}; "
                f"no file and no machine's memory is that large"
            )
    physical = segments.p_paddr != (1 << bits) - 1
    ends = segments.p_paddr + segments.p_memsz
    if len(wrong := np.flatnonzero(physical & (np.maximum(segments.p_paddr, ends) > ADDRESS_LIMIT))):
        p_paddr, p_memsz = segments.p_paddr[wrong[0]], segments.p_memsz[wrong[0]]
        raise UnreadableFile(
            f"{file.name}: PT_LOAD {wrong[0]} has p_paddr {p_paddr:#x} and p_memsz {p_memsz:#x}; "
            f"physical addresses are below {ADDRESS_LIMIT:#x}"
        )
    return segments if physical.all() else Segments(*(column[physical] for column in vars(segments).values()))


def _stored_sizes(segments: Segments) -> npt.NDArray[np.uint64]:
    return np.minimum(segments.p_filesz, segments.p_memsz)


def _covered(starts: npt.NDArray[np.uint64], sizes: npt.NDArray[np.uint64]) -> RangeSet:
    return RangeSet.from_arrays(starts, starts + sizes)


def _end_of_contents(table: npt.NDArray[Any]) -> int:
    """Where the last segment that has bytes in the file ends."""
    filled = table[(table["p_filesz"] > 0) & ((table["p_type"] == PT_LOAD) | (table["p_type"] == PT_NOTE))]
    return int((filled["p_offset"] + filled["p_filesz"]).max(initial=0))
