# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every real capture reproduces its expected report, and the report agrees with the guest's truth."""

from __future__ import annotations

import io
import json
from typing import Any

import drgn
import jsonschema
import pytest
from rich.console import Console

from fixtures.capture import CAPTURES, Capture, captures
from vmcheck.facts.findings import State
from vmcheck.facts.header import Format, Producer
from vmcheck.formats import read_header
from vmcheck.operations.examine import examine
from vmcheck.report.document import json_schema
from vmcheck.report.markdown import markdown
from vmcheck.report.terminal import render, show

every_capture = pytest.mark.parametrize("capture", captures(), ids=lambda capture: capture.name)


def expected(capture: Capture) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(capture.expected.read_text())
    return loaded


def found(report: dict[str, Any], *rules: str) -> list[dict[str, Any]]:
    return [finding for finding in report["findings"] if finding["rule"] in rules]


def test_there_are_captures_of_four_kernels() -> None:
    assert {"5.10", "6.1", "6.12", "7.2"} <= {
        ".".join(capture.folder.parent.name.split(".")[:2]) for capture in captures()
    }


@every_capture
def test_a_capture_reproduces_its_report(capture: Capture, accept: bool) -> None:
    document = capture.document()
    if accept:
        capture.expected.write_bytes(document)
    assert json.loads(document) == expected(capture)


@every_capture
def test_an_expected_report_fits_the_schema(capture: Capture) -> None:
    jsonschema.validate(expected(capture) | {"vmcheck": "any"}, json.loads(json_schema()))


def visible(capture: Capture, ranges: list[list[str]]) -> list[list[str]]:
    """A compressed dump's bitmaps end with the last struct page: a phantom at the very end is not seen."""
    header = read_header([capture.vmcore])
    if header.format is Format.ELF:
        return ranges
    return [pair for pair in ranges if int(pair[0], 16) < header.described.end]


@every_capture
def test_an_expected_report_says_what_the_guest_said(capture: Capture) -> None:
    report, truth = expected(capture), capture.verdict
    assert {
        "missing_memory": [
            [hex(start), hex(end)]
            for finding in found(report, "undescribed-ram", "undescribed-boot-ram")
            for start, end in finding["ranges"]
        ],
        "phantom_memory": [
            [hex(start), hex(end)]
            for finding in found(report, "described-without-ram")
            for start, end in finding["ranges"]
        ],
        "online_cpus_without_a_note": sorted(
            cpu for finding in found(report, "cpu-without-note", "cpu-never-saved") for cpu in finding["cpus"]
        ),
    } == truth | {"phantom_memory": visible(capture, truth["phantom_memory"])}


@every_capture
def test_a_whole_dump_exits_0_and_a_lossy_one_1(capture: Capture) -> None:
    truth, report = capture.verdict, expected(capture)
    whole = not any((truth | {"phantom_memory": visible(capture, truth["phantom_memory"])}).values())
    if found(report, "kernel-data-filtered", "truncated-file", "incomplete-flag"):
        whole = False
    assert report["exit_status"] == (0 if whole else 1)


@every_capture
def test_the_report_of_a_capture_fits_a_screen_and_its_markdown_a_ticket(capture: Capture) -> None:
    """40 lines of 100 columns, the memory bar and the wrapped answer included; 4 KB."""
    report = examine([str(capture.vmcore)], capture.symbols)
    file = io.StringIO()
    show(report, Console(file=file, width=100, force_terminal=True, highlight=False, color_system=None))
    lines = file.getvalue().splitlines()
    assert sum(max(1, -(-len(line) // 100)) for line in lines) <= 40
    assert len(render(report).splitlines()) <= 40

    unusual = any(outcome.rule == "kernel-data-filtered" for outcome in report.outcomes_in(State.FOUND))
    assert len(markdown(report)) < (8192 if unusual else 4096)


def opened_by_libkdumpfile(capture: Capture) -> bool:
    """Of flattened streams, it opens makedumpfile's compressed dumps only."""
    header = read_header([capture.vmcore])
    return header.format is not Format.ELF and header.producer is not Producer.HYPERVISOR


@pytest.mark.parametrize(
    "capture", [each for each in captures() if opened_by_libkdumpfile(each)], ids=lambda capture: capture.name
)
def test_drgn_opens_a_distilled_dump(capture: Capture) -> None:
    prog = drgn.Program()
    prog.set_core_dump(str(capture.vmcore))
    release = capture.truth["kernel"]
    assert f"OSRELEASE={release}\n".encode() in prog["VMCOREINFO"].string_()


def test_the_captures_stay_small() -> None:
    assert sum(path.stat().st_size for path in CAPTURES.rglob("*") if path.is_file()) < 40_000_000
