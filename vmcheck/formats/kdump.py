# SPDX-License-Identifier: LGPL-2.1-or-later
"""kdump-compressed: what makedumpfile writes by default, and QEMU's kdump-zlib.

In blocks of a page: disk_dump_header; kdump_sub_header and the notes; a bitmap of the
memory that the headers describe; a bitmap of the pages in the file; a page_desc for
each of those in rising order; the pages. (makedumpfile's diskdump_mod.h and IMPLEMENTATION.)
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, reduce
from typing import Literal, NamedTuple

from vmcheck.errors import PageNotStored, UnreadableFile, UnsupportedFormat
from vmcheck.facts.body import Body, Verified
from vmcheck.facts.header import DumpHeader, Format
from vmcheck.facts.machine import PAGE_SIZES, ByteOrder, Machine, named
from vmcheck.facts.ranges import ADDRESS_LIMIT, EMPTY, RangeSet
from vmcheck.formats.bitmap import read_bitmap
from vmcheck.formats.compression import DUMP_DH_COMPRESSED_ZLIB, Corrupt, name_of, unpack_page
from vmcheck.formats.file import DumpFile
from vmcheck.formats.notes import ERASEINFO, LARGEST_VMCOREINFO, NoteHeader, Notes
from vmcheck.formats.page_check import joined, unpack_all
from vmcheck.formats.page_desc import PageDescriptor, PageTable

SIGNATURE = b"KDUMP   "
VERSIONS = range(1, 7)
NEWEST_VERSION = 64
"""Versions up to this that are not known are read as the last known one. A larger number is damage."""
DUMP_DH_COMPRESSED_INCOMPLETE = 0x8
"""In status: makedumpfile ran out of space."""

# struct disk_dump_header after the signature. It holds a struct timeval, so native longs.
DISK_DUMP_HEADER = {32: "i390s2xiiIiiIIIIIIi", 64: "i390s6xqqIiiIIIIIIi"}
UTSNAME_FIELD = 65

# struct kdump_sub_header: unsigned long and off_t, which 32-bit x86 aligns to 4 bytes and others to 8.
SUB_HEADER_64 = "QiiQQQQQQQQQQQ"
SUB_HEADER_32_PACKED = "IiiIIQIQIQIQQQ"
SUB_HEADER_32_PADDED = "IiiII4xQI4xQI4xQI4xQQQ"
SINCE_VERSION = (1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 6)
"""The header version that brought each member."""

DESCRIPTORS_AT_ONCE = 512
CACHED_BYTES = 4 << 20
DISTILLED = b"vmcheck distill"
"""In the unused end of the first block, before a byte: 0 where the last page_desc is kept, else 1."""
PROBED = 1024
"""Pages whose first bytes a check reads."""
SAMPLE = 256
"""Pages that a check unpacks to see whether they can be: about 9 ms."""


class SubHeader(NamedTuple):
    """struct kdump_sub_header; what the version lacks is 0."""

    phys_base: int
    dump_level: int
    split: int
    start_pfn: int
    end_pfn: int
    offset_vmcoreinfo: int
    size_vmcoreinfo: int
    offset_note: int
    size_note: int
    offset_eraseinfo: int
    size_eraseinfo: int
    start_pfn_64: int
    end_pfn_64: int
    max_mapnr_64: int


@dataclass(frozen=True)
class DiskDumpHeader:
    """struct disk_dump_header, and how its file lays structures out."""

    bits: int
    """Of a long in the file's own structures."""
    byteorder: ByteOrder
    header_version: int
    utsname: tuple[str, ...]
    tv_sec: int
    status: int
    block_size: int
    """Also the page size."""
    sub_hdr_size: int
    """Blocks."""
    bitmap_blocks: int
    """Of both bitmaps."""
    max_mapnr: int

    @property
    def order(self) -> Literal["<", ">"]:
        return "<" if self.byteorder == "little" else ">"

    @property
    def arch(self) -> Machine:
        return named(self.utsname[4] or "unknown")

    @property
    def bitmap_offset(self) -> int:
        return (1 + self.sub_hdr_size) * self.block_size

    @property
    def bitmap_size(self) -> int:
        """Bytes of both bitmaps."""
        return self.bitmap_blocks * self.block_size

    @property
    def page_desc_offset(self) -> int:
        return self.bitmap_offset + self.bitmap_size


class Part:
    """One file: a whole dump, or a part of ``makedumpfile --split``."""

    def __init__(self, file: DumpFile) -> None:
        self.file = file
        self.disk = _disk_dump_header(file)
        self.sub = _sub_header(file, self.disk)
        self.pages = self._pages()
        if self.bitmaps_end > file.size:
            raise UnreadableFile(
                f"{file.name}: the bitmaps end at {self.bitmaps_end:#x}, "
                f"past the end of the file ({file.size:#x})"
            )

    def _pages(self) -> int:
        """max_mapnr: page frame numbers are below it."""
        disk = self.disk
        pages = self.sub.max_mapnr_64 or disk.max_mapnr
        if pages > 8 * disk.bitmap_size or pages * disk.block_size > ADDRESS_LIMIT:
            raise UnreadableFile(
                f"{self.file.name}: max_mapnr is {pages:#x}; bitmap_blocks {disk.bitmap_blocks:#x} of "
                f"{disk.block_size} bytes hold {8 * disk.bitmap_size:#x} bits"
            )
        return pages

    @property
    def _has_two_bitmaps(self) -> bool:
        """diskdump has one where it left nothing out; recognised by its size, as crash does (diskdump.c)."""
        return self.pages <= 4 * self.disk.bitmap_size

    @property
    def bitmaps_end(self) -> int:
        """Where the last bit below max_mapnr is. A part without pages ends there, inside a block."""
        last = self.disk.bitmap_size // 2 if self._has_two_bitmaps else 0
        return self.disk.bitmap_offset + last + -(-self.pages // 8)

    @cached_property
    def described(self) -> RangeSet:
        return read_bitmap(
            self.file, self.disk.bitmap_offset, self.pages, self.disk.block_size, "the first bitmap"
        )

    @cached_property
    def dumpable(self) -> RangeSet:
        """The second bitmap: of the whole dump, also in a part of it."""
        if not self._has_two_bitmaps:
            return self.described
        offset = self.disk.bitmap_offset + self.disk.bitmap_size // 2
        return read_bitmap(self.file, offset, self.pages, self.disk.block_size, "the second bitmap")

    @property
    def window(self) -> tuple[int, int] | None:
        """Page frame numbers ``[start, end)`` that this part of a split dump holds."""
        if not self.sub.split:
            return None
        if self.disk.header_version >= 6:
            return self.sub.start_pfn_64, self.sub.end_pfn_64
        return self.sub.start_pfn, self.sub.end_pfn

    @cached_property
    def distilled(self) -> bool:
        """``vmcheck distill`` made the file: by its mark, or before it had one, by gaps of the stream."""
        return self._mark[:-1] == DISTILLED or self.file.has_gaps(self.table.offset_of(0), self.table.end)

    @property
    def ends_as_the_original(self) -> bool:
        """The last page_desc is as it was in the dump that was distilled."""
        return not self.distilled or self._mark == DISTILLED + b"\0"

    @property
    def _mark(self) -> bytes:
        size = len(DISTILLED) + 1
        return self.file.read(self.disk.block_size - size, size)

    @property
    def incomplete(self) -> bool:
        return bool(self.disk.status & DUMP_DH_COMPRESSED_INCOMPLETE)

    @cached_property
    def stored(self) -> RangeSet:
        if self.window is None:
            return self.dumpable
        start, end = (min(pfn, self.pages) * self.disk.block_size for pfn in self.window)
        return self.dumpable & RangeSet([(start, end)])

    @cached_property
    def table(self) -> PageTable:
        disk = self.disk
        room = self.dumpable.size // disk.block_size
        return PageTable(self.file, disk.page_desc_offset, disk.order, self.stored, disk.block_size, room)

    @cached_property
    def expected_size(self) -> int:
        """Where the last page's data end, or ERASEINFO, which makedumpfile writes behind them."""
        eraseinfo = self.sub.offset_eraseinfo + self.sub.size_eraseinfo if self.sub.size_eraseinfo else 0
        return max(self.bitmaps_end, self.table.end_of_data, min(eraseinfo, ADDRESS_LIMIT))

    @property
    def cut(self) -> RangeSet:
        """The part of ``stored`` that is not in the file, for which the whole table is read."""
        whole = self.expected_size <= self.file.size and not self.incomplete and not self.file.cut
        return EMPTY if whole else self.table.absent


class KdumpMemory:
    """Physical memory of a kdump-compressed dump, of one file or of its split parts."""

    def __init__(self, parts: Sequence[Part], header: DumpHeader) -> None:
        self._parts = parts
        self._header = header
        self._page_size = header.page_size
        self.damaged: dict[int, str] = {}
        """Why each page that was wanted and did not unpack is damaged, by physical address."""
        self.empty: set[int] = set()
        """Physical addresses of pages that were wanted and have an empty page_desc."""
        self._page = lru_cache(CACHED_BYTES // header.page_size)(self._load_page)

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes at a physical address."""
        begin = address % self._page_size
        if begin + size <= self._page_size:
            return self._page(address - begin)[begin : begin + size]
        pages = b"".join(self._load_pages(address - begin, address + size))
        return pages[begin : begin + size]

    def _load_page(self, address: int) -> bytes:
        return next(self._load_pages(address, address + 1))

    def _load_pages(self, address: int, end: int) -> Iterator[bytes]:
        """The pages from a page's address on, up to the one that holds the byte before ``end``."""
        while address < end:
            part, index, following = self._find(address)
            wanted = min(-(-(end - address) // self._page_size), following, DESCRIPTORS_AT_ONCE)
            descriptors = list(part.table.descriptors(index, wanted))
            if not descriptors:
                raise _absent(address, "past the end of the truncated file")
            for descriptor in descriptors:
                yield self._unpack(part, descriptor, address)
                address += self._page_size

    def _find(self, address: int) -> tuple[Part, int, int]:
        if 0 <= address < ADDRESS_LIMIT:
            for part in self._parts:
                if place := part.table.find(address):
                    return part, *place
        raise _absent(address, self._why_not(address))

    def _why_not(self, address: int) -> str:
        if not 0 <= address < ADDRESS_LIMIT or address not in self._header.described:
            return "not described by the first bitmap"
        if address in self._header.absent_parts:
            return "in a part of the split dump that was not given"
        return f"filtered: makedumpfile left it out (dump level {self._header.dump_level})"

    def _unpack(self, part: Part, descriptor: PageDescriptor, address: int) -> bytes:
        offset, size, flags, _ = descriptor
        if not offset and not size:
            self.empty.add(address)
            raise _absent(address, self._why_empty(part))
        if size > self._page_size:
            raise self._is_damaged(address, f"its page_desc has size {size:#x}, more than a page")
        if offset + size > part.file.size:
            raise _absent(address, "past the end of the truncated file")
        try:
            return unpack_page(part.file.read(offset, size), flags, self._page_size)
        except Corrupt as reason:
            raise self._is_damaged(address, str(reason)) from None

    def _is_damaged(self, address: int, why: str) -> PageNotStored:
        self.damaged.setdefault(address - address % self._page_size, why)
        return _absent(address, f"damaged: {why}")

    def body(self) -> Body:
        """What became of the pages: the whole table, and a sample of the pages unpacked."""
        body = reduce(_joined, (self._body_of(part) for part in self._parts))
        pages = RangeSet((address, address + self._page_size) for address in self.damaged)
        first = [f"the page at {address:#x}: {why}" for address, why in list(self.damaged.items())[:4]]
        changed = next((why for part in self._parts if (why := part.file.changed())), "")
        return replace(body, damaged=body.damaged | pages, defects=(*body.defects, *first), changed=changed)

    def verify(self, start: int, end: int) -> Verified:
        """Unpack every page with a physical address in ``[start, end)``."""
        found = Verified(start, end)
        for part in self._parts:
            found = joined(found, unpack_all(part.file, part.table, start, end, self._page_size))
        return found

    def _body_of(self, part: Part) -> Body:
        table, distilled = part.table, part.distilled
        judged = table.judged(distilled)
        # Pages are written in rising order: what has no page_desc up to the end was never written.
        tail = (
            RangeSet([(int(judged.empty.starts[-1]), len(table))])
            if judged.empty.end == len(table) > 0
            else EMPTY
        )
        wrong = judged.wrong
        if not distilled:
            wrong |= judged.empty - tail
        elif not part.ends_as_the_original and not self._wanted_in(part, tail):
            # Before it marked its dumps, distill did not keep the last page_desc, which may be of a page of
            # zeros. It kept every page that a check reads: one that is not there was not there before.
            tail = EMPTY
        explained = self._header.incomplete or part.file.cut or part.expected_size > part.file.size
        unpacked = 0
        if not (distilled or explained or judged.contradicts):
            for index, descriptor in table.sample(SAMPLE):
                with suppress(PageNotStored):
                    self._unpack(part, descriptor, table.address(index))
                    unpacked += 1
            if blank := table.blank(PROBED):
                wrong |= blank
                place = next(iter(blank))[0]
                first = f"page_desc {place:,}: its data begin with zeros, as in a hole of the file"
                judged = judged._replace(defects=(*judged.defects, first))
        return Body(
            len(table),
            EMPTY if explained else table.addresses(tail),
            table.addresses(wrong) - part.cut,
            judged.defects,
            unpacked,
            distilled,
        )

    def mark(self) -> dict[int, bytes]:
        """By file offset, what says that the file is distilled."""
        whole = all(part.ends_as_the_original for part in self._parts)
        mark = DISTILLED + (b"\0" if whole else b"\1")
        return {self._page_size - len(mark): mark}

    def header_patches(self) -> dict[int, bytes]:
        """By file offset, what blanks node and domain name in disk_dump_header."""
        names = len(SIGNATURE) + 4
        return {names + field * UTSNAME_FIELD: bytes(UTSNAME_FIELD) for field in (1, 5)}

    def page_patches(self, address: int, page: bytes) -> dict[int, bytes]:
        """By file offset, what makes a stored page hold other bytes in no more room.

        Raises UnreadableFile where they compress worse than what was there.
        """
        part, index, _ = self._find(address)
        (descriptor,) = part.table.descriptors(index, 1)
        packed = min(page, zlib.compress(page, 9), key=len)
        if len(packed) > descriptor.size:
            raise UnreadableFile(f"{part.file.name}: the page at {address:#x} cannot be blanked where it is")
        flags = DUMP_DH_COMPRESSED_ZLIB if len(packed) < len(page) else 0
        replaced = descriptor._replace(size=len(packed), flags=flags)
        return {
            part.table.offset_of(index): part.table.encoded(replaced),
            descriptor.offset: packed.ljust(descriptor.size, b"\0"),
        }

    def _wanted_in(self, part: Part, ranks: RangeSet) -> bool:
        """Whether a page that was wanted, and has no page_desc, is among these."""
        places = (part.table.find(address) for address in self.empty)
        return any(place is not None and place[0] in ranks for place in places)

    def _why_empty(self, part: Part) -> str:
        """Why a page_desc may be all zeros."""
        if part.file.cut:
            return "past the end of the truncated file"
        if self._header.incomplete:
            return "never written: makedumpfile ran out of space"
        if part.distilled:
            return "not kept by distill"
        return "its page_desc is empty: never written, or damaged"


def _joined(one: Body, other: Body) -> Body:
    """Of two parts of one dump."""
    return Body(
        one.pages + other.pages,
        one.never_written | other.never_written,
        one.damaged | other.damaged,
        one.defects + other.defects,
        one.unpacked + other.unpacked,
        one.distilled or other.distilled,
    )


def _absent(address: int, why: str) -> PageNotStored:
    return PageNotStored(f"physical address {address:#x}: {why}", address)


class SplitPart(NamedTuple):
    """A part of ``makedumpfile --split``."""

    crash: object
    """The same for the parts of one dump, and for no other file."""
    window: tuple[int, int]
    """Page frame numbers ``[start, end)`` that it holds."""


def split_part(file: DumpFile) -> SplitPart | None:
    """None where the file is a whole dump. The bitmaps are not read."""
    part = Part(file)
    if part.window is None:
        return None
    return SplitPart((tuple(_notes(part).vmcoreinfo), part.disk.utsname, part.pages), part.window)


def read(files: Sequence[DumpFile]) -> tuple[DumpHeader, KdumpMemory]:
    """One dump, from its file or from parts of ``makedumpfile --split`` in any order."""
    parts = [Part(file) for file in files]
    first = parts[0]
    _check_parts(parts)
    notes = _notes(first)
    dumpable = reduce(RangeSet.__or__, (part.dumpable for part in parts))
    stored = reduce(RangeSet.__or__, (part.stored for part in parts))
    header = DumpHeader(
        path=", ".join(file.name for file in files),
        format=Format.KDUMP,
        producer=notes.producer,
        machine=first.disk.arch.name,
        bits=first.disk.arch.kernel_bits(first.disk.bits),
        byteorder=first.disk.byteorder,
        page_size=first.disk.block_size,
        described=first.described,
        stored=stored,
        file_size=sum(file.size for file in files),
        expected_size=_expected_size(parts),
        cpu_notes=tuple(notes.cpus),
        notes=notes.listed,
        note_defects=tuple(notes.defects),
        vmcoreinfo_notes=tuple(notes.vmcoreinfo),
        incomplete=any(part.incomplete for part in parts),
        header_version=first.disk.header_version,
        dump_level=first.sub.dump_level,
        compression=name_of(first.disk.status),
        split=tuple(sorted(part.window for part in parts if part.window is not None)),
        cut=reduce(RangeSet.__or__, (part.cut for part in parts)),
        absent_parts=dumpable - stored if first.window else EMPTY,
        utsname=first.disk.utsname,
        timestamp=first.disk.tv_sec,
        remarks=_remarks(first.disk),
    )
    return header, KdumpMemory(parts, header)


def _remarks(disk: DiskDumpHeader) -> tuple[str, ...]:
    if disk.header_version in VERSIONS:
        return ()
    return (f"header_version {disk.header_version} is not known: it was read as {VERSIONS[-1]}",)


def _expected_size(parts: Sequence[Part]) -> int:
    """Of several parts: more than the sum of their sizes where any of them is cut."""
    if len(parts) == 1:
        return parts[0].expected_size
    return sum(max(part.expected_size, part.file.size) for part in parts)


def _check_parts(parts: Sequence[Part]) -> None:
    first, *others = parts
    for part in others:
        for one in (first, part):
            if one.window is None:
                raise UnreadableFile(f"{one.file.name}: given with others, and not a part of a split dump")
        mine, its = ({**vars(each.disk), "max_mapnr": each.pages} for each in (first, part))
        for field, value in mine.items():
            if its[field] != value:
                raise UnreadableFile(
                    f"{part.file.name}: not a part of the same dump as {first.file.name}: {field} is "
                    f"{_shown(its[field])}, not {_shown(value)}"
                )


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, (str, tuple)) else f"{value:#x}"


def _disk_dump_header(file: DumpFile) -> DiskDumpHeader:
    """The header, in the one layout of four in which it makes sense."""
    longest = struct.calcsize("<" + DISK_DUMP_HEADER[64])
    if file.size < len(SIGNATURE) + longest:
        raise UnreadableFile(
            f"{file.name}: disk_dump_header has {len(SIGNATURE) + longest} bytes, and the file {file.size}"
        )
    data = file.read(len(SIGNATURE), longest)
    little, big = (int.from_bytes(data[:4], order) for order in ("little", "big"))
    byteorder: ByteOrder = "little" if little < big else "big"
    version = min(little, big)
    if not VERSIONS[0] <= version <= NEWEST_VERSION:
        raise UnsupportedFormat(
            f"{file.name}: kdump-compressed with header_version {version}; "
            f"{VERSIONS[0]} to {VERSIONS[-1]} are known"
        )
    for bits in (64, 32):
        layout = ("<" if byteorder == "little" else ">") + DISK_DUMP_HEADER[bits]
        _, names, tv_sec, _, status, block_size, sub_hdr_size, bitmap_blocks, max_mapnr, *_ = (
            struct.unpack_from(layout, data)
        )
        if block_size in PAGE_SIZES and sub_hdr_size > 0:
            return DiskDumpHeader(
                bits=bits,
                byteorder=byteorder,
                header_version=version,
                utsname=_utsname(names),
                tv_sec=tv_sec,
                status=status,
                block_size=block_size,
                sub_hdr_size=sub_hdr_size,
                bitmap_blocks=bitmap_blocks,
                max_mapnr=max_mapnr,
            )
    raise UnreadableFile(
        f"{file.name}: disk_dump_header has no block_size between {PAGE_SIZES[0]} and "
        f"{PAGE_SIZES[-1]} with a positive sub_hdr_size, neither as 64-bit nor as 32-bit"
    )


def _utsname(names: bytes) -> tuple[str, ...]:
    """The six strings of struct new_utsname."""
    fields = (names[start : start + UTSNAME_FIELD] for start in range(0, len(names), UTSNAME_FIELD))
    return tuple(field.split(b"\0")[0].decode("utf-8", "backslashreplace") for field in fields)


def _sub_header(file: DumpFile, disk: DiskDumpHeader) -> SubHeader:
    if disk.bitmap_offset > file.size:
        raise UnreadableFile(
            f"{file.name}: kdump_sub_header with sub_hdr_size {disk.sub_hdr_size:#x} ends at "
            f"{disk.bitmap_offset:#x}, past the end of the file ({file.size:#x})"
        )
    data = file.read(disk.block_size, struct.calcsize("<" + SUB_HEADER_64))
    for layout in _sub_header_layouts(disk):
        sub = _members(disk, layout, data)
        end = sub.offset_vmcoreinfo + sub.size_vmcoreinfo
        if sub.offset_vmcoreinfo >= disk.block_size and end <= disk.bitmap_offset:
            return sub
    # No layout has a VMCOREINFO where one can be, or there is none: then the likeliest.
    return _members(disk, _sub_header_layouts(disk)[0], data)


def _members(disk: DiskDumpHeader, layout: str, data: bytes) -> SubHeader:
    members = zip(struct.unpack_from(disk.order + layout, data), SINCE_VERSION, strict=True)
    return SubHeader(*(member if disk.header_version >= since else 0 for member, since in members))


def _sub_header_layouts(disk: DiskDumpHeader) -> tuple[str, ...]:
    """The likeliest first: 32-bit x86 aligns 64-bit members to 4 bytes, the others to 8."""
    if disk.bits == 64:
        return (SUB_HEADER_64,)
    layouts = (SUB_HEADER_32_PACKED, SUB_HEADER_32_PADDED)
    return layouts if disk.arch.packed_off_t else layouts[::-1]


def _notes(part: Part) -> Notes:
    sub = part.sub
    notes = Notes(part.disk.byteorder, part.disk.arch.kernel_bits(part.disk.bits))
    if sub.size_note:
        notes.read(part.file, sub.offset_note, sub.size_note, "offset_note")
    if sub.size_vmcoreinfo:
        _add_vmcoreinfo(part, notes)
    if sub.size_eraseinfo:
        notes.headers.append(NoteHeader(ERASEINFO, 0, sub.size_eraseinfo, sub.offset_eraseinfo))
    return notes


def _add_vmcoreinfo(part: Part, notes: Notes) -> None:
    """offset_vmcoreinfo: since version 4 it points at the very text of the note."""
    sub, file = part.sub, part.file
    end = sub.offset_vmcoreinfo + sub.size_vmcoreinfo
    if end > file.size or sub.size_vmcoreinfo > LARGEST_VMCOREINFO:
        notes.defects.append(
            f"VMCOREINFO is said to be {sub.size_vmcoreinfo:#x} bytes at {sub.offset_vmcoreinfo:#x} "
            f"of a file of {file.size:#x}"
        )
        return
    text = file.read(sub.offset_vmcoreinfo, sub.size_vmcoreinfo).rstrip(b"\0")
    if text not in notes.vmcoreinfo:
        notes.vmcoreinfo.append(text)
