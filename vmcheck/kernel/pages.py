# SPDX-License-Identifier: LGPL-2.1-or-later
"""struct page: what the pages that a dump leaves out were."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from drgn import FaultError, Object

from vmcheck.facts.header import Format
from vmcheck.facts.ranges import RangeSet, distinct
from vmcheck.facts.topology import SlabSample
from vmcheck.kernel.memory import SectionTable
from vmcheck.kernel.program import Kernel

Structs = npt.NDArray[np.uint8]
"""Struct pages side by side, shape ``(n, SIZE(page))``."""
Words = npt.NDArray[np.uint64]

SAMPLES = 24
"""Pages of struct pages that are read: 24 times 64 pages on x86_64."""


def filtered_slab(kernel: Kernel, table: SectionTable) -> SlabSample:
    """Slab pages among a sample of the pages that are described and not stored.

    No dump level excludes slab, so one such page is enough. The sample is spread over the
    places where a filtered run begins, since what was left out wrongly lies between pages
    that were kept. From VMCOREINFO alone; raises LookupError where it lacks an item.
    """
    size = kernel.vmcoreinfo_number("SIZE(page)")
    if not 8 <= size <= 256:
        raise LookupError(f"VMCOREINFO has SIZE(page)={size}")
    page_size = kernel.header.page_size
    filtered = kernel.header.filtered.aligned_inward(page_size)
    structs_per_page = page_size // size
    units = distinct(filtered.starts // (structs_per_page * page_size))
    chosen = units[distinct(np.linspace(0, len(units) - 1, min(SAMPLES, len(units))).astype(np.intp))]
    looked_at, slab = 0, []
    for pfn in (chosen * structs_per_page).tolist():
        address = table.page_struct(pfn, size)
        if address is None:
            continue
        try:
            data = kernel.read(address, structs_per_page * size)
        except FaultError:
            continue
        structs = np.frombuffer(data, np.uint8).reshape(-1, size)
        pages = (pfn + np.arange(structs_per_page)) * page_size
        ours = filtered.contains(pages)
        looked_at += int(ours.sum())
        slab += pages[ours & _of_slab(kernel, structs, address)].tolist()
    found = RangeSet((page, page + page_size) for page in slab)
    if kernel.header.format is Format.ELF:
        found = _holding_data(kernel, table, found)
    return SlabSample(looked_at, found)


def _holding_data(kernel: Kernel, table: SectionTable, slab: RangeSet) -> RangeSet:
    """Those slab pages that cannot be pages of zeros, which makedumpfile's ELF leaves out.

    A free object of a slab points to the next free one (mm/slub.c: get_freepointer()), so the
    page of a slab's first free object holds data where a second one follows. Raises LookupError
    without the kernel's types.
    """
    if not slab:
        return slab
    size, page = kernel.vmcoreinfo_number("SIZE(page)"), kernel.header.page_size
    # Since Linux kernel commit d122019bf061 ("mm: Split slab into its own type") (in v5.17).
    try:
        kind = kernel.prog.type("struct slab")
    except LookupError:
        kind = kernel.prog.type("struct page")
    found = []
    for pfn in _page_frames(slab, page):
        address = table.page_struct(pfn, size)
        try:
            if address is None:
                continue
            structs = np.frombuffer(kernel.read(address, size), np.uint8).reshape(1, size)
            tails, heads = compound_tails(kernel, structs, address)
            head = int(heads[0]) if tails[0] else address
            described = Object(kernel.prog, kind, address=head).read_()
            free = int(described.freelist)
            if free and int(described.objects) - int(described.inuse) > 1:
                place = kernel.physical(free) // page * page
                if place in slab:
                    found.append((place, place + page))
        except FaultError:
            continue
    return RangeSet(found)


def _page_frames(ranges: RangeSet, page_size: int) -> Iterator[int]:
    """The number of each page, in rising order."""
    for start, end in ranges:
        yield from range(start // page_size, end // page_size)


def _of_slab(kernel: Kernel, structs: Structs, address: int) -> npt.NDArray[np.bool_]:
    """Which struct pages are a slab's, head or tail. ``address`` is the first one's."""
    slab = is_slab(kernel, structs)
    size = structs.shape[1]
    tails, heads = compound_tails(kernel, structs, address)
    for head in sorted(set(heads[tails].tolist())):
        try:
            found = np.frombuffer(kernel.read(head, size), np.uint8).reshape(1, size)
        except FaultError:
            continue
        slab |= tails & (heads == np.uint64(head)) & is_slab(kernel, found)[0]
    return slab


def compound_tails(kernel: Kernel, structs: Structs, address: int) -> tuple[npt.NDArray[np.bool_], Words]:
    """Which struct pages are tails of a compound page, and the address of each one's head."""
    one, word = np.uint64(1), kernel.header.bits // 8
    if "OFFSET(page.compound_info)" in kernel.header.vmcoreinfo:
        # Linux 7.x keeps a mask in tail pages: their own address under it is the head's.
        link = column(kernel, structs, "OFFSET(page.compound_info)", word)
        places = np.arange(len(structs), dtype=np.uint64) * np.uint64(structs.shape[1])
        return link & one != 0, (np.uint64(address) + places) & (link & ~one)
    if "OFFSET(page.compound_head)" not in kernel.header.vmcoreinfo:
        # Before Linux kernel commit 1d798ca3f164 ("mm: make compound_head() robust") (in v4.4): PG_tail
        # is the bit after PG_head, and first_page shares its place with private.
        flags = column(kernel, structs, "OFFSET(page.flags)", word)
        tail = np.uint64(kernel.vmcoreinfo_number("NUMBER(PG_head_mask)") << 1)
        return flags & tail != 0, column(kernel, structs, "OFFSET(page.private)", word)
    link = column(kernel, structs, "OFFSET(page.compound_head)", word)
    return link & one != 0, link & ~one


def is_slab(kernel: Kernel, structs: Structs) -> npt.NDArray[np.bool_]:
    """Which struct pages head a slab: by page type, or by flag on kernels before v6.10."""
    number = kernel.vmcoreinfo_number
    if "NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)" in kernel.header.vmcoreinfo:
        # Since Linux kernel commit 46df8e73a4a3 ("mm: free up PG_slab") (in v6.10) slab is a page
        # type, which overlays _mapcount; since v6.11 the type is its top byte alone.
        wanted = number("NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)") & 0xFFFFFFFF
        types = column(kernel, structs, "OFFSET(page._mapcount)", 4)
        mask = 0xFFFFFFFF if wanted & 0xFFFFFF else 0xFF000000
        return np.asarray(types & np.uint64(mask) == np.uint64(wanted & mask))
    flags = column(kernel, structs, "OFFSET(page.flags)", kernel.header.bits // 8)
    return np.asarray(flags >> np.uint64(number("NUMBER(PG_slab)")) & np.uint64(1), dtype=bool)


def column(kernel: Kernel, structs: Structs, key: str, size: int) -> Words:
    """One unsigned member of each struct page, at the offset that VMCOREINFO has."""
    if key == "OFFSET(page._refcount)" and key not in kernel.header.vmcoreinfo:
        # Before Linux kernel commit 0139aa7b7fa1 ("mm: rename _count, field of the struct page") (in v4.7).
        key = "OFFSET(page._count)"
    offset = kernel.vmcoreinfo_number(key)
    if offset < 0 or offset + size > structs.shape[1]:
        raise LookupError(f"VMCOREINFO has {key}={offset} in a struct page of {structs.shape[1]} bytes")
    order = "<" if kernel.header.byteorder == "little" else ">"
    raw = np.ascontiguousarray(structs[:, offset : offset + size])
    return raw.view(f"{order}u{size}")[:, 0].astype(np.uint64)
