# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.expected import undescribed_ram as undescribed
from vmcheck.expected import unseen
from vmcheck.findings import Finding, Severity
from vmcheck.rules import Case, rule
from vmcheck.topology import NotKnown, known


@rule
def undescribed_boot_ram(case: Case) -> Iterator[Finding]:
    """System RAM that was there at boot and that the headers do not describe.

    Its sections have SECTION_IS_EARLY, so this is not hotplug. Usual causes: a limit on the
    number of ranges was hit when elfcorehdr was built, kexec-tools left driver-managed
    memory out by policy, the memory was offline when the crash kernel was loaded, or a
    header that somebody edited. It cannot be recovered.
    """
    early = known(case.topology.sections).early
    if lost := undescribed(case.header, case.topology) & early:
        yield Finding(
            Severity.LOST,
            f"memory that was there at boot {'would be' if case.forecast else 'is'} in no part of "
            f"{'a' if case.forecast else 'the'} dump",
            ranges=lost,
            evidence=("its sections have SECTION_IS_EARLY: it was not hot-added",),
        )
    elif why := unseen(case.topology):
        raise NotKnown(why)
