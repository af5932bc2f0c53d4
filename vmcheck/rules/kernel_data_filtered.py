# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.findings import Finding, Severity
from vmcheck.ranges import RangeSet
from vmcheck.rules import Case, rule
from vmcheck.rules.applies import needs_file
from vmcheck.topology import Unknown, known


@rule
def kernel_data_filtered(case: Case) -> Iterator[Finding]:
    """Pages of kernel data were filtered out, which no dump level asks for.

    makedumpfile decides by its struct page what a page is. A kernel newer than makedumpfile
    knows may mark pages in another way; then slab pages, where kmalloc memory lives, are
    taken for free or user pages and left out. Readers meet "Excluded page" in the middle of
    kernel structures. Only a newer makedumpfile helps, and only for the next dump.

    Seen on Linux 7.2 dumped by makedumpfile 1.7.2.
    """
    needs_file(case)
    page, filtered, sample = case.header.page_size, case.header.filtered, case.topology.filtered_slab
    faults = [fault for fault in case.topology.faults if fault.address in filtered]
    evidence = [f"reading {fault.structure}: {fault.why}" for fault in faults[:8]]
    if len(faults) > 8:
        evidence.append(f"and {len(faults) - 8} more")
    pages = RangeSet((fault.address // page * page, fault.address // page * page + page) for fault in faults)
    if not faults:
        sample = known(sample)
    if not isinstance(sample, Unknown) and sample.slab:
        pages |= sample.slab
        evidence.append(f"of {sample.pages} filtered pages looked at, {sample.slab.size // page} head a slab")
    if pages:
        yield Finding(
            Severity.LOST,
            "kernel data was filtered out: makedumpfile took pages of this kernel for something else",
            ranges=pages,
            evidence=tuple(evidence),
        )
