# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import MiB
from tests.rules.cases import COMPRESSED, DUMP, clean, findings, outcome
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.header import DumpHeader
from vmcheck.facts.ranges import RangeSet

RULE = "incomplete-flag"


@pytest.mark.parametrize(
    ("dump", "field"),
    [
        (DUMP, "DUMP_ELF_INCOMPLETE in e_flags"),
        (COMPRESSED, "DUMP_DH_COMPRESSED_INCOMPLETE in disk_dump_header.status"),
    ],
)
def test_a_dump_that_says_it_is_incomplete_has_lost_something(dump: DumpHeader, field: str) -> None:
    gone = RangeSet([(4 * MiB, 5 * MiB)])
    assert findings(RULE, replace(dump, incomplete=True, cut=gone)) == [
        Finding(
            Severity.LOST,
            "the dump is marked incomplete: makedumpfile ran out of space",
            ranges=gone,
            evidence=(f"{field} is set",),
        )
    ]


def test_a_dump_that_does_not_is_clean() -> None:
    assert outcome(RULE) == clean(RULE)
