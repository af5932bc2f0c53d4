# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import GiB, MiB
from tests.rules.cases import (
    COMPRESSED,
    DUMP,
    HEALTHY,
    KERNEL,
    RAM,
    SECTION,
    UNREAD,
    clean,
    cut_short,
    dump,
    findings,
    kernel,
    outcome,
    resources,
    sections,
    skipped,
)
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.header import DumpHeader
from vmcheck.facts.ranges import EMPTY, RangeSet
from vmcheck.facts.topology import Sections

RULE = "undescribed-ram"
DIMM = RangeSet([(4 * GiB, 5 * GiB)])
GREW = kernel(RAM, hot_added=DIMM)


def lost(ranges: RangeSet, where: str = "PT_LOAD segment") -> Finding:
    return Finding(
        Severity.LOST,
        "hot-added memory is in no part of the dump: elfcorehdr was stale when the kernel crashed",
        ranges=ranges,
        evidence=(
            f"online System RAM to the kernel, and no {where} describes it",
            "its sections lack SECTION_IS_EARLY: it was added after boot",
        ),
    )


@pytest.mark.parametrize(
    ("header", "where"), [(DUMP, "PT_LOAD segment"), (COMPRESSED, "bit of the first bitmap")]
)
def test_memory_onlined_after_load_is_lost(header: DumpHeader, where: str) -> None:
    assert findings(RULE, header, GREW) == [lost(DIMM, where)]


def test_only_what_is_not_described_is_lost() -> None:
    first_half = RangeSet([(4 * GiB, 4 * GiB + 512 * MiB)])
    assert findings(RULE, dump(HEALTHY | first_half), GREW) == [lost(DIMM - first_half)]


def test_memory_added_and_never_onlined_is_no_loss() -> None:
    assert outcome(RULE, DUMP, kernel(RAM, hot_added=DIMM, offline=DIMM)) == clean(RULE)


def test_filtered_memory_is_not_missing() -> None:
    filtered = replace(dump(HEALTHY | DIMM), stored=EMPTY)
    assert outcome(RULE, filtered, GREW) == clean(RULE)


def test_memory_that_is_online_and_no_system_ram_is_not_clean() -> None:
    """One damaged pointer ends the resource tree early, and nothing in the tree says so."""
    cut = replace(GREW, resources=resources(RAM))
    assert outcome(RULE, DUMP, cut) == skipped(
        RULE, "mem_section has memory online where iomem_resource has none, and no header describes it"
    )


def test_memory_that_the_blocks_have_online_and_the_sections_have_not_is_missing() -> None:
    """Two accounts against one: the flags of mem_section may be others than we know."""
    assert isinstance(GREW.sections, Sections)
    shifted = replace(GREW, sections=sections(GREW.sections.present, RAM, RAM.aligned_outward(SECTION)))
    assert findings(RULE, DUMP, shifted) == [lost(DIMM)]


def test_where_resources_were_lost_whole_sections_are_compared() -> None:
    half_described = dump(HEALTHY | RangeSet([(4 * GiB, 4 * GiB + 64 * MiB)]))
    whole_sections = DIMM - RangeSet([(4 * GiB, 4 * GiB + 128 * MiB)])
    assert findings(RULE, half_described, replace(GREW, resources=UNREAD)) == [lost(whole_sections)]


def test_resources_that_were_cut_short_hide_nothing_that_sections_show() -> None:
    partial = cut_short(resources(RAM))
    assert findings(RULE, DUMP, replace(GREW, resources=partial)) == [lost(DIMM)]
    assert outcome(RULE, DUMP, replace(KERNEL, resources=partial)) == skipped(
        RULE, "iomem_resource could not be read to its end: the rest is lost"
    )


def test_sections_that_were_cut_short_are_not_clean() -> None:
    partial = cut_short(sections(RAM, RAM, RAM))
    assert outcome(RULE, DUMP, replace(KERNEL, sections=partial)) == skipped(
        RULE, "mem_section could not be read to its end: the rest is lost"
    )


def test_unread_sections_are_skipped() -> None:
    assert outcome(RULE, DUMP, replace(KERNEL, sections=UNREAD)) == skipped(RULE, "crash_notes: lost")


def test_a_healthy_dump_is_clean() -> None:
    assert outcome(RULE) == clean(RULE)
