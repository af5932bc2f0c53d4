# SPDX-License-Identifier: LGPL-2.1-or-later
"""The report as JUnit XML: one test case a rule, so that a CI job shows which one failed."""

from __future__ import annotations

from xml.etree import ElementTree

from vmcheck.check import Report
from vmcheck.errors import plain
from vmcheck.findings import Finding, Outcome, Severity, State
from vmcheck.report import words

MILDEST = list(Severity)


def junit(report: Report, fail_on: Severity = Severity.WRONG) -> bytes:
    """A rule fails where it found something at least as severe as ``fail_on``, as the exit status does.

    Every text is made plain: XML cannot hold most control characters, not even escaped.
    """
    suite = ElementTree.Element("testsuite", name=plain(f"vmcheck {words.file_name(report.header)}"))
    failures = skipped = 0
    for outcome in report.outcomes:
        case = ElementTree.SubElement(suite, "testcase", classname="vmcheck", name=outcome.rule)
        failing, rest = _split(outcome, fail_on)
        if failing:
            failures += 1
            failure = ElementTree.SubElement(
                case, "failure", type=failing[0].severity.value, message=plain(failing[0].summary)
            )
            failure.text = "\n".join(map(_told, failing))
        elif outcome.state in (State.SKIPPED, State.INAPPLICABLE):
            skipped += 1
            ElementTree.SubElement(case, "skipped", message=plain(outcome.why))
        if rest:
            ElementTree.SubElement(case, "system-out").text = "\n".join(map(_told, rest))
    suite.set("tests", str(len(report.outcomes)))
    suite.set("failures", str(failures))
    suite.set("errors", "0")
    suite.set("skipped", str(skipped))
    ElementTree.SubElement(suite, "system-out").text = plain(words.answer(report))
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    return bytes(ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)) + b"\n"


def _split(outcome: Outcome, fail_on: Severity) -> tuple[list[Finding], list[Finding]]:
    """The findings that fail the case, and those too mild to."""
    grave = MILDEST[: MILDEST.index(fail_on) + 1]
    failing = [finding for finding in outcome.findings if finding.severity in grave]
    return failing, [finding for finding in outcome.findings if finding.severity not in grave]


def _told(finding: Finding) -> str:
    lines = [finding.summary, *words.extents(finding), *finding.evidence]
    if finding.recoverable:
        lines.append(words.RECOVERABLE)
    return "\n".join(map(plain, lines))
