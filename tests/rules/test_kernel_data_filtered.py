# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from dataclasses import replace

from tests.builders import MiB
from tests.rules.cases import DUMP, HEALTHY, KERNEL, clean, findings, outcome, skipped
from vmcheck.findings import Finding, Severity
from vmcheck.ranges import RangeSet
from vmcheck.topology import Fault, SlabSample, Unknown

RULE = "kernel-data-filtered"
LEFT_OUT = RangeSet([(64 * MiB, 65 * MiB)])
FILTERED = replace(DUMP, stored=HEALTHY - LEFT_OUT)
SLAB = RangeSet([(64 * MiB, 64 * MiB + 4096)])
SUMMARY = "kernel data was filtered out: makedumpfile took pages of this kernel for something else"


def test_a_filtered_slab_page_is_lost() -> None:
    kernel = replace(KERNEL, filtered_slab=SlabSample(100, SLAB))
    assert findings(RULE, FILTERED, kernel) == [
        Finding(
            Severity.LOST,
            SUMMARY,
            ranges=SLAB,
            evidence=("of 100 filtered pages looked at, 1 head a slab",),
        )
    ]


def test_a_page_that_the_kernels_structures_are_on_is_lost() -> None:
    fault = Fault("iomem_resource", 64 * MiB + 0x1234, "filtered: makedumpfile left it out")
    kernel = replace(KERNEL, faults=(fault,), filtered_slab=Unknown("no struct pages"))
    assert findings(RULE, FILTERED, kernel) == [
        Finding(
            Severity.LOST,
            SUMMARY,
            ranges=RangeSet([(64 * MiB + 0x1000, 64 * MiB + 0x2000)]),
            evidence=("reading iomem_resource: filtered: makedumpfile left it out",),
        )
    ]


def test_ten_thousand_faults_are_told_by_eight() -> None:
    faults = tuple(Fault("memory blocks", 64 * MiB + n * 4096, "filtered") for n in range(256)) * 40
    (finding,) = findings(RULE, FILTERED, replace(KERNEL, faults=faults))
    assert (finding.ranges, len(finding.evidence)) == (LEFT_OUT, 9)
    assert finding.evidence[-1] == "and 10232 more"


def test_a_fault_in_memory_that_is_not_described_is_another_rules() -> None:
    kernel = replace(KERNEL, faults=(Fault("iomem_resource", 1 << 40, "not described by any PT_LOAD"),))
    assert outcome(RULE, FILTERED, kernel) == clean(RULE)


def test_free_pages_may_be_filtered() -> None:
    assert outcome(RULE, FILTERED, replace(KERNEL, filtered_slab=SlabSample(100, RangeSet()))) == clean(RULE)


def test_unread_struct_pages_are_skipped() -> None:
    kernel = replace(KERNEL, filtered_slab=Unknown("struct page: lost"))
    assert outcome(RULE, FILTERED, kernel) == skipped(RULE, "struct page: lost")
