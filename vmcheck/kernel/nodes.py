# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which memory is of which NUMA node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import reduce

import numpy as np

from vmcheck.kernel.memory import NUMA_NO_NODE, SECTION_MARKED_PRESENT, BlockTable, SectionTable
from vmcheck.kernel.program import Kernel
from vmcheck.ranges import ADDRESS_LIMIT, EMPTY, RangeSet, distinct
from vmcheck.topology import Unknown

MAX_NODES = 1 << 12
"""x86_64 has at most 1 << 10."""


def nodes(kernel: Kernel, sections: SectionTable, blocks: BlockTable | Unknown) -> Mapping[int, RangeSet]:
    """By the memory blocks, which have one node each; else by the spans of the nodes.

    Spans overlap where memory was added to a node that is not the last: memory in several is
    left out. Raises LookupError where VMCOREINFO lacks an item, FaultError where node_data is lost.
    """
    if not isinstance(blocks, Unknown) and (
        numbers := distinct(blocks.nodes[blocks.nodes != NUMA_NO_NODE]).tolist()
    ):
        return {node: blocks.ranges(blocks.nodes == node) for node in numbers[:MAX_NODES]}
    if "SYMBOL(contig_page_data)" in kernel.header.vmcoreinfo:
        return {}
    spans = dict(_spans(kernel))
    present = sections.ranges(SECTION_MARKED_PRESENT)
    return {
        node: (span - reduce(RangeSet.__or__, (spans[other] for other in spans if other != node), EMPTY))
        & present
        for node, span in spans.items()
    }


def _spans(kernel: Kernel) -> Iterator[tuple[int, RangeSet]]:
    """``node_start_pfn`` and ``node_spanned_pages`` of each ``pglist_data`` that ``node_data`` points to."""
    count = kernel.vmcoreinfo_number("LENGTH(node_data)")
    if not 0 < count <= MAX_NODES:
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
            yield node, RangeSet([(first * page_size, (first + pages) * page_size)])
