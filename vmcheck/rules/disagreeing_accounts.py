# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.topology import known
from vmcheck.rules import rule


@rule
def disagreeing_accounts(case: Case) -> Iterator[Finding]:
    """The kernel's structures disagree about which memory was online.

    What it means: mem_section, the memory blocks and iomem_resource describe the same memory. They
    differ for a moment while memory is added or removed. At any other time one of them is damaged,
    or the dump lacks a part of it.

    Why it matters: what is missing in the dump depends on which of them is right.

    What to do: treat ranges in this report with care. Look in the kernel log for memory that was
    added or removed just before the crash.

    How it is decided: each structure is walked by itself, and the online memory of each is compared
    with the others'. Only walks that reached their end count as lacking memory.
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
            Severity.WRONG,
            "mem_section and the memory blocks have memory online where iomem_resource has no System RAM",
            ranges=extra,
            evidence=("two accounts against one: the resource tree in the dump is damaged or cut short",),
        )
