# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.expected import covered
from vmcheck.findings import Finding, Severity
from vmcheck.header import Producer
from vmcheck.rules import Case, Inapplicable, rule
from vmcheck.topology import NotKnown, known


@rule
def described_without_ram(case: Case) -> Iterator[Finding]:
    """Memory that the headers describe and the kernel did not have: a phantom.

    Memory removed after elfcorehdr was last written stays described. The capture kernel
    reads zeros there, or fails, and a reader of the dump takes what it finds for memory.
    On x86 this happens even where the kernel updates elfcorehdr itself: MEM_OFFLINE is
    announced before the resource goes, and nothing is announced after it.

    In a kdump-compressed file, a phantom at the very end of memory is cut off with
    max_mapnr and cannot be seen.
    """
    if case.header.producer is Producer.HYPERVISOR:
        raise Inapplicable("a hypervisor describes the machine's memory, not the kernel's System RAM")
    resources, present = known(case.topology.resources), known(case.topology.sections).present
    page = case.header.page_size
    phantom = covered(case.header) - resources.account.ram.aligned_outward(page)
    if resources.account.complete:
        no_section = not phantom & present
    else:
        # A resource may be among those that could not be read; a section that is absent is proof.
        phantom, no_section = phantom - present, True
    if phantom:
        yield Finding(
            Severity.WRONG,
            f"memory is described that the kernel no longer {'has' if case.forecast else 'had'}: "
            "it was removed after elfcorehdr was written",
            ranges=phantom,
            evidence=(
                *(["no System RAM resource is there"] if resources.account.complete else []),
                "no section is present there" if no_section else "a section is still present there",
            ),
        )
    elif not resources.account.complete:
        raise NotKnown(f"iomem_resource could not be read to its end: {resources.account.unread[0]}")
