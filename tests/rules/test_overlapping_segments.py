# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from dataclasses import replace

from tests.builders import MiB
from tests.rules.cases import COMPRESSED, DUMP, PAGE_OFFSET, clean, findings, inapplicable, outcome
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.header import DumpHeader, Segment, Segments
from vmcheck.facts.machine import named
from vmcheck.facts.ranges import RangeSet

IMAGE_BASE = named("x86_64").image_base or 0


RULE = "overlapping-segments"


def with_segments(*segments: tuple[int, int, int]) -> DumpHeader:
    """PT_LOADs of (p_vaddr - p_paddr, start, end)."""
    return replace(
        DUMP,
        segments=Segments.of(
            Segment(4096, (offset + start) % 2**64, start, end - start, end - start)
            for offset, start, end in segments
        ),
    )


TWO = [(PAGE_OFFSET, 1 * MiB, 8 * MiB), (PAGE_OFFSET, 16 * MiB, 64 * MiB)]
TEXT = (IMAGE_BASE, 32 * MiB, 48 * MiB)


def overlap(ranges: RangeSet, *evidence: str) -> Finding:
    return Finding(
        Severity.WRONG,
        "PT_LOAD segments overlap beside the kernel text's",
        ranges=ranges,
        evidence=evidence,
    )


def test_two_segments_over_the_same_memory_are_wrong() -> None:
    assert findings(RULE, with_segments(*TWO, (PAGE_OFFSET, 4 * MiB, 20 * MiB))) == [
        overlap(RangeSet([(4 * MiB, 8 * MiB), (16 * MiB, 20 * MiB)]), "2 of 3 segments begin inside another")
    ]


def test_a_segment_inside_another_is_wrong() -> None:
    assert findings(RULE, with_segments(*TWO, TEXT, (PAGE_OFFSET, 2 * MiB, 3 * MiB))) == [
        overlap(
            RangeSet([(2 * MiB, 3 * MiB)]),
            "1 of 4 segments begin inside another",
            "the kernel image's 0x1000000 bytes are not counted",
        )
    ]


def test_the_kernels_text_is_there_twice_on_purpose() -> None:
    assert outcome(RULE, with_segments(*TWO, TEXT)) == clean(RULE)


def test_segments_that_touch_do_not_overlap() -> None:
    assert outcome(RULE, with_segments(*TWO, (PAGE_OFFSET, 8 * MiB, 16 * MiB))) == clean(RULE)


def test_a_segment_without_a_physical_address_overlaps_nothing() -> None:
    """/proc/kcore says p_paddr = -1 of what is only virtual."""
    assert outcome(RULE, with_segments(*TWO, (0, 2**64 - 1, 2**64 + 4095))) == clean(RULE)


def test_empty_segments_overlap_nothing() -> None:
    assert outcome(RULE, with_segments(*TWO, (PAGE_OFFSET, 2 * MiB, 2 * MiB))) == clean(RULE)


def test_a_compressed_dump_has_no_segments() -> None:
    assert outcome(RULE, COMPRESSED) == inapplicable(RULE, "a kdump-compressed file has no program headers")
