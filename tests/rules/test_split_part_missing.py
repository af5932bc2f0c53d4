# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from dataclasses import replace

from tests.builders import MiB
from tests.rules.cases import COMPRESSED, outcome
from vmcheck.facts.findings import Finding, Severity, State
from vmcheck.facts.ranges import RangeSet

RULE = "split-part-missing"
ABSENT = RangeSet([(MiB, 2 * MiB)])


def test_pages_in_parts_that_were_not_given_are_missing() -> None:
    assert outcome(RULE, replace(COMPRESSED, split=((0, 100),), absent_parts=ABSENT)).findings == (
        Finding(
            Severity.LOST,
            "a part of the split dump was not given: 1.0 MiB of pages are in it",
            ranges=ABSENT,
            evidence=("given: 1 part",),
        ),
    )


def test_all_parts_are_clean_and_a_dump_in_one_file_has_none() -> None:
    assert outcome(RULE, replace(COMPRESSED, split=((0, 100), (100, 200)))).state is State.CLEAN
    assert outcome(RULE, COMPRESSED).state is State.INAPPLICABLE
