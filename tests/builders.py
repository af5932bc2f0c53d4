# SPDX-License-Identifier: LGPL-2.1-or-later
"""Small dumps, built by the test that needs them: the same content in every clothing.

A test says only what matters to it::

    dump = elf_vmcore(loads=[ram(0, 4 * GiB)], pids=[1, 2])
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

KiB, MiB, GiB, TiB = (1 << shift for shift in (10, 20, 30, 40))
PAGE = 4096

E_MACHINE = {
    "x86_64": 62,
    "i686": 3,
    "aarch64": 183,
    "armv7l": 40,
    "ppc64le": 21,
    "ppc64": 21,
    "s390x": 22,
    "riscv64": 243,
}
PRSTATUS_SIZE = {"x86_64": 336, "i686": 144, "aarch64": 392, "armv7l": 148, "ppc64": 504, "ppc64le": 504}
COMPRESSION_FLAG = {"none": 0, "zlib": 1, "lzo": 2, "snappy": 4, "zstd": 0x20}
UTSNAME = ("Linux", "host", "6.1.0-test", "#1 SMP", "", "(none)")
VMCOREINFO = "OSRELEASE=6.1.0-test\nPAGESIZE=4096\n"
DIRECT_MAP = {32: 0xC0000000, 64: 0xFFFF888000000000}

ET_CORE = 4
PT_LOAD = 1
PT_NOTE = 4
PN_XNUM = 0xFFFF


class Load(NamedTuple):
    """Memory ``[start, end)``; the bytes of its beginning are in the dump, the rest is filtered."""

    start: int
    end: int
    contents: bytes = b""
    p_vaddr: int | None = None
    """By default where the direct map has it."""


class RawNote(NamedTuple):
    name: str
    type: int
    descriptor: bytes


def ram(start: int, end: int, contents: bytes = b"", p_vaddr: int | None = None) -> Load:
    assert len(contents) <= end - start
    return Load(start, end, contents, p_vaddr)


def pages(text: str, size: int = PAGE) -> bytes:
    """A page for each letter of ``text``, filled with it, so that a test sees which one it got."""
    return b"".join(letter.encode() * size for letter in text)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def patched(data: bytes, offset: int, new: bytes) -> bytes:
    """``data`` with other bytes at an offset: how a test lies."""
    assert offset + len(new) <= len(data)
    return data[:offset] + new + data[offset + len(new) :]


def prstatus(pid: int, machine: str = "x86_64", bits: int = 64, byteorder: str = "little") -> RawNote:
    """An NT_PRSTATUS whose registers all hold the pid."""
    size, at = PRSTATUS_SIZE.get(machine, 336), 32 if bits == 64 else 24
    pid_bytes = struct.pack(_order(byteorder) + "i", pid)
    registers = bytes([pid & 0xFF]) * (size - 112 if bits == 64 else size - 72)
    return RawNote("CORE", 1, (bytes(at) + pid_bytes).ljust(size - len(registers), b"\0") + registers)


def encoded(notes: Iterable[RawNote], byteorder: str = "little") -> bytes:
    """Notes as a file has them."""
    return b"".join(
        struct.pack(_order(byteorder) + "III", len(note.name) + 1, len(note.descriptor), note.type)
        + _padded(note.name.encode() + b"\0", 4)
        + _padded(note.descriptor, 4)
        for note in notes
    )


def elf_vmcore(
    loads: Sequence[Load] = (),
    pids: Sequence[int] = (),
    vmcoreinfo: str | None = VMCOREINFO,
    notes: Sequence[RawNote] = (),
    machine: str = "x86_64",
    bits: int = 64,
    byteorder: str = "little",
    *,
    e_type: int = ET_CORE,
    e_flags: int = 0,
    page_size: int = PAGE,
    extended_phnum: bool = False,
    note_segments: bool = False,
) -> bytes:
    """/proc/vmcore, or what ``makedumpfile -E`` leaves of it.

    ``notes`` follow the NT_PRSTATUS of each of ``pids`` and VMCOREINFO. With
    ``note_segments`` each note has a PT_NOTE of its own, with ``extended_phnum`` e_phnum
    is PN_XNUM whatever the number.
    """
    order = _order(byteorder)
    all_notes = _all_notes(pids, vmcoreinfo, notes, machine, bits, byteorder)
    groups = [[note] for note in all_notes] if note_segments else [all_notes]
    note_bytes = [encoded(group, byteorder) for group in groups]
    ehdr_size, phdr_size, shdr_size = (64, 56, 64) if bits == 64 else (52, 32, 40)
    count = len(note_bytes) + len(loads)
    table_end = ehdr_size + count * phdr_size
    offset = table_end + shdr_size
    headers: list[bytes] = []
    body: list[bytes] = []
    for data in note_bytes:
        headers.append(_program_header(order, bits, PT_NOTE, offset, 0, 0, len(data), len(data)))
        body.append(data)
        offset += len(data)
    for load in loads:
        gap = (load.start - offset) % page_size if load.contents else 0
        p_offset = offset + gap if load.contents else 0
        p_vaddr = load.start + DIRECT_MAP[bits] if load.p_vaddr is None else load.p_vaddr
        p_filesz, p_memsz = len(load.contents), load.end - load.start
        headers.append(
            _program_header(
                order, bits, PT_LOAD, p_offset, p_vaddr % (1 << bits), load.start, p_filesz, p_memsz
            )
        )
        body += [bytes(gap), load.contents]
        offset += gap + p_filesz
    ident = b"\x7fELF" + bytes([bits // 32, 1 if byteorder == "little" else 2, 1]) + bytes(9)
    ehdr = ident + struct.pack(
        order + ("HHIQQQIHHHHHH" if bits == 64 else "HHIIIIIHHHHHH"),
        e_type,
        E_MACHINE[machine],
        1,
        0,
        ehdr_size,
        table_end if extended_phnum else 0,
        e_flags,
        ehdr_size,
        phdr_size,
        PN_XNUM if extended_phnum else count,
        shdr_size,
        1 if extended_phnum else 0,
        0,
    )
    # sh_info of section header 0 holds the number that e_phnum cannot.
    section = bytes(44 if bits == 64 else 28) + struct.pack(order + "I", count)
    return b"".join([ehdr, *headers, section.ljust(shdr_size, b"\0"), *body])


def kdump_vmcore(
    loads: Sequence[Load] = (),
    pids: Sequence[int] = (),
    vmcoreinfo: str | None = VMCOREINFO,
    notes: Sequence[RawNote] = (),
    machine: str = "x86_64",
    bits: int = 64,
    byteorder: str = "little",
    *,
    header_version: int = 6,
    compression: str = "zlib",
    dump_level: int = 31,
    status: int = 0,
    page_size: int = PAGE,
    utsname: Sequence[str] = UTSNAME,
    timestamp: int = 0,
    window: tuple[int, int] | None = None,
    eraseinfo: bytes = b"",
) -> bytes:
    """A kdump-compressed file. ``window`` makes it one part of ``makedumpfile --split``."""
    order = _order(byteorder)
    described = [_frames(load.start, load.end, page_size) for load in loads]
    contents = {
        pfn: load.contents[at : at + page_size].ljust(page_size, b"\0")
        for load in loads
        for at in range(0, len(load.contents), page_size)
        for pfn in [(load.start + at) // page_size]
    }
    max_mapnr = max((frames.stop for frames in described), default=0)
    bitmap_blocks = 2 * -(-max(max_mapnr, 1) // (8 * page_size))

    encoded_notes = encoded(_all_notes(pids, vmcoreinfo, notes, machine, bits, byteorder), byteorder)
    layout = _sub_header_layout(machine, bits)
    notes_offset = page_size + struct.calcsize(order + layout)
    text = (vmcoreinfo or "").encode()
    # Before version 4 only the text of VMCOREINFO was there, and before 3 nothing.
    after_sub_header = encoded_notes if header_version >= 4 else text if header_version == 3 else b""
    vmcoreinfo_offset = notes_offset + after_sub_header.find(text) if text in after_sub_header and text else 0
    eraseinfo_offset = notes_offset + len(after_sub_header) if eraseinfo else 0
    after_sub_header += eraseinfo
    start_pfn, end_pfn = window or (0, 0)
    members = (
        (1, 0),
        (1, dump_level),
        (2, int(window is not None)),
        (2, start_pfn),
        (2, end_pfn),
        (3, vmcoreinfo_offset),
        (3, len(text) if vmcoreinfo_offset else 0),
        (4, notes_offset if encoded_notes else 0),
        (4, len(encoded_notes)),
        (5, eraseinfo_offset),
        (5, len(eraseinfo)),
        (6, start_pfn),
        (6, end_pfn),
        (6, max_mapnr),
    )
    sub_header = struct.pack(
        order + layout, *(value if header_version >= since else 0 for since, value in members)
    )
    sub_header = _padded(sub_header + after_sub_header, page_size)

    names = [*utsname]
    names[4] = machine
    disk_header = b"KDUMP   " + struct.pack(
        order + ("i390s6xqqIiiIIIIIIi" if bits == 64 else "i390s2xiiIiiIIIIIIi"),
        header_version,
        b"".join(name.encode().ljust(65, b"\0") for name in names),
        timestamp,
        0,
        status | COMPRESSION_FLAG[compression],
        page_size,
        len(sub_header) // page_size,
        bitmap_blocks,
        max_mapnr,
        0,
        0,
        0,
        0,
        len(pids),
    )
    head = _padded(disk_header, page_size) + sub_header
    for frames in (described, [range(pfn, pfn + 1) for pfn in contents]):
        head += _bitmap(frames, bitmap_blocks * page_size // 2)

    here = [pfn for pfn in sorted(contents) if window is None or start_pfn <= pfn < end_pfn]
    # A part has room for the page_descs of the whole dump (makedumpfile, write_kdump_pages_cyclic()).
    room = 24 * len(contents)
    offset = len(head) + room
    table, data = b"", b""
    # With -d 1 the first data are a page of zeros, as it is, at which all page_descs of zeros point.
    if dump_level & 1 and not all(any(contents[pfn]) for pfn in here):
        data = bytes(page_size)
    for pfn in here:
        if dump_level & 1 and not any(contents[pfn]):
            table += struct.pack(order + "QIIQ", offset, page_size, 0, 0)
            continue
        packed, flag = _compressed(contents[pfn], compression)
        table += struct.pack(order + "QIIQ", offset + len(data), len(packed), flag, 0)
        data += packed
    return head + table.ljust(room, b"\0") + data


def split(parts: int, build: Callable[..., bytes] = kdump_vmcore, **content: object) -> list[bytes]:
    """``makedumpfile --split`` of what ``kdump_vmcore(**content)`` would be."""
    loads: Sequence[Load] = content["loads"]  # type: ignore[assignment]
    page_size = int(str(content.get("page_size", PAGE)))
    end = max(-(-load.end // page_size) for load in loads)
    cuts = [end * part // parts for part in range(parts + 1)]
    return [build(window=window, **content) for window in pairwise(cuts)]


def flattened(data: bytes, record_size: int = 1000, ended: bool = True) -> bytes:
    """``makedumpfile -F``: the header comes first, and at the end again as it was meant to be."""
    first = data[:record_size]
    # Byte 30 is in e_entry of ELF64, or in the name of the system of disk_dump_header.
    records = [(0, patched(first, 30, b"?"))]
    records += [(at, data[at : at + record_size]) for at in range(record_size, len(data), record_size)]
    records.append((0, first))
    stream = struct.pack(">16sqq", b"makedumpfile", 1, 1).ljust(4096, b"\0")
    stream += b"".join(struct.pack(">qq", offset, len(part)) + part for offset, part in records)
    return stream + (struct.pack(">qq", -1, -1) if ended else b"")


def _order(byteorder: str) -> str:
    return "<" if byteorder == "little" else ">"


def _padded(data: bytes, unit: int) -> bytes:
    return data + bytes(-len(data) % unit)


def _frames(start: int, end: int, page_size: int) -> range:
    return range(start // page_size, -(-end // page_size))


def _all_notes(
    pids: Sequence[int],
    vmcoreinfo: str | None,
    notes: Sequence[RawNote],
    machine: str,
    bits: int,
    byteorder: str,
) -> list[RawNote]:
    registers = [prstatus(pid, machine, bits, byteorder) for pid in pids]
    info = [] if vmcoreinfo is None else [RawNote("VMCOREINFO", 0, vmcoreinfo.encode())]
    return [*registers, *info, *notes]


def _program_header(
    order: str, bits: int, p_type: int, offset: int, vaddr: int, paddr: int, filesz: int, memsz: int
) -> bytes:
    if bits == 64:
        return struct.pack(order + "IIQQQQQQ", p_type, 7, offset, vaddr, paddr, filesz, memsz, 0)
    return struct.pack(order + "IIIIIIII", p_type, offset, vaddr, paddr, filesz, memsz, 7, 0)


def _sub_header_layout(machine: str, bits: int) -> str:
    if bits == 64:
        return "QiiQQQQQQQQQQQ"
    return "IiiIIQIQIQIQQQ" if machine == "i686" else "IiiII4xQI4xQI4xQI4xQQQ"


def _bitmap(runs: Iterable[range], size: int) -> bytes:
    bits = np.zeros(8 * size, dtype=bool)
    for run in runs:
        bits[run.start : run.stop] = True
    return np.packbits(bits, bitorder="little").tobytes()


def _compressed(page: bytes, compression: str) -> tuple[bytes, int]:
    packed = page
    if compression == "zlib":
        packed = zlib.compress(page, 1)
    elif compression == "lzo":
        from lzallright import LZOCompressor

        packed = bytes(LZOCompressor().compress(page))
    elif compression == "snappy":
        from cramjam import snappy

        packed = bytes(snappy.compress_raw(page))
    elif compression == "zstd":
        import zstandard

        packed = zstandard.ZstdCompressor().compress(page)
    return (packed, COMPRESSION_FLAG[compression]) if len(packed) < len(page) else (page, 0)
