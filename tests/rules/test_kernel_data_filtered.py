# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from dataclasses import replace

from tests.builders import MiB
from tests.rules.cases import COMPRESSED, DUMP, HEALTHY, KERNEL, clean, findings, outcome, skipped
from vmcheck.facts.body import Body
from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.ranges import RangeSet
from vmcheck.facts.topology import Fault, KernelData, KernelPart, SlabSample, Unknown
from vmcheck.rules import rules

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


def test_one_filtered_page_of_the_kernels_bss_is_lost() -> None:
    data = KernelData(
        (KernelPart("kernel bss", 1 * MiB, SLAB), KernelPart("kernel text", 1 * MiB, RangeSet()))
    )
    assert findings(RULE, FILTERED, replace(KERNEL, kernel_data=data)) == [
        Finding(
            Severity.LOST,
            SUMMARY,
            ranges=SLAB,
            evidence=("kernel bss: 4.0 KiB of 1.0 MiB are not stored",),
        )
    ]


def test_a_part_that_could_not_be_looked_for_is_skipped() -> None:
    kernel = replace(KERNEL, kernel_data=KernelData(unread=("no symbols name the kernel's text",)))
    assert outcome(RULE, FILTERED, kernel) == skipped(RULE, "no symbols name the kernel's text")


def test_of_a_distilled_dump_the_pages_that_it_lacks_say_nothing() -> None:
    kernel = replace(KERNEL, kernel_data=KernelData(unread=("a page table was not kept by distill",)))
    assert rules()[RULE].outcome(Case(FILTERED, kernel, Body(distilled=True))) == clean(RULE)


def test_a_page_that_makedumpfiles_elf_left_out_may_be_one_of_zeros() -> None:
    fault = Fault("crash_notes", 64 * MiB, "filtered: makedumpfile left it out")
    kernel = replace(KERNEL, faults=(fault,))
    why = "crash_notes: filtered: makedumpfile left it out; or it is a page of zeros"
    assert outcome(RULE, FILTERED, kernel) == skipped(RULE, why)
    compressed = replace(COMPRESSED, stored=FILTERED.stored)
    assert [finding.ranges for finding in findings(RULE, compressed, kernel)] == [SLAB]
