# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.expected import undescribed_ram as undescribed
from vmcheck.expected import unseen
from vmcheck.findings import Finding, Severity
from vmcheck.rules import Case, rule
from vmcheck.topology import NotKnown, known


@rule
def undescribed_ram(case: Case) -> Iterator[Finding]:
    """Hot-added System RAM that the headers do not describe.

    The capture kernel copies only what elfcorehdr names, and elfcorehdr was written when
    the crash kernel was loaded, or when something last rewrote it. Memory onlined after
    that is absent from the dump, whatever the dump level. It cannot be recovered: its
    bytes were never read.

    That it was hot-added is not a guess: its sections lack SECTION_IS_EARLY, which every
    section present at boot has. What a healthy header leaves out, such as the crash
    kernel's reservation, is not reported.
    """
    early = known(case.topology.sections).early
    if lost := undescribed(case.header, case.topology) - early:
        where = "PT_LOAD segment" if len(case.header.segments) else "bit of the first bitmap"
        yield Finding(
            Severity.LOST,
            "hot-added memory would be in no part of a dump: elfcorehdr is stale"
            if case.forecast
            else "hot-added memory is in no part of the dump: elfcorehdr was stale when the kernel crashed",
            ranges=lost,
            evidence=(
                f"online System RAM to the kernel, and no {where} describes it",
                "its sections lack SECTION_IS_EARLY: it was added after boot",
            ),
        )
    elif why := unseen(case.topology):
        raise NotKnown(why)
