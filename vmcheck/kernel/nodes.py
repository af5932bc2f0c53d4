# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which memory is of which NUMA node."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np

from vmcheck.facts.ranges import ADDRESS_LIMIT, RangeSet, distinct
from vmcheck.facts.topology import Unknown
from vmcheck.kernel.memory import NUMA_NO_NODE, BlockTable, SectionTable
from vmcheck.kernel.program import Kernel

MAX_NUMA_NODES = 1 << 12
"""x86_64 has at most 1 << 10."""


def nodes(kernel: Kernel, sections: SectionTable, blocks: BlockTable | Unknown) -> Mapping[int, RangeSet]:
    """By the memory blocks, which have one node each; else by the spans of the nodes.

    Spans overlap where memory was added to a node that is not the last: memory in several is
    left out. Raises LookupError where VMCOREINFO lacks an item, FaultError where node_data is lost.
    """
    if not isinstance(blocks, Unknown) and (
        numbers := distinct(blocks.nodes[blocks.nodes != NUMA_NO_NODE]).tolist()
    ):
        return {node: blocks.ranges(blocks.nodes == node) for node in numbers[:MAX_NUMA_NODES]}
    if "SYMBOL(contig_page_data)" in kernel.header.vmcoreinfo:
        return {}
    spans = dict(_spans(kernel))
    once = sections.present() - _shared(spans.values())
    return {node: once.clipped(start, end) for node, (start, end) in spans.items()}


def _shared(spans: Collection[tuple[int, int]]) -> RangeSet:
    """What at least two of the ranges have."""
    bounds = np.array([*spans], dtype=np.int64).reshape(-1, 2)
    places = np.concatenate([bounds[:, 0], bounds[:, 1]])
    steps = np.repeat(np.array([1, -1]), len(bounds))
    # Where bounds coincide, ends come first: ranges that touch share nothing.
    order = np.lexsort((steps, places))
    places, depth = places[order], np.cumsum(steps[order])
    deep = depth[:-1] >= 2
    return RangeSet.from_arrays(places[:-1][deep], places[1:][deep])


def _spans(kernel: Kernel) -> Iterator[tuple[int, tuple[int, int]]]:
    """``node_start_pfn`` and ``node_spanned_pages`` of each ``pglist_data`` that ``node_data`` points to."""
    count = kernel.vmcoreinfo_number("LENGTH(node_data)")
    if not 0 < count <= MAX_NUMA_NODES:
        raise LookupError(f"VMCOREINFO has LENGTH(node_data)={count}")
    start, spanned = (
        kernel.vmcoreinfo_number(f"OFFSET(pglist_data.{name})")
        for name in ("node_start_pfn", "node_spanned_pages")
    )
    pointers = kernel.words(kernel.vmcoreinfo_symbol("node_data"), count)
    limit = ADDRESS_LIMIT // kernel.header.page_size
    for node in np.flatnonzero(pointers).tolist():
        address = int(pointers[node])
        first, pages = (int(kernel.words(address + offset, 1)[0]) for offset in (start, spanned))
        if first < limit and 0 < pages <= limit - first:
            page_size = kernel.header.page_size
            yield node, (first * page_size, (first + pages) * page_size)
