# SPDX-License-Identifier: LGPL-2.1-or-later
"""The report as Markdown, to paste into a ticket or merge request of GitHub or GitLab.

Strings of a dump are a stranger's. :func:`text` escapes them, so that neither Markdown nor HTML in
them does anything, and nobody is mentioned.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import vmcheck
from vmcheck.check import Report
from vmcheck.errors import plain
from vmcheck.facts.diagnosis import Diagnosis, Impact, Step, Use
from vmcheck.facts.findings import Finding, Severity
from vmcheck.report import brief, words
from vmcheck.report.brief import View
from vmcheck.report.folder import Checked, tally, worst_first

RANGES_SHOWN = 6
"""Of one finding; JSON has them all."""
EVIDENCE_SHOWN = 3
FACTS_SHOWN, LONGEST = 3, 120
"""Facts of what it costs, and characters of one line of evidence; the text report has all."""

_SPECIAL = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")
_BEGINNING = re.compile(r"^(\d{0,9})([#+=.):-])(?=[\s#=-]|$)")
"""What would begin a heading or a list, or make a line."""
_REFERENCE = re.compile(
    r"[@#!%^](?=[\w\"'])|\\[$~](?=[\w\"'])|:(?=//)|:(?=(?:[a-z][\w+-]*|[+-]1):)|\b(?:www(?=\.)|mailto(?=:))",
    re.I,
)
"""What GitHub and GitLab make a link, an emoji or a mention of after they have made HTML."""
_NOTHING = "&#8203;"
"""A space of no width."""


def markdown(report: Report, fail_on: Severity = Severity.WRONG) -> bytes:
    """The answer, why, what it costs, what to do and what is missing; the rest is folded.

    ``fail_on`` changes nothing: the exit status is not in it.
    """
    return _joined(_report(View.of(report)))


def markdown_of_folder(folder: str, entries: Sequence[Checked], fail_on: Severity = Severity.WRONG) -> bytes:
    """A list of the dumps, worst first."""
    lines = [f"**{text(tally(folder, entries))}**", ""]
    for entry in worst_first(entries):
        lines.append(f"- {code(entry.path)}: **{words.verdict(entry.verdict)}**")
        lines += [f"  - {text(fact)}" for fact in entry.facts]
    return _joined([*lines, "", _signature()])


def text(string: str) -> str:
    """``string`` as Markdown that shows it, on one line, wherever it stands in a paragraph."""
    escaped = plain(string).strip().replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = _SPECIAL.sub(r"\\\g<0>", escaped)
    escaped = _BEGINNING.sub(r"\1\\\2", escaped)
    return _REFERENCE.sub(rf"\g<0>{_NOTHING}", escaped)


def code(string: str) -> str:
    """``string`` in a code span, where nothing in it is looked at."""
    string = plain(string)
    ticks = "`" * (_longest_run(string) + 1)
    # A span may not begin or end with its delimiter, and one space at each end is taken away.
    space = " " if not string.strip() or string[0] in "` " or string[-1] in "` " else ""
    return f"{ticks}{space}{string or ' '}{space}{ticks}"


def _longest_run(string: str) -> int:
    return max(map(len, re.findall("`+", string)), default=0)


def _joined(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _report(view: View) -> Iterator[str]:
    report, diagnosis = view.report, view.diagnosis
    verdict, _, reason = words.answer(report).partition(": ")
    yield f"**{verdict}**: {text(reason)}"
    if diagnosis and (short := words.in_short(diagnosis)):
        yield ""
        yield from (f"- **{fact.name}**: {text(fact.value)}" for fact in short)
    for severity in Severity:
        found = [named for named in report.named_findings if named[1].severity is severity]
        if found:
            yield from ("", f"**{words.SEVERITY[severity]}**", "")
            for rule, finding in found:
                yield from _finding(rule, finding, view)
    yield from _folded("Evidence", _evidence(report.named_findings))
    if diagnosis:
        yield from _folded(words.why_title(diagnosis), _why(diagnosis))
        if diagnosis.impact:
            yield from _folded(words.COST, _cost(diagnosis.impact))
        next_dump = _steps(words.NEXT_DUMP, diagnosis.next_dump)
        this_dump = _steps(words.THIS_DUMP, diagnosis.this_dump)
        yield from _folded(words.REMEDY, [*next_dump, *this_dump])
    yield from _folded("The dump and its kernel", _looked_at(view))
    yield from ("", _signature())


def _finding(rule: str, finding: Finding, view: View) -> Iterator[str]:
    yield f"- {text(words.sentence(finding.summary))} ({code(rule)})"
    for extent in words.extents(finding, view.nodes, RANGES_SHOWN):
        yield f"  - {code(extent)}"
    if finding.recoverable:
        yield f"  - {text(words.RECOVERABLE)}"


def _evidence(findings: Sequence[tuple[str, Finding]]) -> Iterator[str]:
    for rule, finding in findings:
        if finding.evidence:
            yield f"- {code(rule)}"
            yield from (f"  - {text(_cut(line))}" for line in finding.evidence[:EVIDENCE_SHOWN])
            if (hidden := len(finding.evidence) - EVIDENCE_SHOWN) > 0:
                yield f"  - and {words.count(hidden, 'more line')}"


def _why(diagnosis: Diagnosis) -> Iterator[str]:
    for conclusion in (*diagnosis.causes, diagnosis.regime):
        doubt = words.doubt(conclusion.certainty)
        name = code(conclusion.name) + (f", {doubt}" if doubt else "")
        yield f"- {text(words.sentence(conclusion.text))} ({name})"
        if conclusion is not diagnosis.regime or not diagnosis.causes:
            yield from (f"  - {text(_cut(line))}" for line in conclusion.evidence)


def _cost(impact: Impact) -> Iterator[str]:
    """The first facts, and the commands that do not work."""
    yield from (f"- {text(_cut(fact))}" for fact in impact.facts[:FACTS_SHOWN])
    for use in (Use.FAILS, Use.MISLEADS, Use.PARTIAL):
        commands = [f"{text(each.tool)} {code(each.command)}" for each in impact.effects if each.use is use]
        if commands:
            yield f"- {words.USE[use]}: {', '.join(commands)}"


def _cut(string: str) -> str:
    return string if len(string) <= LONGEST else f"{string[: LONGEST - 3]}..."


def _steps(heading: str, steps: Sequence[Step]) -> Iterator[str]:
    if not steps:
        return
    yield from (f"{heading}:", "")
    for number, step in enumerate(steps, start=1):
        yield f"{number}. {text(words.sentence(step.text))}"
        if step.commands:
            indent = " " * len(f"{number}. ")
            fence = "`" * max(3, *(_longest_run(command) + 1 for command in step.commands))
            fenced = (f"{fence}sh", *map(plain, step.commands), fence)
            yield from ("", *(f"{indent}{line}" for line in fenced))
    yield ""


def _looked_at(view: View) -> Iterator[str]:
    rows = (
        (words.subject(view.report), brief.dump(view)),
        (words.PAGES, brief.pages(view)),
        ("The kernel", brief.kernel(view)),
        ("When", brief.when(view)),
        (words.EXCLUDED, brief.excluded(view)),
        (words.RECORDS, brief.records(view)),
        ("The rules", brief.rules(view)),
        (words.UNLOOKED, brief.unlooked(view)),
    )
    yield from (f"- {name}: {text(value)}" for name, value in rows if value)


def _folded(title: str, lines: Iterable[str]) -> Iterator[str]:
    """A blank line after the summary: what follows is Markdown again."""
    if content := list(lines):
        yield from ("", f"<details><summary>{title}</summary>", "", *content, "", "</details>")


def _signature() -> str:
    return f"vmcheck {text(vmcheck.__version__)}"
