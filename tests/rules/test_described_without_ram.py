# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from dataclasses import replace

from tests.builders import GiB, MiB
from tests.rules.cases import (
    DUMP,
    FROM_QEMU,
    HEALTHY,
    KERNEL,
    RAM,
    UNREAD,
    clean,
    cut_short,
    dump,
    findings,
    inapplicable,
    kernel,
    outcome,
    resources,
    sections,
    skipped,
)
from vmcheck.facts.findings import Finding, Severity, State
from vmcheck.facts.ranges import EMPTY, RangeSet

RULE = "described-without-ram"
REMOVED = RangeSet([(4 * GiB, 5 * GiB)])
STALE = dump(HEALTHY | REMOVED)


def phantom(ranges: RangeSet, *evidence: str) -> Finding:
    return Finding(
        Severity.WRONG,
        "memory is described that the kernel no longer had: it was removed after elfcorehdr was written",
        ranges=ranges,
        evidence=evidence,
    )


def test_memory_removed_after_the_load_is_a_phantom() -> None:
    assert findings(RULE, STALE) == [
        phantom(REMOVED, "no System RAM resource is there", "no section is present there")
    ]


def test_a_section_that_outlived_its_memory_is_told() -> None:
    being_removed = replace(kernel(RAM, hot_added=REMOVED, offline=REMOVED), resources=resources(RAM))
    assert findings(RULE, STALE, being_removed) == [
        phantom(REMOVED, "no System RAM resource is there", "a section is still present there")
    ]


def test_an_online_section_without_a_resource_is_no_proof_that_memory_was_removed() -> None:
    """A resource tree that one damaged pointer cuts short looks whole."""
    cut = replace(kernel(RAM, hot_added=REMOVED), resources=resources(RAM))
    assert outcome(RULE, STALE, cut) == skipped(
        RULE, "mem_section has memory online where iomem_resource has none"
    )


def test_sections_that_were_not_read_whole_prove_nothing_where_resources_were_not_either() -> None:
    blind = replace(
        KERNEL,
        resources=cut_short(resources(RangeSet([(0, 64 * MiB)]))),
        sections=cut_short(sections(EMPTY, EMPTY, EMPTY)),
    )
    assert outcome(RULE, STALE, blind).state is State.SKIPPED


def test_memory_that_is_offline_is_no_phantom() -> None:
    assert outcome(RULE, STALE, kernel(RAM, hot_added=REMOVED, offline=REMOVED)) == clean(RULE)


def test_a_range_that_only_touches_a_page_makes_no_phantom() -> None:
    ragged = kernel(RangeSet([(0, 1 * GiB - 1024)]))
    assert outcome(RULE, dump(HEALTHY - RangeSet([(1 * GiB - 512, GiB)])), ragged) == clean(RULE)


def test_where_resources_were_lost_an_absent_section_is_proof() -> None:
    half = cut_short(resources(RangeSet([(0, 64 * MiB)])))
    assert findings(RULE, STALE, replace(KERNEL, resources=half)) == [
        phantom(REMOVED, "no section is present there")
    ]


def test_where_resources_were_lost_nothing_is_clean() -> None:
    half = cut_short(resources(RAM))
    assert outcome(RULE, DUMP, replace(KERNEL, resources=half)) == skipped(
        RULE, "iomem_resource could not be read to its end: the rest is lost"
    )


def test_unread_sections_are_skipped() -> None:
    assert outcome(RULE, DUMP, replace(KERNEL, sections=UNREAD)) == skipped(RULE, "crash_notes: lost")


def test_a_hypervisor_describes_the_machine() -> None:
    assert outcome(RULE, FROM_QEMU) == inapplicable(
        RULE, "a hypervisor describes the machine's memory, not the kernel's System RAM"
    )


def test_a_healthy_dump_is_clean() -> None:
    assert outcome(RULE) == clean(RULE)
