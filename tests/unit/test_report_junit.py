# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from pathlib import Path

import junitparser
import pytest

from tests import reports
from vmcheck.check import Report
from vmcheck.facts.findings import Severity
from vmcheck.report.junit import junit


def cases(report: Report, tmp_path: Path, fail_on: Severity = Severity.WRONG) -> dict[str, list[str]]:
    """What a JUnit reader makes of it: the kinds of result of each case."""
    file = tmp_path / "junit.xml"
    file.write_bytes(junit(report, fail_on))
    (suite,) = junitparser.JUnitXml.fromfile(str(file))
    return {case.name: [type(result).__name__ for result in case.result] for case in suite}


def test_each_rule_is_a_case_and_a_finding_fails_it(tmp_path: Path) -> None:
    assert cases(reports.ADDED, tmp_path) == {
        "undescribed-ram": ["Failure"],
        "cpu-without-note": ["Failure"],
        "described-without-ram": [],
        "truncated-file": [],
        "segment-addresses": ["Skipped"],
    }


def test_a_finding_milder_than_fail_on_passes_and_is_told(tmp_path: Path) -> None:
    assert cases(reports.PHANTOM, tmp_path, Severity.LOST)["described-without-ram"] == []
    assert b"had no RAM" in junit(reports.PHANTOM, Severity.LOST)


def test_the_suite_counts_its_cases(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_bytes(junit(reports.ADDED))
    (suite,) = junitparser.JUnitXml.fromfile(str(tmp_path / "junit.xml"))
    assert (suite.tests, suite.failures, suite.skipped, suite.errors) == (5, 2, 1, 0)


@pytest.mark.parametrize("fail_on", list(Severity))
def test_hostile_strings_leave_the_xml_well_formed(fail_on: Severity, tmp_path: Path) -> None:
    assert cases(reports.hostile(), tmp_path, fail_on) == {
        "undescribed-ram": ["Failure"],
        "cpu-without-note": ["Skipped"],
    }
