# SPDX-License-Identifier: LGPL-2.1-or-later
"""The report as JUnit XML: one test case a rule, so that a CI job shows which one failed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree import ElementTree

from vmcheck.check import Report
from vmcheck.errors import plain
from vmcheck.facts.findings import Finding, Outcome, Severity, State
from vmcheck.report import words
from vmcheck.report.folder import Checked
from vmcheck.report.nodes import Nodes, several_nodes

MILDEST = list(Severity)


def junit(report: Report, fail_on: Severity = Severity.WRONG) -> bytes:
    """A rule fails where it found something at least as severe as ``fail_on``, as the exit status does.

    Every text is made plain: XML cannot hold most control characters, even escaped.
    """
    return _document([_suite(words.file_name(report.header), report, fail_on)])


def junit_of_folder(folder: str, entries: Sequence[Checked], fail_on: Severity = Severity.WRONG) -> bytes:
    """A suite a dump; one that could not be read is a suite of one error. ``folder`` is not in it."""
    return _document(
        _suite(each.path, each.report, fail_on) if each.report else _unreadable(each) for each in entries
    )


def _document(suites: Iterable[ElementTree.Element]) -> bytes:
    root = ElementTree.Element("testsuites")
    root.extend(suites)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _unreadable(entry: Checked) -> ElementTree.Element:
    counts = {"tests": "1", "failures": "0", "errors": "1", "skipped": "0"}
    suite = ElementTree.Element("testsuite", {"name": plain(f"vmcheck {entry.path}"), **counts})
    case = ElementTree.SubElement(suite, "testcase", classname="vmcheck", name="readable")
    ElementTree.SubElement(case, "error", type="unreadable", message=plain(entry.error))
    return suite


def _suite(name: str, report: Report, fail_on: Severity) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name=plain(f"vmcheck {name}"))
    failures = skipped = 0
    nodes = several_nodes(report)
    for outcome in report.outcomes:
        case = ElementTree.SubElement(suite, "testcase", classname="vmcheck", name=outcome.rule)
        failing, rest = _split(outcome, fail_on)
        if failing:
            failures += 1
            failure = ElementTree.SubElement(
                case, "failure", type=failing[0].severity.value, message=plain(failing[0].summary)
            )
            failure.text = "\n".join(_shown(finding, nodes) for finding in failing)
        elif outcome.state in (State.SKIPPED, State.INAPPLICABLE):
            skipped += 1
            ElementTree.SubElement(case, "skipped", message=plain(outcome.why))
        if rest:
            ElementTree.SubElement(case, "system-out").text = "\n".join(
                _shown(finding, nodes) for finding in rest
            )
    suite.set("tests", str(len(report.outcomes)))
    suite.set("failures", str(failures))
    suite.set("errors", "0")
    suite.set("skipped", str(skipped))
    ElementTree.SubElement(suite, "system-out").text = plain(words.answer(report))
    return suite


def _split(outcome: Outcome, fail_on: Severity) -> tuple[list[Finding], list[Finding]]:
    """The findings that fail the case, and the milder ones."""
    grave = MILDEST[: MILDEST.index(fail_on) + 1]
    failing = [finding for finding in outcome.findings if finding.severity in grave]
    return failing, [finding for finding in outcome.findings if finding.severity not in grave]


def _shown(finding: Finding, nodes: Nodes) -> str:
    lines = [finding.summary, *words.extents(finding, nodes), *finding.evidence]
    if finding.recoverable:
        lines.append(words.RECOVERABLE)
    return "\n".join(map(plain, lines))
