# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from dataclasses import replace

from tests.rules.cases import DUMP, KERNEL, clean, findings, inapplicable, outcome, skipped
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.topology import Unknown


def test_symbols_of_another_kernel_are_wrong() -> None:
    kernel = replace(KERNEL, symbols_build_id="1234")
    assert findings("build-id-mismatch", DUMP, kernel) == [
        Finding(
            Severity.WRONG,
            "the given symbols are of another kernel",
            evidence=("their build ID is 1234, the crashed kernel's is abcd",),
        )
    ]


def test_symbols_of_the_kernel_that_crashed_are_clean() -> None:
    kernel = replace(KERNEL, symbols_build_id="abcd")
    assert outcome("build-id-mismatch", DUMP, kernel) == clean("build-id-mismatch")


def test_a_kernel_without_a_build_id_is_skipped() -> None:
    kernel = replace(KERNEL, symbols_build_id="1234", build_id=Unknown("VMCOREINFO has no BUILD-ID"))
    assert outcome("build-id-mismatch", DUMP, kernel) == skipped(
        "build-id-mismatch", "VMCOREINFO has no BUILD-ID"
    )


def test_without_given_symbols_there_is_no_question() -> None:
    assert outcome("build-id-mismatch") == inapplicable(
        "build-id-mismatch", "no vmlinux or symbol file with a build ID was given"
    )
