# SPDX-License-Identifier: LGPL-2.1-or-later
"""The report as one self-contained HTML page: no script, no request, nothing beside it."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup

import vmcheck
from vmcheck.check import Report
from vmcheck.diagnosis import Diagnosis
from vmcheck.errors import plain
from vmcheck.exclusions import Exclusion
from vmcheck.findings import State
from vmcheck.ranges import RangeSet
from vmcheck.report import words
from vmcheck.report.cpus import Registers, registers
from vmcheck.report.memory import GRAVE, Fate, Memory, bytes_below, memory, rightly_absent
from vmcheck.report.memory_map import DESCRIBED, Fold, Mark, by_kind, memory_map
from vmcheck.report.nodes import Nodes, by_node, told_apart
from vmcheck.rules import rules
from vmcheck.topology import Loss, PageKind, Task, Tasks, Unknown

TEMPLATES = [
    str(Path(vmcheck.__file__).parent / "templates"),
    str(Path(vmcheck.__file__).parent.parent / "templates"),
]
"""Inside the installed package; beside it in a checkout."""

EXTENTS_SHOWN = 1500
"""Rows of the table under the map; JSON has all that is lost."""

TASKS_SHOWN = 500
"""JSON has them all."""

CPUS_SHOWN = 4096
CPUS_NUMBERED = 128
"""Up to so many, a CPU's square is large enough for its number."""

CPUS_IN_A_ROW = 64


class Extent(NamedTuple):
    """A row of the table under the map."""

    start: int
    end: int
    kind: str
    told: str


class Cpu(NamedTuple):
    number: int
    state: Registers


def page(report: Report) -> str:
    kept = memory(report)
    nodes = told_apart(report)
    extents = _extents(kept, report, nodes)
    cpus = registers(report)
    diagnosis = words.diagnosed(report)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
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
            absent=rightly_absent(report),
            states=State,
            fates=Fate,
        )
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["fold"] = lambda row: isinstance(row, Fold)
    environment.filters["paragraphs"] = lambda text: [
        " ".join(paragraph.split()) for paragraph in text.split("\n\n")
    ]
    return environment


def _visible(value: Any) -> Any:
    """Control characters shown, in everything that a template prints and that is not its own markup."""
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _extents(kept: Memory, report: Report, nodes: Nodes) -> list[Extent]:
    """By address; where there are too many, the losses and phantoms before all else."""
    kinds = by_kind(kept)
    grave = _starts(kinds, [fate.value for fate in GRAVE])[:EXTENTS_SHOWN]
    other = _starts(kinds, [kind for kind in kinds if kind not in GRAVE])[: EXTENTS_SHOWN - len(grave)]
    shown = sorted(grave + other)
    described = np.array([(start, end) for start, end, kind in shown if kind == DESCRIBED]).reshape(-1, 2)
    amounts = {
        fate: iter(np.diff(bytes_below(kept.fates[fate], described.ravel()).reshape(-1, 2)).ravel().tolist())
        for fate in (Fate.STORED, Fate.FILTERED)
    }
    reasons = rightly_absent(report)
    return [
        Extent(
            start,
            end,
            kind,
            ", ".join(
                [_told(start, kind, amounts, reasons), *words.on_nodes(RangeSet([(start, end)]), nodes)]
            ),
        )
        for start, end, kind in shown
    ]


def _starts(kinds: Mapping[str, RangeSet], wanted: Iterable[str]) -> list[tuple[int, int, str]]:
    return sorted(
        (start, end, kind) for kind in wanted for start, end in itertools.islice(kinds[kind], EXTENTS_SHOWN)
    )


def _told(start: int, kind: str, amounts: Mapping[Fate, Iterator[int]], reasons: Sequence[Exclusion]) -> str:
    if kind == DESCRIBED:
        parts = {fate: next(each) for fate, each in amounts.items()}
        return ", ".join(
            f"{words.size(amount)} {words.FATE[fate]}" for fate, amount in parts.items() if amount
        )
    why = [reason.reason for reason in reasons if kind == Fate.EXCLUDED.value and start in reason.ranges]
    return ": ".join([words.KIND[kind], *why[:1]])


def _anchors(extents: Sequence[Extent]) -> Callable[[Mark], str]:
    """The table's row that a mark begins in, or the table where that row was left out."""
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
    """Bytes; of a sample, what it stands for."""
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
            told = [f"node {node} {zone}" for node, zone in sorted(zones, key=str)]
            size = round(share * pages.pages) * report.header.page_size
            rows.append(PagesOfKind(kind.value, size, share, ", ".join(told)))
    return sorted(rows, key=lambda row: -row.share)


def _lost_tasks(diagnosis: Diagnosis | None) -> tuple[Task, ...]:
    tasks = diagnosis.impact.tasks if diagnosis and diagnosis.impact else None
    return tasks.lost[:TASKS_SHOWN] if isinstance(tasks, Tasks) else ()


def _cpu_rows(cpus: list[Cpu]) -> Iterator[list[Cpu]]:
    if len(cpus) > CPUS_SHOWN:
        return
    for _, row in itertools.groupby(cpus, key=lambda cpu: cpu.number // CPUS_IN_A_ROW):
        yield list(row)
