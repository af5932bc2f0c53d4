# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from tests.builders import MiB
from tests.rules.cases import COMPRESSED, KERNEL
from vmcheck.facts.body import Body
from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity, State
from vmcheck.facts.ranges import RangeSet
from vmcheck.rules import rules

RULE = rules()["damaged-pages"]


def test_damaged_pages_are_missing() -> None:
    damaged = RangeSet([(MiB, MiB + 8192)])
    body = Body(pages=1000, damaged=damaged, defects=("page_desc 3 has a size of 0",))
    assert RULE.outcome(Case(COMPRESSED, KERNEL, body)).findings == (
        Finding(
            Severity.LOST,
            "the dump is damaged: 2 pages of 1,000 cannot be read",
            ranges=damaged,
            evidence=("page_desc 3 has a size of 0",),
        ),
    )


def test_a_table_that_contradicts_the_bitmap_is_damage() -> None:
    (finding,) = RULE.outcome(Case(COMPRESSED, KERNEL, Body(pages=9, defects=("8 page_descs",)))).findings
    assert finding.summary == "the dump is damaged: its table of pages contradicts its bitmap"


def test_pages_that_unpack_are_clean() -> None:
    assert RULE.outcome(Case(COMPRESSED, KERNEL, Body(pages=9, unpacked=9))).state is State.CLEAN
