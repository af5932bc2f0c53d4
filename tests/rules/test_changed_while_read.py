# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from tests.rules.cases import DUMP, KERNEL
from vmcheck.facts.body import Body
from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity, State
from vmcheck.rules import rules

RULE = rules()["changed-while-read"]


def test_a_file_that_changed_is_told() -> None:
    assert RULE.outcome(Case(DUMP, KERNEL, Body(changed="it was written to"))).findings == (
        Finding(
            Severity.WRONG,
            "the file changed while it was checked: it is still being written",
            evidence=("it was written to",),
        ),
    )


def test_a_file_that_did_not_change_is_clean() -> None:
    assert RULE.outcome(Case(DUMP, KERNEL, Body())).state is State.CLEAN
