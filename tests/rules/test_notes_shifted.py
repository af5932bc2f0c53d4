# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from dataclasses import replace

from tests.rules.cases import DUMP, KERNEL, UNREAD, clean, findings, notes, outcome, saved, skipped
from vmcheck.facts.findings import Finding, Severity

RULE = "notes-shifted"
FOUR_CPUS = replace(KERNEL, saved_notes=saved(0, 1, 2, 3))


def test_a_cpu_absent_in_the_middle_shifts_the_later_ones() -> None:
    assert findings(RULE, replace(DUMP, cpu_notes=notes(0, 2, 3)), FOUR_CPUS) == [
        Finding(
            Severity.WRONG,
            "crash will show registers of the wrong CPU: it assigns notes in order, and one is absent",
            cpus=(1, 2),
            evidence=(
                "crash shows CPU 2's registers as CPU 1's",
                "crash shows CPU 3's registers as CPU 2's",
            ),
        )
    ]


def test_a_cpu_absent_at_the_end_shifts_nothing() -> None:
    assert outcome(RULE, replace(DUMP, cpu_notes=notes(0, 1, 2)), FOUR_CPUS) == clean(RULE)


def test_a_stray_note_in_the_middle_shifts_the_later_ones() -> None:
    (finding,) = findings(RULE, replace(DUMP, cpu_notes=notes(0, 7, 1)), FOUR_CPUS)
    assert finding.evidence == ("crash shows CPU 1's registers as CPU 2's",)


def test_a_hundred_shifted_cpus_are_told_by_eight() -> None:
    kernel = replace(KERNEL, saved_notes=saved(*range(101)))
    (finding,) = findings(RULE, replace(DUMP, cpu_notes=notes(*range(1, 101))), kernel)
    assert (finding.cpus, len(finding.evidence)) == (tuple(range(100)), 8)


def test_notes_in_order_are_clean() -> None:
    assert outcome(RULE) == clean(RULE)


def test_unread_crash_notes_are_skipped() -> None:
    assert outcome(RULE, DUMP, replace(KERNEL, saved_notes=UNREAD)) == skipped(RULE, "crash_notes: lost")
