# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from dataclasses import replace

from tests.builders import GiB
from tests.rules.cases import DUMP, KERNEL, clean, cut_short, kernel, outcome
from vmcheck.facts.findings import Finding, Severity, State
from vmcheck.facts.ranges import RangeSet
from vmcheck.facts.topology import Resources, Sections, Topology, Unknown

RULE = "undescribed-undated-ram"
ADDED = RangeSet([(4 * GiB, 5 * GiB)])


def undated(topology: Topology) -> Topology:
    """As /proc and /sys show it."""
    return replace(topology, sections=Unknown("/proc and /sys do not show it"))


def test_memory_of_unknown_age_is_lost_all_the_same() -> None:
    assert outcome(RULE, DUMP, undated(kernel(hot_added=ADDED))).findings == (
        Finding(
            Severity.LOST,
            "memory is in no part of the dump; nothing tells whether it was there at boot",
            ranges=ADDED,
            evidence=(
                "online System RAM by iomem_resource, and nothing describes it",
                "/proc and /sys do not show it",
            ),
        ),
    )


def test_a_kernel_without_the_early_flag_has_memory_of_unknown_age() -> None:
    """Before v5.3 there is no SECTION_IS_EARLY."""
    old = kernel(hot_added=ADDED)
    assert isinstance(old.sections, Sections)
    old = replace(old, sections=replace(old.sections, early=Unknown("no section has SECTION_IS_EARLY")))
    assert [finding.ranges for finding in outcome(RULE, DUMP, old).findings] == [ADDED]


def test_a_header_that_describes_it_all_is_clean() -> None:
    assert outcome(RULE, DUMP, undated(KERNEL)) == clean(RULE)


def test_an_account_that_may_be_outdated_does_not_prove_that_nothing_is_missing() -> None:
    assert isinstance(KERNEL.resources, Resources)
    topology = replace(undated(KERNEL), resources=cut_short(KERNEL.resources))
    assert outcome(RULE, DUMP, topology).state is State.SKIPPED


def test_a_kernel_that_tells_the_age_of_its_memory_is_asked_by_the_other_rules() -> None:
    assert outcome(RULE, DUMP, kernel(hot_added=ADDED)).state is State.INAPPLICABLE
