# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from dataclasses import replace

import pytest

from tests.rules.cases import DUMP, FROM_QEMU, clean, findings, outcome
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.header import DumpHeader

RULE = "missing-vmcoreinfo"


@pytest.mark.parametrize(
    ("dump", "cause"),
    [
        (DUMP, "elfcorehdr did not name it, or it was cut out"),
        (FROM_QEMU, "QEMU was run without -device vmcoreinfo"),
    ],
)
def test_a_dump_without_vmcoreinfo_is_wrong(dump: DumpHeader, cause: str) -> None:
    assert findings(RULE, replace(dump, vmcoreinfo_notes=())) == [
        Finding(Severity.WRONG, "there is no VMCOREINFO note", evidence=(cause,))
    ]


def test_a_dump_with_one_is_clean() -> None:
    assert outcome(RULE) == clean(RULE)
