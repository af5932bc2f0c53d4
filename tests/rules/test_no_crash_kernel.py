# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from dataclasses import replace

from tests.rules.cases import DUMP, KERNEL, findings, outcome
from vmcheck.facts.findings import Finding, Severity, State
from vmcheck.facts.header import Producer
from vmcheck.facts.topology import CrashImage

RULE = "no-crash-kernel"
LOADED = replace(DUMP, producer=Producer.LOADED)
IMAGE = CrashImage(((0x10000000, 16384, 4096),), False, None, None, None)


def test_a_kernel_without_a_crash_kernel_would_leave_no_dump() -> None:
    assert findings(RULE, LOADED, replace(KERNEL, crash_image=None, crash_reserved=1 << 28)) == [
        Finding(
            Severity.LOST,
            "no crash kernel is loaded: a crash now would leave no dump at all",
            evidence=(
                "256 MiB are reserved for one (kexec_crash_size)",
                "kexec_crash_image is NULL (kexec_crash_loaded is 0)",
            ),
        )
    ]


def test_a_kernel_without_a_reservation_is_several_nodes() -> None:
    [finding] = findings(RULE, LOADED, replace(KERNEL, crash_image=None, crash_reserved=0))
    assert finding.summary == (
        "no memory is reserved for a crash kernel: a crash now would leave no dump at all"
    )


def test_a_loaded_crash_kernel_is_clean() -> None:
    assert outcome(RULE, LOADED, replace(KERNEL, crash_image=IMAGE)).state is State.CLEAN


def test_a_dump_was_left_by_a_crash_kernel() -> None:
    assert outcome(RULE, DUMP, replace(KERNEL, crash_image=None)).state is State.INAPPLICABLE
