# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.header import Format
from vmcheck.facts.quantities import size
from vmcheck.facts.ranges import RangeSet
from vmcheck.facts.topology import Fault, NotKnown, Unknown, known
from vmcheck.rules import rule
from vmcheck.rules.applies import needs_file

NEVER_ZERO = frozenset({"iomem_resource", "memory blocks", "kexec_crash_image", "page tables"})
"""Structures that a pointer leads to and that hold more than zeros."""


@rule
def kernel_data_filtered(case: Case) -> Iterator[Finding]:
    """Pages of kernel data were filtered out, which no dump level asks for.

    What it means: the dump describes these pages and does not store them, and the kernel used
    them. makedumpfile decides by its struct page what a page is. A kernel newer than
    makedumpfile knows may mark pages in another way; then it takes slab pages, where kmalloc
    memory is, for free or user pages. Seen on Linux 7.2 dumped by makedumpfile 1.7.2.

    Why it matters: tools meet "Excluded page" in the middle of kernel structures.

    What to do: use a newer makedumpfile for the next dump.

    How it is decided: every page of kernel text, rodata, data, bss, per-CPU areas and of the
    struct pages of online memory is looked for; slab pages by a sample; and every page that the
    check itself reads. makedumpfile -E stores no pages of zeros, so in its ELF a page counts only
    where it cannot be one of zeros.
    """
    needs_file(case)
    page, filtered, topology = case.header.page_size, case.header.filtered, case.topology
    faults = [fault for fault in topology.faults if fault.address in filtered]
    doubtful = [fault for fault in faults if not _is_loss(case, fault)]
    faults = [fault for fault in faults if _is_loss(case, fault)]
    evidence = [f"reading {fault.structure}: {fault.why}" for fault in faults[:8]]
    if len(faults) > 8:
        evidence.append(f"and {len(faults) - 8} more")
    pages = RangeSet((fault.address // page * page, fault.address // page * page + page) for fault in faults)
    data, sample = topology.kernel_data, topology.filtered_slab
    if not isinstance(data, Unknown):
        for part in data.parts:
            if part.filtered:
                pages |= part.filtered
                evidence.append(
                    f"{part.name}: {size(part.filtered.size)} of {size(part.size)} are not stored"
                )
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
        return
    if not filtered:
        return
    known(sample)
    if unread := known(data).unread:
        distilled = not isinstance(case.body, Unknown) and case.body.distilled
        if not distilled:
            raise NotKnown(unread[0])
    if doubtful:
        raise NotKnown(f"{doubtful[0].structure}: {doubtful[0].why}; or it is a page of zeros")


def _is_loss(case: Case, fault: Fault) -> bool:
    """Whether the page cannot be one of zeros, which makedumpfile's ELF leaves out."""
    return case.header.format is not Format.ELF or fault.structure in NEVER_ZERO
