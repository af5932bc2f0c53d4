# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from dataclasses import replace

from tests.builders import GiB, MiB
from tests.rules.cases import (
    CRASH_KERNEL,
    DUMP,
    HEALTHY,
    KERNEL,
    RAM,
    UNREAD,
    clean,
    cut_short,
    dump,
    findings,
    kernel,
    outcome,
    resources,
    skipped,
)
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.ranges import RangeSet

RULE = "undescribed-boot-ram"
HOLE = RangeSet([(768 * MiB, 769 * MiB)])


def lost(ranges: RangeSet) -> Finding:
    return Finding(
        Severity.LOST,
        "memory that was there at boot is in no part of the dump",
        ranges=ranges,
        evidence=("its sections have SECTION_IS_EARLY: it was not hot-added",),
    )


def test_boot_memory_in_no_segment_is_lost() -> None:
    assert findings(RULE, dump(HEALTHY - HOLE)) == [lost(HOLE)]


def test_what_a_healthy_header_leaves_out_is_not_lost() -> None:
    assert outcome(RULE) == clean(RULE)


def test_offline_boot_memory_is_not_lost() -> None:
    section = RangeSet([(768 * MiB, 896 * MiB)])
    assert outcome(RULE, dump(HEALTHY - section), kernel(offline=section)) == clean(RULE)


def test_hot_added_memory_is_another_rules() -> None:
    assert outcome(RULE, DUMP, kernel(RAM, hot_added=RangeSet([(4 * GiB, 5 * GiB)]))) == clean(RULE)


def test_a_page_that_is_only_partly_ram_is_not_lost() -> None:
    ragged = kernel(RAM | RangeSet([(1 * GiB, 1 * GiB + 1024)]))
    assert outcome(RULE, DUMP, ragged) == clean(RULE)


def test_where_resources_were_lost_whole_sections_are_compared() -> None:
    section = RangeSet([(768 * MiB, 896 * MiB)])
    torn = replace(KERNEL, resources=UNREAD)
    assert findings(RULE, dump(HEALTHY - section), torn) == [lost(section)]
    assert outcome(RULE, dump(HEALTHY - HOLE), torn) == skipped(RULE, "crash_notes: lost")


def test_without_exclusions_lost_sections_cannot_be_told_from_the_crash_kernel() -> None:
    torn = replace(KERNEL, resources=UNREAD, excluded=UNREAD)
    wide = dump(RAM - RangeSet([(256 * MiB, 512 * MiB)]) - CRASH_KERNEL)
    assert outcome(RULE, wide, torn) == skipped(RULE, "crash_notes: lost")


def test_resources_that_were_cut_short_are_not_clean() -> None:
    partial = cut_short(resources(RAM))
    assert outcome(RULE, DUMP, replace(KERNEL, resources=partial)) == skipped(
        RULE, "iomem_resource could not be read to its end: the rest is lost"
    )


def test_unread_sections_are_skipped() -> None:
    assert outcome(RULE, DUMP, replace(KERNEL, sections=UNREAD)) == skipped(RULE, "crash_notes: lost")
