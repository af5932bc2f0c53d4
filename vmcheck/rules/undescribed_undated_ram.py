# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.expected import undescribed_ram as undescribed
from vmcheck.findings import Finding, Severity
from vmcheck.rules import Case, Inapplicable, rule
from vmcheck.topology import NotKnown, Unknown, known


@rule
def undescribed_undated_ram(case: Case) -> Iterator[Finding]:
    """System RAM that the headers do not describe, of which nothing tells when it came.

    /proc and /sys show memory and not its age. So where mem_section of the crashed kernel
    cannot be read and a witness of its boot stands in (vmcheck check --topology), what is
    missing can be told, but not whether it was hot-added. It cannot be recovered either way.
    """
    if not isinstance(case.topology.sections, Unknown):
        raise Inapplicable("mem_section tells which memory was there at boot")
    ram = known(case.topology.resources)
    if lost := undescribed(case.header, case.topology):
        yield Finding(
            Severity.LOST,
            f"memory {'would be' if case.forecast else 'is'} in no part of "
            f"{'a' if case.forecast else 'the'} dump; nothing tells whether it was there at boot",
            ranges=lost,
            evidence=(
                f"online System RAM by {ram.account.structure}, and nothing describes it",
                *ram.account.unread,
            ),
        )
    elif not ram.account.complete:
        raise NotKnown(ram.account.unread[0])
