# SPDX-License-Identifier: LGPL-2.1-or-later
"""One line for each section of a report, for a reader who wants to know whether to read it.

An empty line: the section has nothing to say.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from vmcheck.check import Report
from vmcheck.facts.diagnosis import Diagnosis, Use
from vmcheck.facts.findings import State
from vmcheck.facts.topology import Unknown
from vmcheck.report import words
from vmcheck.report.memory import Fate, Memory, excluded_by_design, memory
from vmcheck.report.nodes import Nodes, several_nodes


@dataclass(frozen=True)
class View:
    """A report, and what several sections need of it."""

    report: Report
    kept: Memory
    nodes: Nodes
    diagnosis: Diagnosis | None

    @classmethod
    def of(cls, report: Report) -> View:
        return cls(report, memory(report), several_nodes(report), words.diagnosed(report))


DOES = {
    Use.FAILS: ("fails", "fail"),
    Use.MISLEADS: ("misleads", "mislead"),
    Use.PARTIAL: ("works in part", "work in part"),
    Use.SAFE: ("is safe", "are safe"),
}
"""Of one command, and of several."""


def why(view: View) -> str:
    """The names for ``vmcheck explain``."""
    if view.diagnosis is None:
        return ""
    conclusions = (*view.diagnosis.causes, view.diagnosis.regime)
    return ", ".join(words.named(conclusion) for conclusion in conclusions)


def when(view: View) -> str:
    if view.diagnosis is None or view.diagnosis.timeline is None:
        return ""
    timeline = view.diagnosis.timeline
    last, clock = timeline.events[-1], words.clocks(timeline)[-1:]
    times = ", ".join(filter(None, [words.moment(last), *clock]))
    return f"{words.count(len(timeline.events), 'event')}; {last.text}: {times}"


def cost(view: View) -> str:
    """How many of crash's and drgn's commands do what."""
    impact = view.diagnosis.impact if view.diagnosis else None
    if impact is None or not impact.effects:
        return ""
    numbers = Counter(effect.use for effect in impact.effects)
    commands = [f"{numbers[use]} {verbs[numbers[use] > 1]}" for use, verbs in DOES.items() if numbers[use]]
    return f"of {len(impact.effects)} commands of crash and drgn, {', '.join(commands)}"


def remedy(view: View) -> str:
    if view.diagnosis is None:
        return ""
    parts = [
        f"{words.count(len(steps), 'step')} for {which} dump"
        for steps, which in ((view.diagnosis.next_dump, "the next"), (view.diagnosis.this_dump, "this"))
        if steps
    ]
    return ", ".join(parts) + (", with their commands" if parts else "")


def records(view: View) -> str:
    compared = view.diagnosis.witnesses if view.diagnosis else ()
    return "; ".join(f"{each.witness} {words.AGREES[each.agrees]}" for each in compared)


def excluded(view: View) -> str:
    parts = sorted(excluded_by_design(view.report), key=lambda part: -part.ranges.size)
    return ", ".join(f"{words.size(part.ranges.size)} {part.reason}" for part in parts)


def dump(view: View) -> str:
    header, kept = view.report.header, view.kept
    parts = [words.file_name(header), words.size(header.file_size), header.format.value]
    amounts = f"{words.size(header.described.size)} described"
    if not header.forecast:
        amounts += f", {words.size(kept.size(Fate.STORED))} stored"
    return ", ".join([*parts, amounts])


def pages(view: View) -> str:
    return "; ".join(fact.value for fact in words.body_facts(view.report)[:1])


def kernel(view: View) -> str:
    topology = view.report.topology
    parts = [] if isinstance(topology.release, Unknown) else [topology.release]
    if not isinstance(topology.online_cpus, Unknown):
        parts.append(f"{words.listed_cpus(sorted(topology.online_cpus))} online")
    accounts = list(words.accounts(topology))
    whole = sum(account.complete for account in accounts)
    parts.append(f"{whole} of {words.count(len(accounts), 'memory account')} read whole")
    return ", ".join(parts)


def rules(view: View) -> str:
    numbers = {state: len(view.report.outcomes_in(state)) for state in State}
    return ", ".join(f"{number} {state.value}" for state, number in numbers.items() if number)


def unlooked(view: View) -> str:
    """The first reason: the others often follow from it."""
    skipped = view.report.outcomes_in(State.SKIPPED)
    reasons = words.unlooked(view.report)
    number = f"{words.count(len(skipped), 'rule')} skipped: " if skipped else ""
    return f"{number}{reasons[0].value}" if reasons else ""
