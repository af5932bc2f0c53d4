# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real captures: what the diagnosis says beside what the guest did.

The captures of the repository, and every ``vmcore`` with a ``truth.json`` below VMCHECK_DUMPS.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fixtures.capture import captures
from vmcheck.check import Report
from vmcheck.facts.diagnosis import Certainty, Conclusion, Diagnosis
from vmcheck.facts.header import Producer
from vmcheck.facts.topology import Loss, LostPages, PageKind
from vmcheck.operations.examine import examine


@dataclass(frozen=True)
class Dump:
    name: str
    path: str
    symbols: str | None
    truth_path: str

    @property
    def truth(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(Path(self.truth_path).read_text())
        return loaded

    @property
    def report(self) -> Report:
        return _examined(self.path, self.symbols)

    @property
    def diagnosis(self) -> Diagnosis:
        told = self.report.diagnosis
        assert told is not None
        return told


@cache
def _examined(path: str, symbols: str | None) -> Report:
    return examine([path], symbols)


def dumps() -> list[Dump]:
    found = [
        Dump(each.name, str(each.vmcore), each.symbols, str(each.folder / "truth.json"))
        for each in captures()
    ]
    if folder := os.environ.get("VMCHECK_DUMPS"):
        for truth in sorted(Path(folder).rglob("truth.json")):
            vmcore = truth.with_name("vmcore")
            if vmcore.exists():
                name = f"{truth.parent.parent.name}/{truth.parent.name}"
                found.append(Dump(name, str(vmcore), None, str(truth)))
    return found


every_dump = pytest.mark.parametrize("dump", dumps(), ids=lambda dump: dump.name)


def kernel_updates(truth: dict[str, Any]) -> bool:
    """Linux 6.6 and later, on x86: CONFIG_CRASH_HOTPLUG is on in Debian's."""
    major, minor = (int(part) for part in truth["kernel"].split(".")[:2])
    return (major, minor) >= (6, 6)


def regimes(truth: dict[str, Any]) -> set[str]:
    """What may be called certain: how the crash kernel was loaded, or who reloaded it."""
    if kernel_updates(truth) and truth["load"].startswith("kexec_file_load"):
        return {"in-kernel-file-load"}
    if kernel_updates(truth) and "--hotplug" in truth["load"]:
        return {"in-kernel-kexec-load"}
    agents = {"kdump-tools": {"debian-try-reload"}, "throttled": {"rhel-throttled-reload"}}
    return agents.get(truth.get("regime", "none"), set())


def causes(truth: dict[str, Any]) -> set[str]:
    """What may be called certain of what the guest lacks."""
    verdict, told = truth["verdict"], set[str]()
    by_kernel = bool(regimes(truth) & {"in-kernel-file-load", "in-kernel-kexec-load"})
    if verdict["missing_memory"] or verdict["online_cpus_without_a_note"]:
        told.add("loaded-without-hotplug" if kernel_updates(truth) else "added-after-load")
    if any("stopped" in step or "frozen" in step for step in truth["steps"]):
        told = {"cpu-never-answered"}
    if verdict["phantom_memory"]:
        told.add("phantom-after-remove" if by_kernel else "removed-after-load")
    if "disk" in truth["what"]:
        told.add("capture-out-of-space")
    return told


@every_dump
def test_nothing_untrue_is_called_certain(dump: Dump) -> None:
    truth, told = dump.truth, dump.diagnosis
    right = {"hypervisor"} if dump.report.header.producer is Producer.HYPERVISOR else regimes(truth)
    if told.regime.certainty is Certainty.CERTAIN:
        assert told.regime.name in right
    certain = {cause.name for cause in told.causes if cause.certainty is Certainty.CERTAIN}
    assert certain <= causes(truth)


@every_dump
def test_every_finding_of_a_loss_has_a_cause(dump: Dump) -> None:
    explained = {rule for cause in dump.diagnosis.causes for rule in cause.rules}
    found = {rule for rule, _ in dump.report.named_findings}
    losses = {"undescribed-ram", "cpu-without-note", "cpu-never-saved", "described-without-ram"}
    assert found & losses <= explained
    assert bool(dump.diagnosis.next_dump) == bool(dump.diagnosis.causes)


@every_dump
def test_a_cause_or_regime_that_is_not_known_says_why(dump: Dump) -> None:
    def open_questions() -> list[Conclusion]:
        told = dump.diagnosis
        return [each for each in (told.regime, *told.causes) if each.certainty is Certainty.UNKNOWN]

    for conclusion in open_questions():
        assert conclusion.name.startswith("unknown-")
        assert conclusion.evidence


@cache
def counted() -> list[tuple[Dump, str, int]]:
    """Dumps whose missing memory is all of a zone that the guest counted before it crashed."""
    found = []
    for dump in dumps():
        for name, line in dump.truth["before_the_crash"].get("zones", {}).items():
            first, present, free, lists = map(int, line.split())
            if [[hex(first * 4096), hex((first + present) * 4096)]] == dump.truth["verdict"][
                "missing_memory"
            ]:
                found.append((dump, name, free + lists))
    return found


@pytest.mark.parametrize(
    ("dump", "zone", "free"), counted(), ids=[f"{dump.name}-{zone}" for dump, zone, _ in counted()]
)
def test_struct_pages_tell_what_the_guest_s_own_counters_told(dump: Dump, zone: str, free: int) -> None:
    """A few processes ran between the guest's count and the crash: 1 MiB is allowed for, 1% of a sample."""
    loss = dump.report.topology.loss
    assert isinstance(loss, Loss)
    assert isinstance(loss.pages, LostPages)
    assert {f"{count.node} {count.zone}" for count in loss.pages.counts} == {zone}
    told = loss.pages.share(PageKind.FREE) * loss.pages.pages
    assert abs(told - free) <= (loss.pages.pages // 100 if loss.pages.sampled else 256)


def test_some_capture_has_the_guest_s_own_counters_and_is_looked_at_whole() -> None:
    losses = [dump.report.topology.loss for dump, _, _ in counted()]
    assert any(
        isinstance(loss, Loss) and isinstance(loss.pages, LostPages) and not loss.pages.sampled
        for loss in losses
    )


EXPECTED = {
    "5.10.0-46-amd64/mem-and-cpu-added": (
        ("no-update", Certainty.LIKELY),
        [("added-after-load", Certainty.CERTAIN)],
    ),
    "6.1.0-56-amd64/cpu-added-in-the-middle": (
        ("no-update", Certainty.LIKELY),
        [("added-after-load", Certainty.CERTAIN)],
    ),
    "6.1.0-56-amd64/memory-and-cpu-added": (
        ("no-update", Certainty.LIKELY),
        [("added-after-load", Certainty.CERTAIN)],
    ),
    "6.1.0-56-amd64/whole": (("unknown-regime", Certainty.UNKNOWN), []),
    "6.1.0-56-amd64/numa-mem-added-counted": (
        ("no-update", Certainty.LIKELY),
        [("added-after-load", Certainty.CERTAIN)],
    ),
    "6.12.107+deb13-amd64/memory-removed": (
        ("in-kernel-file-load", Certainty.CERTAIN),
        [("phantom-after-remove", Certainty.CERTAIN)],
    ),
    # makedumpfile left out kexec_crash_image itself: the header's first MiB tells how it was loaded.
    "7.2.13+deb14-amd64/memory-and-cpu-added": (
        ("unknown-regime", Certainty.UNKNOWN),
        [("loaded-without-hotplug", Certainty.LIKELY), ("makedumpfile-too-old", Certainty.LIKELY)],
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_regime_and_causes_of_the_repository_s_captures(name: str) -> None:
    dump = next((each for each in dumps() if each.name == name), None)
    if dump is None:
        pytest.skip(f"fixtures/captures/{name} is not there")
    told = dump.diagnosis
    regime, causes = EXPECTED[name]
    assert ((told.regime.name, told.regime.certainty), [(c.name, c.certainty) for c in told.causes]) == (
        regime,
        causes,
    )


def test_the_capture_that_lost_its_crashing_task_says_so_with_all_that_is_known() -> None:
    dump = next(each for each in dumps() if each.name == "6.1.0-56-amd64/memory-and-cpu-added")
    told = dump.diagnosis
    assert told.impact is not None
    assert told.impact.headline == (
        "the crashing task, sh (PID 384) on CPU 0, is lost: its task_struct lies in missing memory"
    )
    assert told.impact.facts[0] == (
        "5 more of 61 tasks lack task_struct or kernel stack: cpuhp/2 (PID 211), ksoftirqd/2 (PID 213), "
        "kworker/2:0 (PID 214), kworker/2:0H (PID 215), kworker/2:1 (PID 216)"
    )
    assert told.impact.facts[1].startswith("of 128 MiB missing: 127 MiB free, 720 KiB slab")
    assert told.impact.recoverable_cpus == (2,)


def test_the_capture_of_a_re_plugged_cpu_bounds_when_its_header_was_written() -> None:
    dump = next(each for each in dumps() if each.name == "6.1.0-56-amd64/cpu-added-in-the-middle")
    line = dump.diagnosis.timeline
    assert line is not None
    (written,) = [event for event in line.events if "elfcorehdr" in event.text]
    log = dump.report.topology.log
    assert isinstance(log, str)
    added = {
        cpu: re.findall(rf"\[ *([\d.]+)\] (?:ACPI: )?CPU{cpu} has been hot-added", log) for cpu in (2, 3)
    }
    assert (written.not_before, written.not_after) == (float(added[3][0]), float(added[2][-1]))
    assert "names CPU 3 and lacks CPU 2" in written.text
