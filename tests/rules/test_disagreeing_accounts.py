# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from dataclasses import replace

from tests.builders import GiB
from tests.rules.cases import (
    DUMP,
    KERNEL,
    RAM,
    UNREAD,
    blocks,
    clean,
    cut_short,
    findings,
    kernel,
    outcome,
    skipped,
)
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.ranges import RangeSet

RULE = "disagreeing-accounts"
DIMM = RangeSet([(4 * GiB, 5 * GiB)])
MORE = kernel(RAM, hot_added=DIMM)


def notice(summary: str) -> Finding:
    return Finding(Severity.NOTICE, summary, ranges=DIMM)


def test_sections_online_in_no_block_are_told() -> None:
    torn = replace(MORE, blocks=KERNEL.blocks)
    assert findings(RULE, DUMP, torn) == [
        notice("mem_section has memory online that the memory blocks has not")
    ]


def test_blocks_online_in_no_section_are_told() -> None:
    torn = replace(MORE, sections=KERNEL.sections)
    assert findings(RULE, DUMP, torn) == [
        notice("the memory blocks has memory online that mem_section has not")
    ]


def test_memory_online_in_no_resource_is_told() -> None:
    torn = replace(MORE, resources=KERNEL.resources)
    assert findings(RULE, DUMP, torn) == [
        Finding(
            Severity.WRONG,
            "mem_section and the memory blocks have memory online where iomem_resource has no System RAM",
            ranges=DIMM,
            evidence=("two accounts against one: the resource tree in the dump is damaged or cut short",),
        )
    ]


def test_an_account_that_was_cut_short_contradicts_nobody() -> None:
    partial = cut_short(blocks(RAM))
    assert outcome(RULE, DUMP, replace(MORE, blocks=partial)) == clean(RULE)


def test_an_unread_account_is_skipped() -> None:
    assert outcome(RULE, DUMP, replace(KERNEL, blocks=UNREAD)) == skipped(RULE, "crash_notes: lost")


def test_accounts_that_agree_are_clean() -> None:
    assert outcome(RULE, DUMP, kernel(RAM, DIMM, offline=DIMM)) == clean(RULE)
