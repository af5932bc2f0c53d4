# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from dataclasses import replace

from tests.builders import MiB
from tests.rules.cases import DUMP, clean, findings, outcome
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.ranges import EMPTY, RangeSet

RULE = "truncated-file"


def truncated(ranges: RangeSet, has: int, wants: int) -> Finding:
    return Finding(
        Severity.LOST,
        "the file is truncated",
        ranges=ranges,
        evidence=(f"the file has {has} bytes; its headers point at {wants}, {wants - has} more",),
    )


def test_the_pages_behind_the_end_are_lost() -> None:
    gone = RangeSet([(20 * MiB, 24 * MiB)])
    dump = replace(DUMP, file_size=12 * MiB, expected_size=16 * MiB, cut=gone)
    assert findings(RULE, dump) == [truncated(gone, 12 * MiB, 16 * MiB)]


def test_a_file_that_lacks_nothing_but_its_end_mark_is_truncated_too() -> None:
    assert findings(RULE, replace(DUMP, file_size=100, expected_size=116)) == [truncated(EMPTY, 100, 116)]


def test_a_file_as_long_as_its_headers_say_is_clean() -> None:
    assert outcome(RULE, DUMP) == clean(RULE)
