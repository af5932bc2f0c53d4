# SPDX-License-Identifier: LGPL-2.1-or-later
"""The report as text. Its first line is the answer."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from vmcheck.check import Report, Verdict
from vmcheck.errors import plain
from vmcheck.facts.diagnosis import Conclusion, Step
from vmcheck.facts.findings import Finding, Severity, State
from vmcheck.report import brief, words
from vmcheck.report.brief import View
from vmcheck.report.folder import Checked, tally, worst_first
from vmcheck.report.memory import Fate, Memory, cells, excluded_by_design, most_of
from vmcheck.report.nodes import Nodes

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

FINDINGS_SHOWN, RANGES_SHOWN, EVIDENCE_SHOWN, COMMANDS_SHOWN = 3, 2, 2, 3
"""In the short report: findings of a severity; ranges and evidence of a finding; commands."""

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


def render(report: Report, width: int = 100, full: bool = False) -> str:
    """The report without colour or picture, for a pipe, a file or a log.

    Without ``full`` it is what fits a screen: the answer, what is missing, and a line a section.
    """
    return "".join(map(_text, _lines(View.of(report), _fitting(width), full)))


def show(report: Report, console: Console, ascii_only: bool = False, full: bool = False) -> None:
    """The report on a terminal, with the memory bar; ``console`` decides about colour."""
    width, view = _fitting(console.width), View.of(report)
    bar = list(_bar(view.kept, report.forecast, view.nodes, width - 2, ascii_only))
    _print(_lines(view, width, full, bar), console)


def render_folder(folder: str, entries: Sequence[Checked], width: int = 100, full: bool = False) -> str:
    """A table of the dumps, worst first; with ``full`` the report of each too. Of one dump, its report."""
    if len(entries) == 1 and entries[0].report:
        return render(entries[0].report, width, full)
    table = "".join(map(_text, _table(folder, entries, _fitting(width), full)))
    return table + "".join(
        "".join(map(_text, _title(entry))) + render(report, width, full)
        for entry, report in (_readable(entries) if full else ())
    )


def show_folder(
    folder: str, entries: Sequence[Checked], console: Console, ascii_only: bool = False, full: bool = False
) -> None:
    """:func:`render_folder` on a terminal."""
    if len(entries) == 1 and entries[0].report:
        return show(entries[0].report, console, ascii_only, full)
    _print(_table(folder, entries, _fitting(console.width), full), console)
    for entry, report in _readable(entries) if full else ():
        _print(_title(entry), console)
        show(report, console, ascii_only, full)


def _readable(entries: Sequence[Checked]) -> list[tuple[Checked, Report]]:
    return [(entry, entry.report) for entry in worst_first(entries) if entry.report]


def _table(folder: str, entries: Sequence[Checked], width: int, full: bool) -> Iterator[Line]:
    yield (Span(tally(folder, entries), "bold"),)
    for entry in worst_first(entries):
        yield ()
        style = VERDICT_STYLES[entry.verdict] if entry.verdict else VERDICT_STYLES[Verdict.INCOMPLETE]
        yield (Span(f"  {words.verdict(entry.verdict):{VERDICT}}", style), Span(f"  {entry.path}", "bold"))
        for fact in entry.facts:
            yield from _indented(fact, width, VERDICT + 4, indent=0)
    if not full and _readable(entries):
        yield ()
        yield (Span("--full", "bold"), Span("  adds the report of each dump"))


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


def _lines(view: View, width: int, full: bool, bar: Sequence[Line] = ()) -> Iterator[Line]:
    yield from _answer(view.report)
    yield from _in_short(view, width, full)
    if bar:
        yield ()
        yield from bar
    for severity in Severity:
        findings = [named for named in view.report.named_findings if named[1].severity is severity]
        if findings:
            yield from _heading(words.SEVERITY[severity])
            yield from _findings(findings, view.nodes, width, full)
    if full:
        for section in SECTIONS:
            if lines := list(section.lines(view, width)):
                yield from _heading(section.title(view))
                yield from lines
    else:
        yield from _in_brief(view, width, bool(bar))
    found = [outcome.rule for outcome in view.report.outcomes_in(State.FOUND)]
    explain = f"vmcheck explain {found[0] if len(found) == 1 else 'NAME'}"
    hints = [] if full else [("--full", " shows everything")]
    hints += [(explain, " says what a finding means and what to do")] if found else []
    if full and found:
        yield ()
    if hints and len("; ".join(map("".join, hints))) <= width:
        yield tuple(
            span
            for number, (command, says) in enumerate(hints)
            for span in (Span("; " if number else ""), Span(command, "bold"), Span(says))
        )
    else:
        yield from ((Span(command, "bold"), Span(says)) for command, says in hints)


def _in_short(view: View, width: int, full: bool) -> Iterator[Line]:
    """Why, what it costs, what to do; the commands of the first step, unless they follow anyway."""
    diagnosis = view.diagnosis
    if not diagnosis or not (short := words.in_short(diagnosis)):
        return
    yield ()
    yield from _facts(short, width)
    steps = () if full else (*diagnosis.next_dump, *diagnosis.this_dump)[:1]
    indent = " " * (LABEL + 6)
    commands = [f"{indent}{command}" for step in steps for command in step.commands]
    if len(commands) <= COMMANDS_SHOWN and all(len(plain(command)) <= width for command in commands):
        for command in commands:
            yield (Span(command, "cyan"),)


def _in_brief(view: View, width: int, bar: bool) -> Iterator[Line]:
    """A line a section; the legend of the ``bar`` has what is excluded."""
    sections = [section for section in SECTIONS if not (bar and section.lines is _excluded)]
    said = [(section.title(view), section.brief(view)) for section in sections]
    column = max(len(title) for title, text in said if text)
    yield ()
    for title, text in said:
        if text:
            style = "yellow" if title == words.UNLOOKED else ""
            yield (Span(f"  {title:{column}}  ", "dim"), Span(_cut(text, width - column - 4), style))


def _cut(text: str, width: int) -> str:
    text = plain(text)
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _answer(report: Report) -> Iterator[Line]:
    """One line, however narrow the terminal: ``head -1`` prints the whole answer."""
    verdict = words.VERDICT[report.verdict]
    reason = words.answer(report).removeprefix(verdict)
    yield (Span(verdict, VERDICT_STYLES[report.verdict]), Span(reason, "bold"))


def _heading(text: str) -> Iterator[Line]:
    yield ()
    yield (Span(text, "bold underline"),)


def _bar(kept: Memory, forecast: bool, nodes: Nodes, width: int, ascii_only: bool) -> Iterator[Line]:
    """All memory in address order without its holes; the NUMA nodes; what the glyphs mean."""
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


def _findings(
    findings: Sequence[tuple[str, Finding]], nodes: Nodes, width: int, full: bool
) -> Iterator[Line]:
    if full:
        for number, (rule, finding) in enumerate(findings):
            if number:
                yield ()
            yield from _finding(rule, finding, width)
            yield from _extents(finding, words.extents(finding, nodes), width)
            for text in _evidence(finding):
                yield from _indented(f"- {text}", width, 4)
        return
    # Three findings with all their evidence do not fit a screen.
    most = EVIDENCE_SHOWN if len(findings) < FINDINGS_SHOWN else 1
    for rule, finding in findings[:FINDINGS_SHOWN]:
        yield from _finding(rule, finding, width)
        yield from _extents(finding, words.extents(finding, nodes, RANGES_SHOWN), width)
        hidden = len(finding.evidence) - most
        for number, text in enumerate(_evidence(finding, most), start=1):
            more = f" (and {hidden} more)" if number == most and hidden > 0 else ""
            yield (Span(f"    - {_cut(text, width - 6 - len(more))}{more}"),)
    if hidden_findings := findings[FINDINGS_SHOWN:]:
        names = ", ".join(dict.fromkeys(rule for rule, _ in hidden_findings))
        yield (Span(_cut(f"  and {words.count(len(hidden_findings), 'more finding')}: {names}", width)),)


def _finding(rule: str, finding: Finding, width: int) -> Iterator[Line]:
    name = f"[{rule}]"
    *first, last = _wrapped(f"{words.sentence(finding.summary)}  {name}", width - 2)
    for line in first:
        yield (Span(f"  {line}", "bold"),)
    summary, found, _ = last.partition(name)
    yield (Span(f"  {summary}", "bold"), Span(name if found else "", "cyan"))


def _extents(finding: Finding, extents: Iterable[str], width: int) -> Iterator[Line]:
    style = STYLES[Fate.MISSING] if finding.severity is Severity.LOST else ""
    for extent in extents:
        yield from _indented(extent, width, 4, style)


def _evidence(finding: Finding, most: int | None = None) -> list[str]:
    return [*finding.evidence[:most], *([words.RECOVERABLE] if finding.recoverable else [])]


def _why(view: View, width: int) -> Iterator[Line]:
    if view.diagnosis:
        for number, conclusion in enumerate((*view.diagnosis.causes, view.diagnosis.regime)):
            if number:
                yield ()
            yield from _conclusion(conclusion, width)


def _conclusion(conclusion: Conclusion, width: int) -> Iterator[Line]:
    doubt = words.doubt(conclusion.certainty)
    name = f"[{conclusion.name}{f', {doubt}' if doubt else ''}]"
    yield from _indented(f"{words.sentence(conclusion.text)}  {name}", width, 2, "bold")
    for evidence in conclusion.evidence:
        yield from _indented(f"- {evidence}", width, 4)


def _when(view: View, width: int) -> Iterator[Line]:
    if not view.diagnosis or not (timeline := view.diagnosis.timeline):
        return
    for event, clock in zip(timeline.events, words.clocks(timeline), strict=True):
        text = f"{words.moment(event):{MOMENT}}  {event.text}{f' ({clock})' if clock else ''}"
        yield from _indented(text, width, 2, indent=MOMENT + 2)
    for remark in timeline.remarks:
        yield from _indented(f"- {remark}", width, 2)


def _cost(view: View, width: int) -> Iterator[Line]:
    if not view.diagnosis or not (impact := view.diagnosis.impact):
        return
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


def _remedy(view: View, width: int) -> Iterator[Line]:
    if view.diagnosis:
        yield from _steps(words.NEXT_DUMP, view.diagnosis.next_dump, width)
        yield from _steps(words.THIS_DUMP, view.diagnosis.this_dump, width)


def _steps(heading: str, steps: Sequence[Step], width: int) -> Iterator[Line]:
    if steps:
        yield (Span(f"  {heading}", "bold"),)
    for number, step in enumerate(steps, start=1):
        yield from _indented(f"{number}. {step.text}", width, 4, indent=3)
        for command in step.commands:
            # Never wrapped: it is to be copied.
            yield (Span(f"         {command}", "cyan"),)


def _records(view: View, width: int) -> Iterator[Line]:
    for comparison in view.diagnosis.witnesses if view.diagnosis else ():
        yield from _indented(f"{comparison.witness}: {words.compared(comparison)}", width, 2)


def _indented(text: str, width: int, left: int, style: str = "", indent: int = 2) -> Iterator[Line]:
    for line in _wrapped(text, width - left, indent):
        yield (Span(" " * left), Span(line, style))


def _excluded(view: View, width: int) -> Iterator[Line]:
    parts = excluded_by_design(view.report)
    facts = [
        words.Fact(words.size(part.ranges.size), f"{part.reason}, {words.where(part.ranges)}")
        for part in parts
    ]
    yield from _facts(facts, width)


def _dump(view: View, width: int) -> Iterator[Line]:
    yield from _facts(words.dump_facts(view.report, view.kept), width)


def _pages(view: View, width: int) -> Iterator[Line]:
    yield from _facts(words.body_facts(view.report), width)


def _kernel(view: View, width: int) -> Iterator[Line]:
    yield from _facts(words.kernel_facts(view.report), width)


def _rules(view: View, width: int) -> Iterator[Line]:
    facts = [words.Fact(state.value, words.rule_names(view.report, state)) for state in State]
    yield from _facts([fact for fact in facts if fact.value], width)


def _unlooked(view: View, width: int) -> Iterator[Line]:
    for name, why in words.unlooked(view.report):
        for line in _wrapped(f"{name}: {why}", width - 4, indent=2):
            yield (Span(f"  {line}", "yellow"),)


class Section(NamedTuple):
    """What stands below the findings."""

    title: Callable[[View], str]
    brief: Callable[[View], str]
    """Of the short report."""
    lines: Callable[[View, int], Iterator[Line]]
    """Of the full one, at a width."""


def _titled(text: str) -> Callable[[View], str]:
    return lambda view: text


SECTIONS = (
    Section(lambda view: words.why_title(view.diagnosis), brief.why, _why),
    Section(_titled("When"), brief.when, _when),
    Section(_titled(words.COST), brief.cost, _cost),
    Section(_titled(words.REMEDY), brief.remedy, _remedy),
    Section(_titled(words.RECORDS), brief.records, _records),
    Section(_titled(words.EXCLUDED), brief.excluded, _excluded),
    Section(lambda view: words.subject(view.report), brief.dump, _dump),
    Section(_titled(words.PAGES), brief.pages, _pages),
    Section(_titled("The kernel"), brief.kernel, _kernel),
    Section(_titled("The rules"), brief.rules, _rules),
    Section(_titled(words.UNLOOKED), brief.unlooked, _unlooked),
)
"""In their order. A new section is a row."""


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
