# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from dataclasses import replace

from tests.builders import MiB
from tests.rules.cases import COMPRESSED, DUMP, KERNEL
from vmcheck.facts.body import Body
from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity, State
from vmcheck.facts.ranges import RangeSet
from vmcheck.rules import rules

RULE = rules()["capture-interrupted"]
NEVER = RangeSet([(MiB, 2 * MiB)])


def test_pages_that_were_never_written_are_missing() -> None:
    body = Body(pages=1000, never_written=NEVER)
    assert RULE.outcome(Case(COMPRESSED, KERNEL, body)).findings == (
        Finding(
            Severity.LOST,
            "the capture was interrupted: the last 256 pages of 1,000 were never written",
            ranges=NEVER,
            evidence=("their page_descs are empty, up to the end of the table",),
        ),
    )


def test_a_distilled_dump_says_that_more_may_have_been_missing() -> None:
    body = Body(pages=1000, never_written=NEVER, distilled=True)
    (finding,) = RULE.outcome(Case(COMPRESSED, KERNEL, body)).findings
    assert finding.evidence[1:] == ("the dump is distilled: fewer pages may have been missing",)


def test_a_table_that_is_whole_is_clean() -> None:
    assert RULE.outcome(Case(COMPRESSED, KERNEL, Body(pages=1000))).state is State.CLEAN


def test_pages_that_were_not_looked_at_are_skipped() -> None:
    assert RULE.outcome(Case(COMPRESSED, KERNEL)).state is State.SKIPPED


def test_an_elf_dump_has_no_table() -> None:
    assert RULE.outcome(Case(replace(DUMP, incomplete=True), KERNEL, Body())).state is State.INAPPLICABLE
