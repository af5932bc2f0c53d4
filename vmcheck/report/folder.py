# SPDX-License-Identifier: LGPL-2.1-or-later
"""The dumps of one folder, compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from vmcheck.check import ExitStatus, Report, Verdict
from vmcheck.facts.findings import Severity
from vmcheck.report import words


@dataclass(frozen=True)
class Checked:
    """One dump and its report."""

    path: str
    """Below the folder that was given."""
    parts: tuple[str, ...]
    beside: tuple[str, ...]
    report: Report | None
    error: str = ""
    """Why there is no report."""

    def exit_status(self, fail_on: Severity = Severity.WRONG) -> ExitStatus:
        return ExitStatus.UNREADABLE if self.report is None else self.report.exit_status(fail_on)

    @property
    def verdict(self) -> Verdict | None:
        """None where the dump could not be read."""
        return None if self.report is None else self.report.verdict

    @property
    def facts(self) -> tuple[str, ...]:
        """Lines of a table about it."""
        facts = [self.error] if self.report is None else [words.answer(self.report).partition(": ")[2]]
        if self.report and (when := words.crash_time(self.report.header)):
            facts.append(f"crashed {when}")
        if len(self.parts) > 1:
            facts.append(f"in {len(self.parts)} parts: {', '.join(self.parts)}")
        if self.beside:
            facts.append(f"beside it: {', '.join(self.beside)}")
        return tuple(map(words.sentence, facts))


WORST_FIRST = (None, Verdict.INCOMPLETE, Verdict.MISLEADING, Verdict.UNKNOWN, Verdict.COMPLETE)
"""A dump that cannot be read is the worst."""

_STATUSES = (ExitStatus.UNREADABLE, ExitStatus.FOUND, ExitStatus.COULD_NOT_TELL, ExitStatus.COMPLETE)


def worst_first(entries: Sequence[Checked]) -> list[Checked]:
    """Those of one verdict by path."""
    return sorted(entries, key=lambda entry: (WORST_FIRST.index(entry.verdict), entry.path))


def worst_status(entries: Sequence[Checked], fail_on: Severity = Severity.WRONG) -> ExitStatus:
    return min((entry.exit_status(fail_on) for entry in entries), key=_STATUSES.index)


def tally(folder: str, entries: Sequence[Checked]) -> str:
    """``3 dumps in /var/crash: 1 INCOMPLETE, 2 COMPLETE``."""
    numbers = Counter(entry.verdict for entry in entries)
    counted = (f"{numbers[verdict]} {words.verdict(verdict)}" for verdict in WORST_FIRST if numbers[verdict])
    return f"{words.count(len(entries), 'dump')} in {folder}: {', '.join(counted)}"
