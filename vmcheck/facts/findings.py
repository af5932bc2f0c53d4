# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a rule answers."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from vmcheck.facts.ranges import EMPTY, RangeSet


class Severity(str, enum.Enum):
    """How bad a finding is, worst first."""

    LOST = "lost"
    """Memory or registers that the kernel had are missing from the dump."""
    WRONG = "wrong"
    """The dump says something untrue, or tools will misread it."""
    NOTICE = "notice"
    """Worth knowing; it takes nothing from the dump."""


INTEGRITY = (
    *("changed-while-read", "split-part-missing", "incomplete-flag", "truncated-file", "capture-interrupted"),
    *("damaged-pages", "contradicting-vmcoreinfo", "disagreeing-accounts", "bad-notes"),
)
"""Rules of a dump that is itself broken, the root first: no other answer is certain then."""


@dataclass(frozen=True)
class Finding:
    """One loss or one lie."""

    severity: Severity
    summary: str
    """One sentence without a full stop. Ranges and CPUs are listed apart."""
    ranges: RangeSet = EMPTY
    cpus: tuple[int, ...] = ()
    evidence: tuple[str, ...] = ()
    """What it rests on: the fields and structures compared, with what they held."""
    recoverable: bool = False
    """What the headers lack is still in the dump's memory."""


class State(str, enum.Enum):
    FOUND = "found"
    CLEAN = "clean"
    SKIPPED = "skipped"
    """Could not tell. Never the same as clean."""
    INAPPLICABLE = "inapplicable"
    """The question does not arise for this dump."""


@dataclass(frozen=True)
class Outcome:
    """One rule's answer."""

    rule: str
    state: State
    findings: tuple[Finding, ...] = ()
    why: str = ""
    """For skipped and inapplicable: the reason."""
