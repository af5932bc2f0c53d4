# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from tests import reports
from vmcheck.check import Report
from vmcheck.facts.ranges import RangeSet
from vmcheck.report.difference import differences
from vmcheck.report.document import to_json


def document(report: Report) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(to_json(report))
    return read


def test_a_report_is_as_expected_of_itself() -> None:
    assert differences(document(reports.ADDED), document(reports.ADDED)) == []


def test_a_loss_where_a_whole_dump_was_expected_is_told_with_its_ranges_and_cpus() -> None:
    expected = {"verdict": "complete", "memory": {"missing": 0}, "findings": []}
    assert differences(expected, document(reports.ADDED)) == [
        "verdict: expected complete, found incomplete",
        "memory.missing: expected 0 bytes, found 134217728 bytes (128 MiB)",
        "findings[undescribed-ram]: found, not expected: System RAM added after elfcorehdr was written, "
        "in no PT_LOAD segment; [0x100000000, 0x108000000)",
        "findings[cpu-without-note]: found, not expected: an online CPU saved its registers and no "
        "NT_PRSTATUS of the dump has them; CPU 2",
    ]


def test_a_finding_that_went_away_is_told_too() -> None:
    assert differences({"findings": document(reports.PHANTOM)["findings"]}, document(reports.WHOLE)) == [
        "findings[described-without-ram]: expected, not found: the headers describe 128 MiB where the kernel "
        "had no RAM; [0x100000000, 0x108000000)"
    ]


def test_two_findings_of_one_rule_are_compared_in_their_order() -> None:
    other = replace(reports.LOST_DIMM, ranges=RangeSet([(0x200000000, 0x208000000)]))
    third = replace(reports.LOST_DIMM, ranges=RangeSet([(0x300000000, 0x308000000)]))
    before, after = (
        reports.report(("undescribed-ram", reports.LOST_DIMM), ("undescribed-ram", last))
        for last in (other, third)
    )
    assert differences({"findings": document(before)["findings"]}, document(after)) == [
        "findings[undescribed-ram].ranges: expected [0x200000000, 0x208000000), "
        "found [0x300000000, 0x308000000)"
    ]


def test_only_what_is_expected_is_compared() -> None:
    assert differences({"dump": {"machine": "x86_64"}}, document(reports.ADDED)) == []


def test_the_version_and_the_files_name_do_not_count() -> None:
    expected = document(reports.WHOLE) | {"vmcheck": "0.0.1"}
    expected["dump"] |= {"file": "another"}
    assert differences(expected, document(reports.WHOLE)) == []


def test_what_is_no_longer_known_is_different_from_a_zero() -> None:
    expected = {"memory": {"system_ram": 0}, "kernel": {"online_cpus": [0, 1]}}
    found = {"memory": {"system_ram": None}, "kernel": {"online_cpus": None}}
    assert differences(expected, found) == [
        "memory.system_ram: expected 0 bytes, found nothing",
        "kernel.online_cpus: expected CPUs 0-1, found nothing",
    ]


def test_expectations_of_the_wrong_shape_are_differences_and_not_crashes() -> None:
    expected = {"findings": {"a": 1}, "rules": [3], "colour": "\x1b[31mred", "memory": {"missing": "x"}}
    told = differences(expected, document(reports.WHOLE))
    assert told[0] == "findings: expected {'a': 1}, found []"
    assert told[1].startswith("rules: expected [3], found [{")
    assert told[2:] == [
        r"colour: expected \x1b[31mred, found no such member",
        "memory.missing: expected x, found 0 bytes",
    ]


def test_a_false_is_not_a_zero() -> None:
    assert differences({"n": False}, {"n": 0}) == ["n: expected no, found 0"]


def test_numbers_that_no_report_has_are_differences_and_not_crashes() -> None:
    huge = 10**400
    expected = {
        "memory": {"described": huge},
        "findings": [{"rule": "undescribed-ram", "ranges": [["a", "b"], [huge, huge], [1]], "cpus": [huge]}],
    }
    described, *findings = differences(expected, document(reports.ADDED))
    assert described.startswith("memory.described: expected 1000")
    assert described.endswith("..., found 334340096 bytes (319 MiB)")
    assert "expected [['a', 'b'], [1000" in findings[0]
    assert all(len(line) < 1000 for line in (described, *findings))


def test_integers_of_more_digits_than_python_prints_are_differences() -> None:
    assert differences({"n": 10**5000}, {"n": 0}) == ["n: expected what is too large to show, found 0"]
