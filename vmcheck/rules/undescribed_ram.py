# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.header import Producer
from vmcheck.facts.topology import NotKnown, known
from vmcheck.rules import rule


@rule
def undescribed_ram(case: Case) -> Iterator[Finding]:
    """Hot-added System RAM that the headers do not describe.

    What it means: the capture kernel copies only the memory that elfcorehdr names. elfcorehdr was
    written when the crash kernel was loaded, or last updated later. This memory came online after
    that.

    Why it matters: it is missing whatever the dump level. Its pages were never read, so they cannot
    be recovered.

    What to do: follow the report's remedy: let the kernel or udev update elfcorehdr after each
    change of memory.

    How it is decided: the System RAM of the kernel's own structures is compared with the memory that
    the headers describe. The sections lack SECTION_IS_EARLY, which every section present at boot
    has; before v5.3, they are not in the firmware's memory map. Memory that is excluded by design,
    such as the crash kernel's reservation, is not reported.
    """
    sections = known(case.topology.sections)
    if lost := case.undescribed - known(sections.early):
        where = "PT_LOAD segment" if len(case.header.segments) else "bit of the first bitmap"
        yield Finding(
            Severity.LOST,
            _summary(case),
            ranges=lost,
            evidence=(
                f"online System RAM to the kernel, and no {where} describes it",
                f"its sections {sections.early_by.hot_added}: it was added after boot",
            ),
        )
    elif why := case.unseen:
        raise NotKnown(why)


def _summary(case: Case) -> str:
    if case.forecast:
        return "hot-added memory would be in no part of a dump: elfcorehdr is stale"
    if case.header.producer is Producer.HYPERVISOR:
        return "hot-added memory is in no part of the hypervisor's dump"
    return "hot-added memory is in no part of the dump: elfcorehdr was stale when the kernel crashed"
