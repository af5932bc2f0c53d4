# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every Debian dump read with BTF switched off: types by shape find the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fixtures.capture import Capture, captures
from tests.dumps import name, real_dumps
from vmcheck.check import Report, Verdict
from vmcheck.facts.findings import State
from vmcheck.kernel.program import Kernel
from vmcheck.kernel.symbols import SymbolError
from vmcheck.operations.examine import examine
from vmcheck.report.document import to_json


@pytest.fixture(autouse=True)
def _without_btf(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(kernel: Kernel) -> None:
        raise SymbolError("the kernel has no BTF (CONFIG_DEBUG_INFO_BTF is off)")

    monkeypatch.setattr(Kernel, "_load_btf", absent)


def found(report: dict[str, Any]) -> set[tuple[str, str, str]]:
    """Rule, ranges and CPUs of each finding; which pages were read to see damage may differ."""
    return {
        (each["rule"], str(each["ranges"]), str(each["cpus"]))
        for each in report["findings"]
        if each["rule"] != "kernel-data-filtered"
    }


def check_same(report: Report, expected: dict[str, Any]) -> None:
    made = json.loads(to_json(report))
    assert found(made) == found(expected)
    assert made["verdict"] == expected["verdict"]


@pytest.mark.parametrize("capture", captures(), ids=str)
def test_a_capture_without_btf_is_found_the_same_or_unknown(capture: Capture) -> None:
    """A distilled capture lacks pages that only a reading by shape needs: then a rule is skipped."""
    expected = json.loads(capture.expected.read_text())
    report = examine([str(capture.vmcore)], capture.symbols)
    assert "types by shape" in report.topology.source
    skipped = [outcome for outcome in report.outcomes if outcome.state is State.SKIPPED]
    if not skipped:
        check_same(report, expected)
        return
    made = json.loads(to_json(report))
    assert found(made) <= found(expected)
    assert made["verdict"] == expected["verdict"] or report.verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("real", real_dumps(), ids=name)
def test_a_whole_dump_without_btf_is_found_the_same(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = examine([str(real)])
    monkeypatch.undo()
    typed = examine([str(real)])
    check_same(report, json.loads(to_json(typed)))
    assert causes(report) == causes(typed)


def causes(report: Report) -> list[tuple[str, tuple[str, ...]]]:
    assert report.diagnosis is not None
    return [(cause.name, cause.rules) for cause in report.diagnosis.causes]
