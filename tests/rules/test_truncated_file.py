# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from dataclasses import replace

from tests.builders import MiB
from tests.rules.cases import COMPRESSED, DUMP, PAGE_OFFSET, clean, findings, outcome
from vmcheck.findings import Finding, Severity
from vmcheck.header import Segment, Segments
from vmcheck.ranges import EMPTY, RangeSet
from vmcheck.rules.segment_addresses import START_KERNEL_MAP

RULE = "truncated-file"
TWO = [
    Segment(4096, PAGE_OFFSET, 0, 8 * MiB, 8 * MiB),
    Segment(4096 + 8 * MiB, PAGE_OFFSET + 16 * MiB, 16 * MiB, 8 * MiB, 8 * MiB),
]
WHOLE = replace(DUMP, segments=Segments.of(TWO), expected_size=4096 + 16 * MiB, file_size=4096 + 16 * MiB)


def truncated(ranges: RangeSet, has: int, wants: int) -> Finding:
    return Finding(
        Severity.LOST,
        "the file is truncated",
        ranges=ranges,
        evidence=(f"the file has {has} bytes; its headers point at {wants}, {wants - has} more",),
    )


def test_the_pages_behind_the_end_are_lost() -> None:
    size = 4096 + 12 * MiB
    assert findings(RULE, replace(WHOLE, file_size=size)) == [
        truncated(RangeSet([(20 * MiB, 24 * MiB)]), size, WHOLE.expected_size)
    ]


def test_text_that_is_stored_a_second_time_before_the_end_is_not_lost() -> None:
    text = Segment(4096 + 16 * MiB, START_KERNEL_MAP, 2 * MiB, 1 * MiB, 1 * MiB)
    size = 4096 + 16 * MiB
    dump = replace(WHOLE, segments=Segments.of([*TWO, text]), file_size=size, expected_size=size + 1 * MiB)
    assert findings(RULE, dump) == [truncated(EMPTY, size, size + 1 * MiB)]


def test_a_compressed_dump_cannot_tell_which_pages() -> None:
    assert findings(RULE, replace(COMPRESSED, file_size=100, expected_size=150)) == [
        truncated(EMPTY, 100, 150)
    ]


def test_a_segment_without_a_physical_address_loses_no_memory() -> None:
    """/proc/kcore says p_paddr = -1 of what is only virtual."""
    virtual = Segment(4096 + 16 * MiB, 0xFFFFC90000000000, 2**64 - 1, 1 * MiB, 1 * MiB)
    size = 4096 + 16 * MiB
    dump = replace(WHOLE, segments=Segments.of([*TWO, virtual]), file_size=size, expected_size=size + 1 * MiB)
    assert findings(RULE, dump) == [truncated(EMPTY, size, size + 1 * MiB)]


def test_a_file_as_long_as_its_headers_say_is_clean() -> None:
    assert outcome(RULE, WHOLE) == clean(RULE)


def test_a_longer_file_is_clean() -> None:
    assert outcome(RULE, replace(WHOLE, file_size=WHOLE.file_size + 512)) == clean(RULE)
