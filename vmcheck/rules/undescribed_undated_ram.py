# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.topology import NotKnown, Unknown, known
from vmcheck.rules import Inapplicable, rule


@rule
def undescribed_undated_ram(case: Case) -> Iterator[Finding]:
    """System RAM that the headers do not describe; when it was added is unknown.

    What it means: as undescribed-ram, but nothing shows whether the memory was there at boot. /proc
    and /sys show which memory there is, not since when.

    Why it matters: its pages were never read, so they cannot be recovered.

    What to do: as for undescribed-ram. The kernel log shows whether memory was added, if it is there.

    How it is decided: mem_section of the crashed kernel cannot be read, so a record of the same boot
    (``vmcheck check --topology``) or iomem_resource says which memory the kernel had.
    """
    sections = case.topology.sections
    early = sections if isinstance(sections, Unknown) else sections.early
    if not isinstance(early, Unknown):
        raise Inapplicable("mem_section says which memory was there at boot")
    ram = known(case.topology.resources)
    if lost := case.undescribed:
        yield Finding(
            Severity.LOST,
            f"memory {'would be' if case.forecast else 'is'} in no part of "
            f"{'a' if case.forecast else 'the'} dump; nothing tells whether it was there at boot",
            ranges=lost,
            evidence=(
                f"online System RAM by {ram.account.structure}, and nothing describes it",
                early.why,
                *ram.account.unread,
            ),
        )
    elif not ram.account.complete:
        raise NotKnown(ram.account.unread[0])
    elif case.topology.disputed - case.covered:
        raise NotKnown("mem_section has memory online where iomem_resource has none")
