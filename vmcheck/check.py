# SPDX-License-Identifier: LGPL-2.1-or-later
"""A Case and the rules -> one Report."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

from vmcheck.diagnosis.diagnose import diagnose
from vmcheck.facts.body import NOT_LOOKED_AT, Body
from vmcheck.facts.case import Case
from vmcheck.facts.diagnosis import Comparison, Diagnosis
from vmcheck.facts.findings import INTEGRITY, Finding, Outcome, Severity, State
from vmcheck.facts.header import DumpHeader
from vmcheck.facts.ranges import EMPTY, RangeSet
from vmcheck.facts.topology import Topology, Unknown
from vmcheck.rules import rules


class Verdict(str, enum.Enum):
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    """Something the kernel had is not in the dump."""
    MISLEADING = "misleading"
    """Nothing is known to be missing, but the dump says something untrue."""
    UNKNOWN = "could not tell"
    """Nothing is known to be wrong, and some rule was skipped."""


class ExitStatus(enum.IntEnum):
    """Of every command. 70 is a bug in vmcheck."""

    COMPLETE = 0
    FOUND = 1
    USAGE = 2
    UNREADABLE = 3
    COULD_NOT_TELL = 4


@dataclass(frozen=True)
class Report:
    """All that is known of one dump, for the renderers."""

    header: DumpHeader
    topology: Topology
    outcomes: tuple[Outcome, ...]
    diagnosis: Diagnosis | None = None
    """Why, at what cost, and what to do."""
    body: Body | Unknown = NOT_LOOKED_AT
    """What became of the pages that the headers promise."""

    @property
    def forecast(self) -> bool:
        """Of a kernel that has not crashed: what its dump would lack."""
        return self.header.forecast

    @property
    def named_findings(self) -> tuple[tuple[str, Finding], ...]:
        """(rule, finding), worst first; of one severity what is broken first, then the most memory."""
        order = list(Severity)
        found = [(outcome.rule, finding) for outcome in self.outcomes for finding in outcome.findings]

        def place(named: tuple[str, Finding]) -> tuple[int, int, int]:
            rule, finding = named
            root = INTEGRITY.index(rule) if rule in INTEGRITY else len(INTEGRITY)
            return order.index(finding.severity), root, -finding.ranges.size

        return tuple(sorted(found, key=place))

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(finding for _, finding in self.named_findings)

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity is severity)

    def outcomes_in(self, state: State) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.state is state)

    @property
    def broken(self) -> tuple[Finding, ...]:
        """Findings that say that the dump itself is broken, the root first."""
        found = {outcome.rule: outcome.findings for outcome in self.outcomes}
        return tuple(
            finding
            for rule in INTEGRITY
            for finding in found.get(rule, ())
            if finding.severity is not Severity.NOTICE
        )

    @cached_property
    def lost_memory(self) -> RangeSet:
        """What no header describes. Kernel data that was filtered out is a loss apart."""
        lost = reduce(RangeSet.__or__, (finding.ranges for finding in self.of(Severity.LOST)), EMPTY)
        return lost - self.header.described

    @property
    def lost_cpus(self) -> tuple[int, ...]:
        """CPUs that have no registers in the headers."""
        return tuple(sorted({cpu for finding in self.of(Severity.LOST) for cpu in finding.cpus}))

    @property
    def verdict(self) -> Verdict:
        if self.of(Severity.LOST):
            return Verdict.INCOMPLETE
        if self.of(Severity.WRONG):
            return Verdict.MISLEADING
        if self.outcomes_in(State.SKIPPED):
            return Verdict.UNKNOWN
        return Verdict.COMPLETE

    def exit_status(self, fail_on: Severity = Severity.WRONG) -> ExitStatus:
        """``fail_on`` is the mildest severity that counts as found."""
        order = list(Severity)
        if any(order.index(finding.severity) <= order.index(fail_on) for finding in self.findings):
            return ExitStatus.FOUND
        if self.outcomes_in(State.SKIPPED):
            return ExitStatus.COULD_NOT_TELL
        return ExitStatus.COMPLETE


def check(case: Case, witnesses: Sequence[Comparison] = ()) -> Report:
    """Every rule's answer. Pure: the same case gives the same report."""
    outcomes = tuple(rule.outcome(case) for rule in rules().values())
    return Report(case.header, case.topology, outcomes, diagnose(case, outcomes, tuple(witnesses)), case.body)
