# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.facts.case import MACHINE_ADDRESSES, Case
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.header import Producer
from vmcheck.facts.topology import NotKnown, known
from vmcheck.rules import Inapplicable, rule


@rule
def described_without_ram(case: Case) -> Iterator[Finding]:
    """Memory that the headers describe and the kernel did not have: a phantom.

    What it means: the memory was removed after elfcorehdr was last written, and stays described. On
    x86 this happens even where the kernel updates elfcorehdr itself: the kernel announces
    MEM_OFFLINE before the resource goes, and announces nothing after it.

    Why it matters: the capture kernel reads zeros there, or fails. A reader of the dump takes what it
    finds for memory.

    What to do: ignore these ranges in this dump. Reload the crash kernel after memory was removed.

    How it is decided: the described memory is compared with System RAM in iomem_resource and with
    the sections in mem_section. In a kdump-compressed file, a phantom at the very end of memory ends
    with max_mapnr and cannot be seen.
    """
    if case.header.producer is Producer.HYPERVISOR:
        raise Inapplicable("a hypervisor describes the machine's memory, not the kernel's System RAM")
    if case.header.producer is Producer.XEN:
        raise NotKnown(MACHINE_ADDRESSES)
    phantom = case.phantom
    resources, sections = known(case.topology.resources), known(case.topology.sections)
    whole = sections.account.complete
    if phantom.ranges:
        yield Finding(
            Severity.WRONG,
            f"memory is described that the kernel no longer {'has' if case.forecast else 'had'}: "
            "it was removed after elfcorehdr was written",
            ranges=phantom.ranges,
            evidence=(
                *(["no System RAM resource is there"] if resources.account.complete else []),
                *(["no section is present there"] if phantom.no_section else []),
                *(["a section is still present there"] if whole and not phantom.no_section else []),
                *(
                    [f"mem_section was not read to its end: {sections.account.unread[0]}"]
                    if not whole
                    else []
                ),
            ),
        )
    elif case.topology.disputed & case.covered:
        raise NotKnown("mem_section has memory online where iomem_resource has none")
    elif not resources.account.complete:
        raise NotKnown(f"iomem_resource could not be read to its end: {resources.account.unread[0]}")
