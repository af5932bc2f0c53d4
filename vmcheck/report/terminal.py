# SPDX-License-Identifier: LGPL-2.1-or-later
"""The report as text. Its first line is the answer."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from vmcheck.check import Report, Verdict
from vmcheck.diagnosis import Conclusion, Diagnosis, Impact, Step, Timeline
from vmcheck.errors import plain
from vmcheck.findings import Finding, Severity, State
from vmcheck.report import words
from vmcheck.report.folder import Checked, tally, worst_first
from vmcheck.report.memory import Fate, Memory, cells, memory, most_of, rightly_absent
from vmcheck.report.nodes import Nodes, told_apart

if TYPE_CHECKING:
    from rich.console import Console

NARROWEST, WIDEST = 60, 120
"""Columns. Lines longer than the widest are hard to read, however wide the terminal is."""

MOMENT = 20
"""Columns of a moment of the time line."""

USE = 8
"""Columns of what a command gives."""

VERDICT = len("COULD NOT TELL")

LABEL = 14
"""Columns of a fact's name."""

GLYPHS = {
    Fate.MISSING: "×",
    Fate.DROPPED: "!",
    Fate.PHANTOM: "?",
    Fate.UNDESCRIBED: "-",
    Fate.EXCLUDED: "·",
    Fate.ELSEWHERE: "/",
    Fate.FILTERED: "░",
    Fate.STORED: "█",
}
ASCII_GLYPHS = {**GLYPHS, Fate.MISSING: "X", Fate.EXCLUDED: ".", Fate.FILTERED: "=", Fate.STORED: "#"}

BRACKET, ASCII_BRACKET = ("└", "─", "┘"), ("|", "-", "|")
"""Below the memory of one NUMA node."""

STYLES = {
    Fate.MISSING: "bold red",
    Fate.DROPPED: "bold red",
    Fate.PHANTOM: "bold magenta",
    Fate.UNDESCRIBED: "yellow",
    Fate.EXCLUDED: "dim",
    Fate.ELSEWHERE: "dim",
    Fate.FILTERED: "blue",
    Fate.STORED: "green",
}
VERDICT_STYLES = {
    Verdict.COMPLETE: "bold green",
    Verdict.INCOMPLETE: "bold red",
    Verdict.MISLEADING: "bold magenta",
    Verdict.UNKNOWN: "bold yellow",
}


class Span(NamedTuple):
    text: str
    style: str = ""


Line = tuple[Span, ...]


def render(report: Report, width: int = 100) -> str:
    """The report without colour or picture, for a pipe, a file or a log."""
    lines = _lines(report, memory(report), _fitting(width), bar=[])
    return "".join(map(_text, lines))


def show(report: Report, console: Console, ascii_only: bool = False) -> None:
    """The report on a terminal, with the memory bar; ``console`` decides about colour."""
    width = _fitting(console.width)
    kept = memory(report)
    bar = list(_bar(kept, report.forecast, told_apart(report), width - 2, ascii_only))
    _print(_lines(report, kept, width, bar), console)


def render_folder(folder: str, entries: Sequence[Checked], width: int = 100) -> str:
    """The dumps of a folder, worst first: a table, then the report of each. Of one dump, its report."""
    if len(entries) == 1 and entries[0].report:
        return render(entries[0].report, width)
    table = "".join(map(_text, _table(folder, entries, _fitting(width))))
    return table + "".join(
        "".join(map(_text, _title(entry))) + render(report, width) for entry, report in _readable(entries)
    )


def show_folder(folder: str, entries: Sequence[Checked], console: Console, ascii_only: bool = False) -> None:
    """:func:`render_folder` on a terminal."""
    if len(entries) == 1 and entries[0].report:
        return show(entries[0].report, console, ascii_only)
    _print(_table(folder, entries, _fitting(console.width)), console)
    for entry, report in _readable(entries):
        _print(_title(entry), console)
        show(report, console, ascii_only)


def _readable(entries: Sequence[Checked]) -> list[tuple[Checked, Report]]:
    return [(entry, entry.report) for entry in worst_first(entries) if entry.report]


def _table(folder: str, entries: Sequence[Checked], width: int) -> Iterator[Line]:
    yield (Span(tally(folder, entries), "bold"),)
    for entry in worst_first(entries):
        yield ()
        style = VERDICT_STYLES[entry.verdict] if entry.verdict else VERDICT_STYLES[Verdict.INCOMPLETE]
        yield (Span(f"  {words.verdict(entry.verdict):{VERDICT}}", style), Span(f"  {entry.path}", "bold"))
        for fact in entry.facts:
            yield from _indented(fact, width, VERDICT + 4, indent=0)


def _title(entry: Checked) -> Iterator[Line]:
    yield ()
    yield ()
    yield (Span(f"== {entry.path} ==", "bold cyan"),)


def _text(line: Line) -> str:
    return "".join(plain(span.text) for span in line).rstrip() + "\n"


def _print(lines: Iterable[Line], console: Console) -> None:
    from rich.text import Text

    for line in lines:
        console.print(Text.assemble(*((plain(span.text), span.style) for span in line)), soft_wrap=True)


def _fitting(width: int) -> int:
    return max(NARROWEST, min(width, WIDEST))


def _lines(report: Report, kept: Memory, width: int, bar: Sequence[Line]) -> Iterator[Line]:
    yield from _answer(report)
    diagnosis, nodes = words.diagnosed(report), told_apart(report)
    if diagnosis and (short := words.in_short(diagnosis)):
        yield ()
        yield from _facts(short, width)
    if bar:
        yield ()
        yield from bar
    for severity in Severity:
        findings = [named for named in report.named_findings if named[1].severity is severity]
        if findings:
            yield from _heading(words.SEVERITY[severity])
            for number, (rule, finding) in enumerate(findings):
                if number:
                    yield ()
                yield from _finding(rule, finding, nodes, width)
    if diagnosis:
        yield from _diagnosis(diagnosis, width)
    yield from _rightly_absent(report, width)
    yield from _looked_at(report, kept, width)
    yield from _unlooked(report, width)
    if found := [outcome.rule for outcome in report.outcomes_in(State.FOUND)]:
        yield ()
        meaning = "says what it means" if len(found) == 1 else "says what one means"
        command = f"vmcheck explain {found[0] if len(found) == 1 else 'NAME'}"
        yield (Span(command, "bold"), Span(f"  {meaning} and what to do"))


def _answer(report: Report) -> Iterator[Line]:
    """One line, however narrow the terminal: ``head -1`` prints the whole answer."""
    verdict = words.VERDICT[report.verdict]
    reason = words.answer(report).removeprefix(verdict)
    yield (Span(verdict, VERDICT_STYLES[report.verdict]), Span(reason, "bold"))


def _heading(text: str) -> Iterator[Line]:
    yield ()
    yield (Span(text, "bold underline"),)


def _bar(kept: Memory, forecast: bool, nodes: Nodes, width: int, ascii_only: bool) -> Iterator[Line]:
    """All memory in address order, its holes squeezed out; whose it is; what the glyphs mean."""
    glyphs = ASCII_GLYPHS if ascii_only else GLYPHS
    fates = cells(kept.all, kept.fates, width)
    if not fates:
        return
    runs = [(fate, len(list(run))) for fate, run in itertools.groupby(fates)]
    yield (Span("  "), *(Span(glyphs[fate] * length, STYLES[fate]) for fate, length in runs))
    if nodes:
        yield (
            Span("  "),
            Span(_brackets(kept, nodes, width, ASCII_BRACKET if ascii_only else BRACKET), "dim"),
        )
    yield (
        Span("  "),
        *(
            span
            for fate in reversed(Fate)
            if kept.fates[fate]
            for span in (
                Span(glyphs[fate], STYLES[fate]),
                Span(f" {words.size(kept.size(fate))} {words.fate(fate, forecast)}   "),
            )
        ),
    )


def _brackets(kept: Memory, nodes: Nodes, width: int, bracket: tuple[str, str, str]) -> str:
    """``└── node 0 ──┘└─ 1 ┘`` below a bar of ``width`` cells."""
    opening, line, closing = bracket
    text = ""
    for node, run in itertools.groupby(most_of(kept.all, nodes, width)):
        length = len(list(run))
        names = [] if node is None else [f" node {node} ", f" {node} ", str(node)]
        name = next((name for name in names if len(name) <= length - 2), "")
        if node is None or length < 3:
            text += " " * length if node is None else (name or opening + closing)[:length]
        else:
            text += f"{opening}{name.center(length - 2, line)}{closing}"
    return text


def _finding(rule: str, finding: Finding, nodes: Nodes, width: int) -> Iterator[Line]:
    name = f"[{rule}]"
    *first, last = _wrapped(f"{words.sentence(finding.summary)}  {name}", width - 2)
    for line in first:
        yield (Span(f"  {line}", "bold"),)
    summary, found, _ = last.partition(name)
    yield (Span(f"  {summary}", "bold"), Span(name if found else "", "cyan"))
    for extent in words.extents(finding, nodes):
        for line in _wrapped(extent, width - 4, indent=2):
            yield (Span(f"    {line}", STYLES[Fate.MISSING] if finding.severity is Severity.LOST else ""),)
    for text in (*finding.evidence, *([words.RECOVERABLE] if finding.recoverable else [])):
        for line in _wrapped(f"- {text}", width - 4, indent=2):
            yield (Span(f"    {line}"),)


def _diagnosis(diagnosis: Diagnosis, width: int) -> Iterator[Line]:
    yield from _heading(words.WHY if diagnosis.causes else words.REGIME)
    for number, conclusion in enumerate((*diagnosis.causes, diagnosis.regime)):
        if number:
            yield ()
        yield from _conclusion(conclusion, width)
    if timeline := diagnosis.timeline:
        yield from _heading("When")
        yield from _timeline(timeline, width)
    if impact := diagnosis.impact:
        yield from _heading(words.COST)
        yield from _impact(impact, width)
    if diagnosis.next_dump or diagnosis.this_dump:
        yield from _heading(words.REMEDY)
        yield from _steps(words.NEXT_DUMP, diagnosis.next_dump, width)
        yield from _steps(words.THIS_DUMP, diagnosis.this_dump, width)
    if diagnosis.witnesses:
        yield from _heading("Other witnesses")
        for comparison in diagnosis.witnesses:
            yield from _indented(f"{comparison.witness}: {words.compared(comparison)}", width, 2)


def _conclusion(conclusion: Conclusion, width: int) -> Iterator[Line]:
    doubt = words.doubt(conclusion.certainty)
    name = f"[{conclusion.name}{f', {doubt}' if doubt else ''}]"
    yield from _indented(f"{words.sentence(conclusion.text)}  {name}", width, 2, "bold")
    for evidence in conclusion.evidence:
        yield from _indented(f"- {evidence}", width, 4)


def _timeline(timeline: Timeline, width: int) -> Iterator[Line]:
    for event, clock in zip(timeline.events, words.clocks(timeline), strict=True):
        text = f"{words.moment(event):{MOMENT}}  {event.text}{f' ({clock})' if clock else ''}"
        yield from _indented(text, width, 2, indent=MOMENT + 2)
    for remark in timeline.remarks:
        yield from _indented(f"- {remark}", width, 2)


def _impact(impact: Impact, width: int) -> Iterator[Line]:
    yield from _indented(words.sentence(impact.headline), width, 2, "bold")
    for fact in impact.facts:
        yield from _indented(f"- {fact}", width, 4)
    for outlook in words.outlooks(impact.effects):
        commands = "; ".join(f"{tool}: {', '.join(each)}" for tool, each in outlook.commands.items())
        doubt = f" ({outlook.doubt})" if outlook.doubt else ""
        why = f": {outlook.why}" if outlook.why else ""
        yield from _indented(
            f"{words.USE[outlook.use]:{USE}}  {commands}{doubt}{why}", width, 2, indent=USE + 2
        )


def _steps(heading: str, steps: Sequence[Step], width: int) -> Iterator[Line]:
    if steps:
        yield (Span(f"  {heading}", "bold"),)
    for number, step in enumerate(steps, start=1):
        yield from _indented(f"{number}. {step.text}", width, 4, indent=3)
        for command in step.commands:
            # Never wrapped: it is to be copied.
            yield (Span(f"         {command}", "cyan"),)


def _indented(text: str, width: int, left: int, style: str = "", indent: int = 2) -> Iterator[Line]:
    for line in _wrapped(text, width - left, indent):
        yield (Span(" " * left), Span(line, style))


def _rightly_absent(report: Report, width: int) -> Iterator[Line]:
    if exclusions := rightly_absent(report):
        yield from _heading("Rightly absent")
        facts = [
            words.Fact(
                words.size(exclusion.ranges.size), f"{exclusion.reason}, {words.where(exclusion.ranges)}"
            )
            for exclusion in exclusions
        ]
        yield from _facts(facts, width)


def _looked_at(report: Report, kept: Memory, width: int) -> Iterator[Line]:
    yield from _heading(words.subject(report))
    yield from _facts(words.dump_facts(report, kept), width)
    yield from _heading("The kernel")
    yield from _facts(words.kernel_facts(report), width)
    yield from _heading("The rules")
    facts = [(state.value, words.rule_names(report, state)) for state in State]
    yield from _facts([words.Fact(name, rules) for name, rules in facts if rules], width)


def _unlooked(report: Report, width: int) -> Iterator[Line]:
    if facts := words.unlooked(report):
        yield from _heading("Could not look")
        for name, why in facts:
            for line in _wrapped(f"{name}: {why}", width - 4, indent=2):
                yield (Span(f"  {line}", "yellow"),)


def _facts(facts: Iterable[words.Fact], width: int) -> Iterator[Line]:
    for name, value in facts:
        first, *rest = _wrapped(value, width - LABEL - 4)
        yield (Span(f"  {plain(name)[:LABEL]:{LABEL}}  ", "dim"), Span(first))
        for line in rest:
            yield (Span(" " * (LABEL + 4) + line),)


def _wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    """At least one line. A word longer than the line, such as a hostile name, is cut."""
    return textwrap.wrap(
        plain(text), width, subsequent_indent=" " * indent, break_on_hyphens=False, drop_whitespace=True
    ) or [""]
