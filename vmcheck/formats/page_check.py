# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every page of a kdump-compressed file unpacked: what ``check --pages all`` does."""

from __future__ import annotations

from dataclasses import replace

from vmcheck.errors import UnreadableFile
from vmcheck.facts.body import Verified
from vmcheck.facts.ranges import RangeSet
from vmcheck.formats.compression import ANY_COMPRESSION, Corrupt, bulk_unpacker
from vmcheck.formats.file import DumpFile
from vmcheck.formats.page_desc import PageTable

AT_ONCE = 512
"""Pages."""
DEFECTS_NAMED = 4


def joined(one: Verified, other: Verified) -> Verified:
    """Of two ranges, or of two parts of a split dump."""
    return Verified(
        min(one.start, other.start),
        max(one.end, other.end),
        one.pages + other.pages,
        one.plain + other.plain,
        one.zeros + other.zeros,
        one.damaged | other.damaged,
        (*one.defects, *other.defects)[:DEFECTS_NAMED],
    )


def unpack_all(file: DumpFile, table: PageTable, start: int, end: int, page_size: int) -> Verified:
    """Unpack the pages of one file with physical addresses in ``[start, end)``.

    A page_desc that is empty or impossible has no page to unpack: every check reports those.
    """
    found = Verified(start, end)
    last = table.rank(end)
    for index in range(table.rank(start), last, AT_ONCE):
        found = joined(found, _unpack(file, table, index, min(AT_ONCE, last - index), page_size))
    return replace(found, start=start, end=end)


def _unpack(file: DumpFile, table: PageTable, index: int, count: int, page_size: int) -> Verified:
    columns = table.columns(index, count)
    ends = columns["offset"] + columns["size"]
    good = (columns["size"] > 0) & (columns["size"] <= page_size)
    good &= (ends <= file.size) & (ends > columns["offset"])
    # Pages of zeros share the first page of all.
    own = good & (columns["offset"] != table.data)
    base, data = 0, memoryview(b"")
    if own.any():
        base, stop = int(columns["offset"][own].min()), int(ends[own].max())
        if stop - base <= 2 * AT_ONCE * page_size:
            data = _read(file, base, stop - base)
    bad: list[tuple[int, str]] = []
    plain = pages = 0
    shared: tuple[int, int, int] | None = None
    unpackers = {
        flag: bulk_unpacker(flag, page_size)
        for flag in set((columns["flags"] & ANY_COMPRESSION).tolist())
        if flag and not flag & (flag - 1)
    }
    rows = zip(columns["offset"].tolist(), columns["size"].tolist(), columns["flags"].tolist(), strict=True)
    for place, (usable, row) in enumerate(zip(good.tolist(), rows, strict=True)):
        if not usable:
            continue
        pages += 1
        if row == shared:
            continue
        offset, size, flags = row
        begin = offset - base
        page = data[begin : begin + size] if begin >= 0 else memoryview(b"")
        if len(page) < size:
            page = _read(file, offset, size)
        if len(page) < size:
            bad.append((place, "cannot be read from the disk"))
            continue
        if unpacker := unpackers.get(flags & ANY_COMPRESSION):
            unpack, errors = unpacker
            try:
                unpacked = unpack(page)
            except errors as error:
                bad.append((place, str(error)))
                continue
        elif flags & ANY_COMPRESSION:
            bad.append((place, str(Corrupt(f"flags {flags:#x} name more than one compression"))))
            continue
        else:
            unpacked = size
            plain += 1
        if unpacked != page_size:
            bad.append((place, f"{unpacked} bytes of a page of {page_size}"))
        elif offset == table.data:
            shared = row
    ranks = RangeSet((index + place, index + place + 1) for place, _ in bad)
    defects = (f"the page at {table.address(index + place):#x}: {why}" for place, why in bad[:DEFECTS_NAMED])
    return Verified(0, 0, pages, plain, 0, table.addresses(ranks), tuple(defects))


def _read(file: DumpFile, offset: int, size: int) -> memoryview:
    """Nothing where the disk cannot read it: then its pages are read one by one."""
    try:
        return memoryview(file.read(offset, size))
    except UnreadableFile:
        return memoryview(b"")
