# SPDX-License-Identifier: LGPL-2.1-or-later
"""The report as one self-contained HTML page: no script and no request."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

import vmcheck
from vmcheck.check import Report
from vmcheck.facts.diagnosis import Diagnosis
from vmcheck.facts.exclusions import Exclusion
from vmcheck.facts.findings import State
from vmcheck.facts.ranges import RangeSet
from vmcheck.facts.topology import Loss, PageKind, Task, Tasks, Unknown
from vmcheck.report import words
from vmcheck.report.cpus import Registers, registers
from vmcheck.report.memory import GRAVE, Fate, Memory, bytes_below, excluded_by_design, memory
from vmcheck.report.memory_map import DESCRIBED, Fold, Mark, by_kind, memory_map
from vmcheck.report.nodes import Nodes, by_node, several_nodes
from vmcheck.report.templates import environment
from vmcheck.rules import rules

EXTENTS_SHOWN = 1500
"""Rows of the table under the map; JSON has all that is missing."""

TASKS_SHOWN = 500
"""JSON has them all."""

CPUS_SHOWN = 4096
CPUS_NUMBERED = 128
"""Up to this many CPUs, a square is large enough for its number."""

CPUS_IN_A_ROW = 64


class Extent(NamedTuple):
    """A row of the table under the map."""

    start: int
    end: int
    kind: str
    fate: str
    """What became of it."""


class Cpu(NamedTuple):
    number: int
    state: Registers


def page(report: Report) -> str:
    kept = memory(report)
    nodes = several_nodes(report)
    extents = _extents(kept, report, nodes)
    cpus = registers(report)
    diagnosis = words.diagnosed(report)
    made = environment()
    made.tests["fold"] = lambda row: isinstance(row, Fold)
    return made.get_template("report.html.j2").render(
        report=report,
        release=None if isinstance(report.topology.release, Unknown) else report.topology.release,
        crashed=words.crash_time(report.header),
        words=words,
        version=vmcheck.__version__,
        kept=kept,
        map=memory_map(kept, nodes, report.topology.blocks),
        nodes=nodes,
        by_node=by_node(report) if nodes else [],
        anchors=_anchors(extents),
        extents=extents,
        extents_hidden=sum(map(len, by_kind(kept).values())) - len(extents),
        cpus_by_state=[(state, [n for n, each in cpus.items() if each is state]) for state in Registers],
        cpu_rows=list(_cpu_rows([Cpu(*cpu) for cpu in cpus.items()])),
        cpus_numbered=len(cpus) <= CPUS_NUMBERED,
        findings=report.named_findings,
        diagnosis=diagnosis,
        short=words.in_short(diagnosis) if diagnosis else [],
        lost_pages=_lost_pages(report, diagnosis),
        lost_tasks=_lost_tasks(diagnosis),
        newline=Markup("\n"),
        rules=rules(),
        excluded=excluded_by_design(report),
        states=State,
        fates=Fate,
    )


def _extents(kept: Memory, report: Report, nodes: Nodes) -> list[Extent]:
    """By address; where there are too many, missing and phantom memory first."""
    kinds = by_kind(kept)
    grave = _starts(kinds, [fate.value for fate in GRAVE])[:EXTENTS_SHOWN]
    other = _starts(kinds, [kind for kind in kinds if kind not in GRAVE])[: EXTENTS_SHOWN - len(grave)]
    shown = sorted(grave + other)
    described = np.array([(start, end) for start, end, kind in shown if kind == DESCRIBED]).reshape(-1, 2)
    amounts = {
        fate: iter(np.diff(bytes_below(kept.fates[fate], described.ravel()).reshape(-1, 2)).ravel().tolist())
        for fate in (Fate.STORED, Fate.FILTERED)
    }
    reasons = excluded_by_design(report)
    return [
        Extent(
            start,
            end,
            kind,
            ", ".join(
                [_fate(start, kind, amounts, reasons), *words.on_nodes(RangeSet([(start, end)]), nodes)]
            ),
        )
        for start, end, kind in shown
    ]


def _starts(kinds: Mapping[str, RangeSet], wanted: Iterable[str]) -> list[tuple[int, int, str]]:
    return sorted(
        (start, end, kind) for kind in wanted for start, end in itertools.islice(kinds[kind], EXTENTS_SHOWN)
    )


def _fate(start: int, kind: str, amounts: Mapping[Fate, Iterator[int]], reasons: Sequence[Exclusion]) -> str:
    if kind == DESCRIBED:
        parts = {fate: next(each) for fate, each in amounts.items()}
        return ", ".join(
            f"{words.size(amount)} {words.FATE[fate]}" for fate, amount in parts.items() if amount
        )
    why = [reason.reason for reason in reasons if kind == Fate.EXCLUDED.value and start in reason.ranges]
    return ": ".join([words.KIND[kind], *why[:1]])


def _anchors(extents: Sequence[Extent]) -> Callable[[Mark], str]:
    """The row of the table where a mark begins, or the table if that row is not shown."""
    rows = sorted((extent.kind, extent.end, number) for number, extent in enumerate(extents))

    def anchor(mark: Mark) -> str:
        # A mark may begin inside an extent, where a line of the map does.
        at = bisect.bisect_right(rows, (mark.kind, mark.start, len(rows)))
        if at < len(rows) and rows[at][0] == mark.kind and extents[rows[at][2]].start < mark.ranges.end:
            return f"r{rows[at][2]}"
        return "ranges"

    return anchor


class PagesOfKind(NamedTuple):
    """A row of the table of what the missing pages were."""

    kind: str
    size: int
    """Bytes; for a sample, of the pages that it represents."""
    share: float
    where: str
    """Nodes and zones."""


def _lost_pages(report: Report, diagnosis: Diagnosis | None) -> list[PagesOfKind]:
    """Most pages first."""
    loss = diagnosis.impact.loss if diagnosis and diagnosis.impact else None
    if not isinstance(loss, Loss) or isinstance(loss.pages, Unknown) or not loss.pages.looked_at:
        return []
    pages, rows = loss.pages, []
    for kind in PageKind:
        if share := pages.share(kind):
            zones = {(each.node, each.zone) for each in pages.counts if each.kind is kind and each.zone}
            places = [f"node {node} {zone}" for node, zone in sorted(zones, key=str)]
            size = round(share * pages.pages) * report.header.page_size
            rows.append(PagesOfKind(kind.value, size, share, ", ".join(places)))
    return sorted(rows, key=lambda row: -row.share)


def _lost_tasks(diagnosis: Diagnosis | None) -> tuple[Task, ...]:
    tasks = diagnosis.impact.tasks if diagnosis and diagnosis.impact else None
    return tasks.lost[:TASKS_SHOWN] if isinstance(tasks, Tasks) else ()


def _cpu_rows(cpus: list[Cpu]) -> Iterator[list[Cpu]]:
    if len(cpus) > CPUS_SHOWN:
        return
    for _, row in itertools.groupby(cpus, key=lambda cpu: cpu.number // CPUS_IN_A_ROW):
        yield list(row)
