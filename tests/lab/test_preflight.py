# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmcheck inside a live guest, before the crash; then the crash, and the dump says what was foretold.

Each guest tells one story: no crash kernel, a fresh header, memory and a CPU added, the crash kernel
loaded again, memory removed, other memory added, crash. The transcript is kept in build/preflight.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fixtures.lab import kernels
from fixtures.lab.machine import Hardware
from fixtures.lab.run import Run, capture
from fixtures.lab.scenarios import Scenario
from fixtures.lab.steps import AddCpu, AddDimm, Load, OfflineMemory, OnlineCpu, OnlineMemory, RemoveDimm, Step

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
VMCHECK = f"{sys.executable} -m vmcheck"
STORIES = [
    ("6.1", "kexec_load"),
    ("6.1", "kexec_file_load"),
    ("6.12", "kexec_load"),
    ("6.12", "kexec_file_load"),
]
MIB = 1 << 20


@dataclass
class Transcript:
    """What was asked and answered, and the reports by the moment's name."""

    lines: list[str] = field(default_factory=list)
    reports: dict[str, Any] = field(default_factory=dict)
    watch: list[str] = field(default_factory=list)


def in_host_root(command: str) -> str:
    inside = f"cd {shlex.quote(str(ROOT))} && export PYTHONDONTWRITEBYTECODE=1 && {command}"
    return f"chroot /host /bin/sh -c {shlex.quote(inside)}"


@dataclass(frozen=True)
class Done(Step):
    """Tells in the transcript, with the guest's clock, that a step is done."""

    step: Step
    transcript: Transcript

    def __str__(self) -> str:
        return "note the time"

    def do(self, run: Run) -> None:
        uptime = run.machine.run("cut -d' ' -f1 /proc/uptime").strip()
        self.transcript.lines.append(f"[{uptime:>8}] {self.step}\n")


@dataclass(frozen=True)
class Ask(Step):
    """``vmcheck preflight`` in the guest."""

    moment: str
    transcript: Transcript

    def __str__(self) -> str:
        return "vmcheck preflight"

    def do(self, run: Run) -> None:
        command = (
            f"{VMCHECK} preflight --json /tmp/report.json > /tmp/said 2>&1;"
            ' status=$?; cat /tmp/said; echo "exit status $status"'
        )
        said = run.machine.run(in_host_root(command), timeout=300)
        report = json.loads(run.machine.run("cat /host/tmp/report.json"))
        self.transcript.lines.append(f"--- {self.moment}\n# vmcheck preflight\n{said}\n")
        self.transcript.reports[self.moment] = report


@dataclass(frozen=True)
class AskFromOutside(Step):
    """``vmcheck preflight --qemu`` on the host."""

    socket: Path
    transcript: Transcript

    def __str__(self) -> str:
        return "vmcheck preflight --qemu"

    def do(self, run: Run) -> None:
        command = [*VMCHECK.split(), "preflight", "--qemu", str(self.socket), "--json", "-"]
        done = subprocess.run(command, capture_output=True, cwd=ROOT, timeout=300)
        assert done.returncode in (0, 1), done.stderr.decode()
        report = json.loads(done.stdout)
        self.transcript.reports["from outside"] = report
        self.transcript.lines.append(
            f"--- from outside\n$ vmcheck preflight --qemu SOCKET | head -1\n{report['answer']}\n"
        )


@dataclass(frozen=True)
class Watch(Step):
    """Start ``vmcheck watch``, its lines stamped with the guest's clock."""

    def __str__(self) -> str:
        return "vmcheck watch"

    def do(self, run: Run) -> None:
        watch = in_host_root(f"exec {VMCHECK} watch --textfile /tmp/vmcheck.prom 2>&1")
        stamp = "while read -r line; do echo \"$(cut -d' ' -f1 /proc/uptime) $line\"; done"
        run.machine.run(f"({watch} | {stamp}) < /dev/null > /run/watch.log 2>&1 &")
        self.wait_for(run, "<6>whole")

    @staticmethod
    def wait_for(run: Run, text: str) -> None:
        run.machine.until(f"tail -n 1 /run/watch.log | grep -q '{text}'", f"watch says {text}", timeout=300)


@dataclass(frozen=True)
class WatchSays(Step):
    text: str

    def __str__(self) -> str:
        return f"watch says {self.text}"

    def do(self, run: Run) -> None:
        Watch.wait_for(run, self.text)


@dataclass(frozen=True)
class WatchEnds(Step):
    transcript: Transcript

    def __str__(self) -> str:
        return "end watch"

    def do(self, run: Run) -> None:
        self.transcript.watch += run.machine.run("cat /run/watch.log").splitlines()
        said = "\n".join(
            f"[{line.split(' ', 1)[0]:>8}] {line.split(' ', 1)[-1]}" for line in self.transcript.watch
        )
        metrics = run.machine.run("grep -v '^#' /host/tmp/vmcheck.prom")
        cost = run.machine.run(
            "pid=$(pidof python3.11 python3 python | tr ' ' '\\n' | sort -n | head -n 1);"
            " grep -E 'VmRSS|ctxt' /proc/$pid/status; cut -d' ' -f14-17 /proc/$pid/stat"
        )
        self.transcript.lines.append(
            f"--- what vmcheck watch said meanwhile\n# vmcheck watch\n{said}\n\n"
            f"# cat vmcheck.prom\n{metrics}\n"
            f"# its process: memory, switches, utime stime cutime cstime\n{cost}"
        )


@dataclass(frozen=True)
class Record(Step):
    """``vmcheck record`` in the guest, to be a witness of its dump."""

    target: Path

    def __str__(self) -> str:
        return "vmcheck record"

    def do(self, run: Run) -> None:
        run.machine.run(in_host_root(f"{VMCHECK} record -o /tmp/record.json"), timeout=300)
        run.machine.run("cp /host/tmp/record.json /share/record.json")
        shutil.copy(run.share / "record.json", self.target)


@dataclass(frozen=True)
class Monitored(Hardware):
    """With a second QMP socket, since one QMP socket has one client."""

    socket: str = ""

    def arguments(self) -> list[str]:
        return [*super().arguments(), "-qmp", f"unix:{self.socket},server=on,wait=off"]


def story(transcript: Transcript, load: str, updates: bool, folder: Path) -> Scenario:
    socket = folder / "qmp"

    def tell(step: Step) -> tuple[Step, Step]:
        return step, Done(step, transcript)

    changed = "whole after" if updates else "stale"
    steps: tuple[Step, ...] = (
        Ask("no crash kernel", transcript),
        *tell(Load()),
        Ask("fresh", transcript),
        Watch(),
        *tell(AddDimm("d0")),
        *tell(AddDimm("d1")),
        *tell(OnlineMemory("online_movable")),
        WatchSays(changed),
        *tell(AddCpu(2)),
        *tell(OnlineCpu(2)),
        Ask("memory and a CPU added", transcript),
        AskFromOutside(socket, transcript),
        Record(folder / "same-boot.json"),
        *tell(Load()),
        WatchSays("whole after" if updates else "mended"),
        Ask("loaded again", transcript),
        *tell(OfflineMemory("d0")),
        *tell(RemoveDimm("d0")),
        WatchSays("stale"),
        Ask("memory removed", transcript),
        *tell(AddDimm("d2", 256)),
        *tell(OnlineMemory("online_movable")),
        WatchSays("mended" if updates else "256 MiB of"),
        WatchEnds(transcript),
        Ask("other memory added", transcript),
    )
    return Scenario("preflight", "a preflight at every step", steps, load, Monitored(socket=str(socket)))


@dataclass
class Told:
    transcript: Transcript
    updates: bool
    heard: list[Any]
    """What the record of the same boot and that of this machine say beside the dump."""
    dump: Any
    """The report of the dump, checked on the host."""
    truth: Any


def witness(dump: Path, record: Path) -> Any:
    command = [*VMCHECK.split(), "check", str(dump), "--topology", str(record), "--json", "-"]
    checked = subprocess.run(command, capture_output=True, cwd=ROOT, timeout=300)
    (comparison,) = json.loads(checked.stdout)["diagnosis"]["witnesses"]
    return comparison


@pytest.fixture(scope="module", params=STORIES, ids="-".join)
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Told:
    kernel, load = request.param
    updates = (kernel, load) == ("6.12", "kexec_file_load")
    out = tmp_path_factory.mktemp("story")
    transcript = Transcript()
    with tempfile.TemporaryDirectory(prefix="vmcheck-lab-") as folder:
        scenario = story(transcript, load, updates, Path(folder))
        try:
            truth = capture(kernels.find(kernel), scenario, out, host_root=True)
            command = [*VMCHECK.split(), "check", str(out / "vmcore"), "--json", str(out / "report.json")]
            checked = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
            transcript.lines.append(f"--- the crash, and the dump\n$ vmcheck check vmcore\n{checked.stdout}")
            here = Path(folder) / "this-machine.json"
            subprocess.run([*VMCHECK.split(), "record", "-o", str(here)], check=True, cwd=ROOT, timeout=300)
            heard = [witness(out / "vmcore", Path(folder) / "same-boot.json"), witness(out / "vmcore", here)]
            transcript.lines.append(
                "--- witnesses\n" + "\n".join(f"{each['witness']}: {each['text']}" for each in heard) + "\n"
            )
        finally:
            kept = ROOT / "build" / "preflight" / f"{kernel}-{load}.txt"
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text("\n".join(transcript.lines))
    return Told(transcript, updates, heard, json.loads((out / "report.json").read_text()), truth)


def lost(report: Any) -> tuple[str, int, list[int]]:
    """Verdict, missing bytes, CPUs without registers."""
    cpus = {cpu for finding in report["findings"] if finding["severity"] == "lost" for cpu in finding["cpus"]}
    return report["verdict"], report["memory"]["missing"], sorted(cpus)


def test_each_moment_is_foretold(told: Told) -> None:
    reports = told.transcript.reports
    whole = ("complete", 0, list[int]())
    assert lost(reports["fresh"]) == lost(reports["loaded again"]) == whole
    stale = whole if told.updates else ("incomplete", 256 * MIB, [2])
    assert lost(reports["memory and a CPU added"]) == stale
    assert lost(reports["memory removed"]) == ("misleading", 0, [])
    assert reports["memory removed"]["memory"]["phantom"] == 128 * MIB
    assert lost(reports["other memory added"]) == (whole if told.updates else ("incomplete", 256 * MIB, []))


def test_without_a_crash_kernel_the_answer_is_that(told: Told) -> None:
    report = told.transcript.reports["no crash kernel"]
    assert [finding["rule"] for finding in report["findings"]] == ["no-crash-kernel"]
    assert report["exit_status"] == 1


def test_from_outside_the_answer_is_the_same(told: Told) -> None:
    outside = told.transcript.reports["from outside"]
    inside = told.transcript.reports["memory and a CPU added"]
    same = ("verdict", "answer", "dump", "memory", "findings", "rules", "accounts")
    assert {name: outside[name] for name in same} == {name: inside[name] for name in same}


def test_the_dump_says_what_was_foretold(told: Told) -> None:
    foretold = told.transcript.reports["other memory added"]
    found = {
        name: [(each["rule"], each["ranges"], each["cpus"]) for each in report["findings"]]
        for name, report in (("before", foretold), ("after", told.dump))
    }
    assert found["after"] == found["before"]
    assert told.dump["memory"]["missing"] == foretold["memory"]["missing"]


def test_the_dump_lacks_what_the_lab_says(told: Told) -> None:
    missing = sum(int(end, 16) - int(start, 16) for start, end in told.truth["verdict"]["missing_memory"])
    assert told.dump["memory"]["missing"] == missing


def test_watch_told_each_change_and_how_long_it_lasted(told: Told) -> None:
    kinds = [line.split(" ")[1] for line in told.transcript.watch]
    assert "<5>mended," in kinds
    assert "<4>stale" in kinds
    assert kinds[0] == "<6>whole:"


def test_a_record_of_the_boot_is_heard_and_one_of_another_machine_refused(told: Told) -> None:
    same, other = told.heard
    assert same["text"].startswith("of the same boot")
    assert "256 MiB came and 128 MiB went between then and the crash" in same["text"]
    assert ("elfcorehdr lacked 256 MiB of it already" in same["text"]) is not told.updates
    assert other["text"].startswith("refused, it is of another boot")
