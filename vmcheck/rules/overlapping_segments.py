# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.ranges import RangeSet, distinct
from vmcheck.rules import rule
from vmcheck.rules.applies import needs_segments


@rule
def overlapping_segments(case: Case) -> Iterator[Finding]:
    """Two PT_LOAD segments describe the same memory, other than the kernel's text.

    What it means: the kernel's text has a second segment over the same RAM on purpose, with the
    addresses of the kernel image. Any other overlap is an error in the headers.

    Why it matters: what a tool reads depends on which segment it uses.

    What to do: compare what both segments have for the ranges that you need. Update kexec-tools.

    How it is decided: the physical ranges of all segments are sorted and compared, without those of
    the kernel image.
    """
    segments = needs_segments(case)
    start = segments.p_paddr.astype(np.int64)
    end = start + segments.p_memsz.astype(np.int64)
    vaddr, filled = segments.p_vaddr, end > start
    # The kernel image's own segments: on x86 above __START_KERNEL_map, elsewhere the one
    # whose virtual addresses are not the direct map's, which most segments share.
    offsets = vaddr - segments.p_paddr
    ordered = np.sort(offsets[filled])
    values = distinct(ordered)
    counts = np.diff(np.searchsorted(ordered, values), append=len(ordered))
    direct = values[np.argmax(counts)] if len(values) else 0
    image = filled & (offsets != direct)
    if 0 < image.sum() < filled.sum():
        text = RangeSet.from_arrays(start[image], end[image])
        filled &= ~image
    else:
        text = RangeSet()
    order = np.argsort(start[filled], kind="stable")
    starts, ends = start[filled][order], end[filled][order]
    reach = np.maximum.accumulate(ends)[:-1]
    overlaps = np.flatnonzero(starts[1:] < reach)
    ranges = RangeSet.from_arrays(starts[1:][overlaps], np.minimum(reach[overlaps], ends[1:][overlaps]))
    if ranges:
        yield Finding(
            Severity.WRONG,
            "PT_LOAD segments overlap beside the kernel text's",
            ranges=ranges,
            evidence=(f"{len(overlaps)} of {len(segments)} segments begin inside another",)
            + ((f"the kernel image's {text.size:#x} bytes are not counted",) if text else ()),
        )
