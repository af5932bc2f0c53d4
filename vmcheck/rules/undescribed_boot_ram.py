# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.topology import NotKnown, known
from vmcheck.rules import rule


@rule
def undescribed_boot_ram(case: Case) -> Iterator[Finding]:
    """System RAM that was there at boot and that the headers do not describe.

    What it means: this is not memory hotplug. Usual causes are a limit on the number of ranges in
    elfcorehdr, memory of a driver that kexec-tools leaves out by policy, memory that was offline
    when the crash kernel was loaded, or a header that somebody edited.

    Why it matters: its pages were never read, so they cannot be recovered.

    What to do: follow the report's cause. If it names none, compare /proc/iomem with what
    ``kexec -d`` prints when it loads the crash kernel.

    How it is decided: the System RAM of the kernel's own structures is compared with the memory that
    the headers describe. Its sections have SECTION_IS_EARLY; before v5.3, they are in the firmware's
    memory map.
    """
    sections = known(case.topology.sections)
    if lost := case.undescribed & known(sections.early):
        yield Finding(
            Severity.LOST,
            f"memory that was there at boot {'would be' if case.forecast else 'is'} in no part of "
            f"{'a' if case.forecast else 'the'} dump",
            ranges=lost,
            evidence=(f"its sections {sections.early_by.early}: it was not hot-added",),
        )
    elif why := case.unseen:
        raise NotKnown(why)
