# SPDX-License-Identifier: LGPL-2.1-or-later
"""struct page: what the pages that a dump leaves out were."""

from __future__ import annotations

import numpy as np
from drgn import FaultError

from vmcheck.kernel.memory import SectionTable
from vmcheck.kernel.program import Kernel
from vmcheck.ranges import RangeSet
from vmcheck.topology import SlabSample

SAMPLES = 24
"""Pages of struct pages that are read: 24 times 64 pages on x86_64."""


def filtered_slab(kernel: Kernel, table: SectionTable) -> SlabSample:
    """Slab pages among a sample of the pages that are described and not stored.

    A sample that is spread evenly over them: no dump level excludes slab, so one such page
    is enough. From VMCOREINFO alone. Raises LookupError where it lacks an item.
    """
    size = kernel.vmcoreinfo_number("SIZE(page)")
    if not 8 <= size <= 256:
        raise LookupError(f"VMCOREINFO has SIZE(page)={size}")
    page_size = kernel.header.page_size
    filtered = kernel.header.filtered.aligned_inward(page_size)
    per_read = page_size // size
    unit = per_read * page_size
    pages, slab = 0, []
    whole = filtered.aligned_inward(unit)
    for start in _spread(whole if whole else filtered.aligned_outward(unit), unit):
        pfn = start // page_size
        address = table.page_struct(pfn, size)
        if address is None:
            continue
        try:
            structs = np.frombuffer(kernel.read(address, per_read * size), np.uint8).reshape(-1, size)
        except FaultError:
            continue
        addresses = (pfn + np.flatnonzero(_is_slab(kernel, structs))) * page_size
        slab += addresses[filtered.contains(addresses)].tolist()
        pages += int(filtered.contains((pfn + np.arange(per_read)) * page_size).sum())
    return SlabSample(pages, RangeSet((address, address + page_size) for address in slab))


def _spread(ranges: RangeSet, unit: int) -> list[int]:
    """Starts of up to SAMPLES units, evenly spread over the ranges."""
    counts = (ranges.ends - ranges.starts) // unit
    before = np.concatenate([[0], np.cumsum(counts)])
    total = int(before[-1])
    chosen = np.unique(np.linspace(0, max(0, total - 1), min(SAMPLES, total)).astype(np.int64))
    run = np.searchsorted(before, chosen, side="right") - 1
    return [int(start) for start in ranges.starts[run] + (chosen - before[run]) * unit]


def _is_slab(
    kernel: Kernel, structs: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Which struct pages head a slab: by page type, or by flag on kernels before v6.10."""
    order = "<" if kernel.header.byteorder == "little" else ">"
    number = kernel.vmcoreinfo_number
    if "NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)" in kernel.header.vmcoreinfo:
        # Since Linux kernel commit 46df8e73a4a3 ("mm: free up PG_slab") (in v6.10), a page type,
        # which overlays _mapcount; its low bits may count (v6.11 stores the type in the top byte).
        wanted = number("NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)") & 0xFFFFFFFF
        offset = number("OFFSET(page._mapcount)")
        types = np.ascontiguousarray(structs[:, offset : offset + 4]).view(order + "u4").reshape(-1)
        return (
            np.asarray(types & 0xFF000000 == wanted & 0xFF000000)
            if wanted & 0xFFFFFF == 0
            else types == wanted
        )
    word = kernel.header.bits // 8
    offset = number("OFFSET(page.flags)")
    flags = np.ascontiguousarray(structs[:, offset : offset + word]).view(f"{order}u{word}").reshape(-1)
    return np.asarray(flags >> number("NUMBER(PG_slab)") & 1, dtype=bool)
