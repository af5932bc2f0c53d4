# SPDX-License-Identifier: LGPL-2.1-or-later
"""A dump captured afresh: one of this test session's, one of build/lab, or a new one.

The dumps are raw /proc/vmcore files, so that every peer can be shown the same one.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from fixtures.lab import apt, kernels
from fixtures.lab.errors import LabError
from fixtures.lab.run import capture
from fixtures.lab.scenarios import BY_NAME, RAW, Scenario
from tests.peers.programs import bounded
from vmcheck.check import Report
from vmcheck.facts.header import DumpHeader
from vmcheck.facts.topology import Topology
from vmcheck.operations.examine import examine

ROOT = Path(__file__).parents[2]
FILED = ROOT / "build/lab"
"""Where ``make lab`` files captures, and these tests what they had to capture themselves."""
NEEDED = {"qemu-system-x86_64": "qemu-system-x86", "apt-get": "apt", "setpriv": "util-linux"}


@dataclass(frozen=True)
class Wanted:
    """A row of the lab's table on a kernel, its elfcorehdr loaded one way, saved as it is."""

    name: str
    kernel: str
    load: str = "kexec_load"

    def __str__(self) -> str:
        return f"{self.name}-{self.kernel}-{self.load}"

    @property
    def scenario(self) -> Scenario:
        return replace(BY_NAME[self.name], load=self.load, capture=RAW)

    def is_that_of(self, told: dict[str, Any]) -> bool:
        """Whether a truth is of this capture: the same steps on the same kernel, saved the same way."""
        scenario = self.scenario
        return bool(
            told["scenario"] == scenario.name
            and told["steps"] == [*map(str, scenario.steps), scenario.crash_in_words]
            and told["kernel"].startswith(f"{self.kernel}.")
            and told["load"].startswith(f"{scenario.load} (")
            and told["regime"] == scenario.regime
            and told["capture"] == scenario.capture
        )


FETCHED = "6.1"
"""The kernel whose debuginfo is fetched, 0.6 GB; that of others is used where it is in the lab's cache."""


@dataclass(frozen=True)
class Fresh:
    """A capture: its dump, its truth, and what vmcheck makes of it."""

    folder: Path

    @property
    def vmcore(self) -> Path:
        return self.folder / "vmcore"

    @cached_property
    def told(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "truth.json").read_text())
        return found

    @property
    def release(self) -> str:
        return str(self.told["kernel"])

    @cached_property
    def report(self) -> Report:
        return examine([str(self.vmcore)])

    @property
    def header(self) -> DumpHeader:
        return self.report.header

    @property
    def topology(self) -> Topology:
        return self.report.topology

    @property
    def missing_memory(self) -> list[tuple[int, int]]:
        """What the truth says that the dump lacks."""
        return [(int(start, 16), int(end, 16)) for start, end in self.told["verdict"]["missing_memory"]]


def captures_in(folder: Path) -> Iterator[Fresh]:
    """Finished captures, the newest first: truth.json is written last."""
    truths = sorted(folder.glob("**/truth.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return (Fresh(path.parent) for path in truths if (path.parent / "vmcore").exists())


def find_or_capture(wanted: Wanted, session: Path) -> Fresh:
    """``session`` is where this test session keeps its folders. Skips where the lab's tools are missing."""
    for folder in (session, FILED):
        for fresh in captures_in(folder):
            if wanted.is_that_of(fresh.told):
                return fresh
    for tool, package in NEEDED.items():
        if shutil.which(tool) is None:
            pytest.skip(f"no {wanted} at hand, and {tool} is not on this machine: apt-get install {package}")
    kernel = kernels.find(wanted.kernel)
    out = FILED / kernel.version / f"{wanted.name}-{wanted.load.replace(' --', '-')}-raw"
    capture(kernel, wanted.scenario, out)
    return Fresh(out)


def debuginfo(fresh: Fresh) -> Path:
    """The vmlinux with DWARF of a capture's kernel."""
    kept = apt.cache() / "vmlinux" / fresh.release / "vmlinux"
    if kept.exists():
        return kept
    version = ".".join(fresh.release.split(".")[:2])
    if version != FETCHED:
        pytest.skip(f"no vmlinux of {fresh.release}: python -m fixtures.lab vmlinux {version} fetches it")
    try:
        kernel = kernels.find(version)
        if kernel.release != fresh.release:
            pytest.skip(f"no vmlinux of {fresh.release}: there is {kernel.release} now")
        return kernels.vmlinux(kernel)
    except LabError as error:
        pytest.skip(f"no vmlinux of {fresh.release}: {error}")


class Captures:
    """The captures of a session, and makedumpfile's dresses of them: each made once."""

    def __init__(self, session: Path, dressed: Path) -> None:
        self._session, self._dressed = session, dressed
        self._found: dict[Wanted, Fresh] = {}
        self._reports: dict[tuple[Wanted, str], Dressed] = {}

    def __getitem__(self, wanted: Wanted) -> Fresh:
        if wanted not in self._found:
            self._found[wanted] = find_or_capture(wanted, self._session)
        return self._found[wanted]

    def dressed(self, wanted: Wanted, makedumpfile: list[str], version: str) -> Dressed:
        """The capture compressed and filtered at dump level 31, with what makedumpfile said of it."""
        if (wanted, version) not in self._reports:
            out = self._dressed / f"{wanted}-{version}"
            command = [
                *makedumpfile,
                "--message-level",
                "31",
                "-c",
                "-d",
                "31",
                "-f",
                str(self[wanted].vmcore),
            ]
            began = time.monotonic()
            status, said = bounded([*command, str(out)], seconds=240)
            print(f"makedumpfile {version} on {wanted}: {time.monotonic() - began:.1f} s")
            self._reports[wanted, version] = Dressed(out, status, said)
        return self._reports[wanted, version]


@dataclass(frozen=True)
class Dressed:
    """A dump that makedumpfile made of a capture."""

    path: Path
    status: int
    said: str

    @cached_property
    def report(self) -> Report:
        return examine([str(self.path)])


LOST = Wanted("mem-and-cpu-added", "6.1")
"""128 MiB and CPU 2's registers are missing."""
WHOLE = Wanted("fresh", "6.1")
MIDDLE = Wanted("cpu-added-in-the-middle", "6.1")
"""CPU 2's registers are missing, and CPU 3's are in the third note."""
UPDATED = Wanted("mem-and-cpu-added", "6.12", "kexec_file_load")
"""The kernel kept elfcorehdr up to date: whole."""
REMOVED = Wanted("mem-removed", "6.12", "kexec_file_load")
"""128 MiB are described that were gone."""
