# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from dataclasses import replace

from tests.rules.cases import DUMP, clean, findings, inapplicable, outcome
from vmcheck.facts.findings import Finding, Severity

RULE = "doubled-vmcoreinfo"


def test_two_that_differ_are_wrong() -> None:
    assert findings(RULE, replace(DUMP, vmcoreinfo_notes=(b"OSRELEASE=a", b"OSRELEASE=b"))) == [
        Finding(Severity.WRONG, "there are 2 VMCOREINFO notes, and they differ; the first was used")
    ]


def test_two_that_are_equal_are_worth_a_notice() -> None:
    assert findings(RULE, replace(DUMP, vmcoreinfo_notes=(b"OSRELEASE=a", b"OSRELEASE=a"))) == [
        Finding(Severity.NOTICE, "there are 2 VMCOREINFO notes, all the same")
    ]


def test_one_is_clean() -> None:
    assert outcome(RULE) == clean(RULE)


def test_none_is_another_rules_question() -> None:
    assert outcome(RULE, replace(DUMP, vmcoreinfo_notes=())) == inapplicable(RULE, "there is no VMCOREINFO")
