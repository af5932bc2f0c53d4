# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.findings import Finding, Severity
from vmcheck.rules import Case, rule
from vmcheck.topology import known


@rule
def disagreeing_accounts(case: Case) -> Iterator[Finding]:
    """The kernel's structures disagree about which memory was online.

    mem_section, the memory blocks and iomem_resource are three accounts of the same memory.
    They differ for a moment while memory is being added or removed; otherwise one of them
    is damaged, or the dump lacks part of it.
    """
    sections, blocks = known(case.topology.sections), known(case.topology.blocks)
    resources = known(case.topology.resources)
    pairs = [
        ("mem_section", sections.account, "the memory blocks", blocks.account),
        ("the memory blocks", blocks.account, "mem_section", sections.account),
    ]
    for has, first, lacks, second in pairs:
        # A block may be larger than the memory in it.
        present = first.ram & resources.account.ram.aligned_outward(sections.size)
        if second.complete and (extra := present - second.ram):
            yield Finding(Severity.NOTICE, f"{has} has memory online that {lacks} has not", ranges=extra)
    if resources.account.complete and (
        extra := (sections.account.ram & blocks.account.ram)
        - resources.account.ram.aligned_outward(sections.size)
    ):
        yield Finding(
            Severity.NOTICE, "sections and blocks are online where no System RAM resource is", ranges=extra
        )
