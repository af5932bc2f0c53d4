# SPDX-License-Identifier: LGPL-2.1-or-later
"""The table of page_desc of a kdump-compressed file: one for each stored page, in rising order."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property, reduce
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from vmcheck.facts.ranges import ADDRESS_LIMIT, RangeSet
from vmcheck.formats.file import DumpFile
from vmcheck.formats.page_chain import PageChain

SIZE = 24
LAYOUT = "QIIQ"
COLUMNS = [("offset", "u8"), ("size", "u4"), ("flags", "u4"), ("page_flags", "u8")]
PROBE = 64
"""page_descs read at once where the end of the data is sought."""
IN_BULK = 1 << 16
MOST_AMISS = 1 << 12
"""page_descs that a table may be longer or shorter than its bitmap, to be reported as that."""
LONGEST_SEARCH = 1 << 20
"""page_descs read, from the last one back, where no probe finds the end of the data."""


KNOWN_FLAGS = 0x1 | 0x2 | 0x4 | 0x20
"""DUMP_DH_COMPRESSED_ZLIB, _LZO, _SNAPPY, _ZSTD: makedumpfile's diskdump_mod.h."""
UNKNOWN_FLAGS = np.uint32(~KNOWN_FLAGS & 0xFFFFFFFF)
HEAD = 512
"""Bytes. LZO counts a run of literals by zeros: 17 for a page of 4 KiB, 257 for one of 64 KiB."""
DEFECTS_NAMED = 4


class PageDescriptor(NamedTuple):
    """struct page_desc (diskdump_mod.h)."""

    offset: int
    size: int
    flags: int
    page_flags: int


class Judged(NamedTuple):
    """What :meth:`PageTable.judged` found, by index of page_desc."""

    empty: RangeSet
    wrong: RangeSet
    defects: tuple[str, ...]
    contradicts: bool
    """The table's length is another than the second bitmap says, so that every page may be another's."""


class PageTable:
    """Which page_desc a physical address has, and what the table as a whole says."""

    def __init__(
        self,
        file: DumpFile,
        offset: int,
        order: Literal["<", ">"],
        stored: RangeSet,
        page_size: int,
        room: int | None = None,
    ) -> None:
        """``room`` is the number of page_descs before the data begin, as many as ``stored`` has if None.

        makedumpfile --split leaves in each part the room that the whole dump's would take.
        """
        self._file = file
        self._offset = offset
        self._order: Literal["<", ">"] = order
        self._stored = stored
        self._page_size = page_size
        self._count = stored.size // page_size
        self._room = self._count if room is None else room
        sizes = stored.ends - stored.starts
        # A memoryview gives a plain int at a third of what a numpy item costs, and needs no list of them.
        self._starts: Sequence[int] = np.ascontiguousarray(stored.starts).data
        self._before: Sequence[int] = np.cumsum(np.append(0, sizes)).data
        """Bytes stored before each range."""

    @property
    def end(self) -> int:
        """Where the table ends in the file."""
        return self.offset_of(self._count)

    @property
    def data(self) -> int:
        """Where the data begin in the file, with the page that all pages of zeros share."""
        return self.offset_of(self._room)

    def find(self, address: int) -> tuple[int, int] | None:
        """The index of a page's page_desc, and how many pages from it on follow without a gap."""
        run = bisect_right(self._starts, address) - 1
        if run < 0:
            return None
        rank = self._before[run] + address - self._starts[run]
        if rank >= self._before[run + 1]:
            return None
        return rank // self._page_size, (self._before[run + 1] - rank) // self._page_size

    def rank(self, address: int) -> int:
        """How many of the pages are below an address."""
        run = bisect_right(self._starts, address) - 1
        if run < 0:
            return 0
        size = self._before[run + 1] - self._before[run]
        return (self._before[run] + min(address - self._starts[run], size)) // self._page_size

    def columns(self, index: int, count: int) -> npt.NDArray[Any]:
        """As :meth:`descriptors`, as an array with the members' names."""
        return self._columns(index, count)

    def descriptors(self, index: int, count: int) -> Iterator[PageDescriptor]:
        """page_descs ``[index, index + count)``, as far as the file has them."""
        data = self._read(index, count)
        return map(PageDescriptor._make, struct.iter_unpack(self._order + LAYOUT, data))

    def offset_of(self, index: int) -> int:
        """Where the page_desc is in the file."""
        return self._offset + index * SIZE

    def encoded(self, descriptor: PageDescriptor) -> bytes:
        """A page_desc as this file has it."""
        return struct.pack(self._order + LAYOUT, *descriptor)

    @cached_property
    def end_of_data(self) -> int:
        """Where the last page's data end, which is where the file does if it is whole. 0 if there are none.

        Pages are written in order, so the last page_desc tells; but makedumpfile -d 1 lets all
        zero pages share the first page's data, and hot-added memory is zero for the most part.
        So the last other page is sought, and looked for one by one only where that one does
        not end where the file does.
        """
        if not self._count:
            return 0
        if self._held < self._count:
            return self.end
        # Of all that is looked through, distill needs to keep the one that tells.
        recording, self._file.record = self._file.record, False
        try:
            end, index = self._last_data()
        finally:
            self._file.record = recording
        self._read(index, 1)
        # And the last of all: where that is empty, the capture was interrupted.
        self._read(self._count - 1, 1)
        return end

    def _last_data(self) -> tuple[int, int]:
        """Where the data end, and the index of the page_desc that says so."""
        low, high, step = self._count, self._count, PROBE
        last, shared = (self.data, 0), self.data + self._page_size
        while high and last[0] <= shared:
            low, step = max(0, high - step), 2 * step
            last = max(last, self._ends(low, PROBE))
            high = low if last[0] <= shared else high
        while high - low > PROBE:
            middle = (low + high) // 2
            found = self._ends(middle, PROBE)
            low, high = (middle, high) if found[0] > shared else (low, middle)
            last = max(last, found)
        first = self._count
        while last[0] < self._file.size and first > max(0, self._count - LONGEST_SEARCH):
            first = max(0, first - IN_BULK)
            last = max(last, self._ends(first, IN_BULK))
        return last

    def judged(self, distilled: bool = False) -> Judged:
        """Every page_desc of the file, read in bulk: which are empty, and which are impossible."""
        empty, wrong, defects = [RangeSet()], [RangeSet()], list[str]()
        start = self._columns(0, 1)
        mismatch = self._mismatch(int(start["offset"][0]) if len(start) else None)
        # Of another length than the bitmap says, the table ends elsewhere.
        data = self._offset if mismatch else self.data
        chain = PageChain(self.data, distilled)
        for index in range(0, self._held, IN_BULK):
            table = self._columns(index, IN_BULK)
            none = (table["offset"] == 0) & (table["size"] == 0)
            # A sum that wraps lies past the end too: no file is that long.
            past = table["size"] > np.maximum(self._file.size, table["offset"]) - table["offset"]
            for name, bad in (
                ("points into the table itself", (table["offset"] < data) & ~none),
                ("has a size of 0", (table["size"] == 0) & ~none),
                ("has a size of more than a page", table["size"] > self._page_size),
                (
                    "has flags that are not known",
                    (table["flags"] & np.uint32(~KNOWN_FLAGS & 0xFFFFFFFF)) != 0,
                ),
                ("points past the end of the file", past & (table["size"] <= self._page_size)),
            ):
                if bad.any():
                    place = int(bad.argmax())
                    if len(defects) < DEFECTS_NAMED:
                        defects.append(
                            f"page_desc {index + place:,} of {self._count:,} {name}: offset "
                            f"{int(table['offset'][place]):#x}, size {int(table['size'][place]):#x}, "
                            f"flags {int(table['flags'][place]):#x}"
                        )
                    wrong.append(_runs(bad, index))
            empty.append(_runs(none, index))
            chain.add(table, index, none)
        if mismatch is not None:
            defects.insert(0, mismatch)
        elif chain.number:
            pages = chain.pages()
            wrong += [RangeSet((page, page + 1) for page in pages)]
            defects.append(
                f"page_desc {pages[0]:,}: its data do not lie between those of its neighbours, "
                f"as in {chain.number:,} places of the table"
            )
        return Judged(
            reduce(RangeSet.__or__, empty),
            reduce(RangeSet.__or__, wrong),
            tuple(defects),
            mismatch is not None,
        )

    def _mismatch(self, first: int | None) -> str | None:
        """Where the first page's data say that the table has another length than the second bitmap.

        makedumpfile puts a page of zeros before all others, which zero pages share.
        """
        if not first or first - self.data in (0, self._page_size):
            return None
        for zero_page in (0, self._page_size):
            entries, rest = divmod(first - zero_page - self._offset, SIZE)
            if not rest and 0 < abs(entries - self._room) <= MOST_AMISS:
                return (
                    f"the second bitmap has {self._room:,} pages; the table, which ends where the first "
                    f"page's data begin, has {entries:,} page_descs"
                )
        return None

    def __len__(self) -> int:
        """Pages that the second bitmap has."""
        return self._count

    def address(self, index: int) -> int:
        """Physical address of the page whose page_desc has this index."""
        run = bisect_right(self._before, index * self._page_size) - 1
        return self._starts[run] + index * self._page_size - self._before[run]

    def addresses(self, ranks: RangeSet) -> RangeSet:
        """Memory whose page_descs have these indices."""
        return self._addresses(ranks)

    def blank(self, number: int) -> RangeSet:
        """Of up to ``number`` compressed pages over the whole table, those whose data begin with zeros.

        No compression begins with so many: a hole of the file, or a block that was lost.
        """
        found = []
        for index, descriptor in self.sample(number):
            head = min(HEAD, descriptor.size)
            inside = descriptor.offset + head <= self._file.size
            if (
                descriptor.flags & KNOWN_FLAGS
                and inside
                and not any(self._file.read(descriptor.offset, head))
            ):
                found.append((index, index + 1))
        return RangeSet(found)

    def sample(self, number: int) -> Iterator[tuple[int, PageDescriptor]]:
        """Index and page_desc of up to ``number`` pages: one of each equal stretch of the table."""
        number = min(number, self._held)
        for stretch in range(number):
            begin, end = stretch * self._held // number, (stretch + 1) * self._held // number
            # The same pages at every check of one dump, and no regular distance between them.
            index = begin + (stretch * 2654435761 >> 7) % max(1, end - begin)
            (descriptor,) = self.descriptors(index, 1)
            if descriptor.offset or descriptor.size:
                yield index, descriptor

    @property
    def absent(self) -> RangeSet:
        """Memory whose page_desc is empty, or that or whose data the file does not have."""
        absent = [RangeSet([(self._held, self._count)])]
        for index in range(0, self._held, IN_BULK):
            table = self._columns(index, IN_BULK)
            # A sum that wraps lies past the end too: no file is that long.
            past = table["size"] > np.maximum(self._file.size, table["offset"]) - table["offset"]
            absent.append(_runs(past | (table["size"] == 0), index))
        return self._addresses(reduce(RangeSet.__or__, absent))

    @property
    def _held(self) -> int:
        """page_descs that the file has."""
        return max(0, min(self._count, (self._file.size - self._offset) // SIZE))

    def _read(self, index: int, count: int) -> bytes:
        count = min(count, self._held - index)
        return self._file.read(self.offset_of(index), count * SIZE) if count > 0 else b""

    def _columns(self, index: int, count: int) -> npt.NDArray[Any]:
        data = self._read(index, count)
        return np.frombuffer(data, dtype=np.dtype(COLUMNS).newbyteorder(self._order))

    def _ends(self, index: int, count: int) -> tuple[int, int]:
        """Where the data of the last of these pages end, and the index of its page_desc."""
        table = self._columns(index, count)
        if not len(table):
            return 0, index
        ends = np.minimum(table["offset"], ADDRESS_LIMIT) + table["size"]
        last = int(ends.argmax())
        return min(int(ends[last]), ADDRESS_LIMIT), index + last

    def _addresses(self, ranks: RangeSet) -> RangeSet:
        """Memory whose page_descs have these indices."""
        if not ranks:
            return RangeSet()
        before = np.asarray(self._before) // self._page_size
        points = np.union1d(np.concatenate([ranks.starts, ranks.ends]), before)
        firsts, lasts = points[:-1], points[1:]
        chosen = ranks.contains(firsts)
        run = np.searchsorted(before, firsts[chosen], side="right") - 1
        shift = self._stored.starts[run] - before[run] * self._page_size
        return RangeSet.from_arrays(
            firsts[chosen] * self._page_size + shift, lasts[chosen] * self._page_size + shift
        )


def _runs(flags: npt.NDArray[np.bool_], first: int) -> RangeSet:
    """The indices that are set, counted from ``first``."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False))
    return RangeSet.from_bounds(edges + first)
