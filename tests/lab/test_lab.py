"""Scenarios captured afresh: the dump a real crash kernel saved says what the truth says.

The dumps are raw /proc/vmcore files, and readelf reads them: neither vmcheck nor the lab's own reading
of elfcorehdr takes part.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fixtures.lab import kernels
from fixtures.lab.errors import LabError
from fixtures.lab.run import capture
from fixtures.lab.scenarios import BY_NAME, RAW
from fixtures.lab.steps import Shell
from fixtures.lab.truth import PAGE, cpu_list, subtract, union, whole_pages

pytestmark = pytest.mark.lab

NEEDED = {
    "qemu-system-x86_64": "qemu-system-x86",
    "readelf": "binutils",
    "apt-get": "apt",
    "setpriv": "util-linux",
}

CAPTURES = [
    ("fresh", "6.1", "kexec_load"),
    ("mem-and-cpu-added", "6.1", "kexec_load"),
    ("mem-and-cpu-added", "6.12", "kexec_file_load"),
    ("mem-removed", "6.12", "kexec_file_load"),
]

LOST = {
    "missing_memory": [["0x100000000", "0x108000000"]],
    "phantom_memory": [],
    "online_cpus_without_a_note": [2],
}
WHOLE: dict[str, Any] = {"missing_memory": [], "phantom_memory": [], "online_cpus_without_a_note": []}
PHANTOM = {**WHOLE, "phantom_memory": [["0x108000000", "0x110000000"]]}
VERDICTS = [WHOLE, LOST, WHOLE, PHANTOM]


@pytest.fixture(scope="session", autouse=True)
def _tools() -> None:
    for tool, package in NEEDED.items():
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not on this machine: apt-get install {package}")


@pytest.fixture(scope="module", params=CAPTURES, ids=lambda row: "-".join(row).replace(" ", ""))
def captured(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The truth of one scenario, and the folder its dump is in."""
    name, kernel, load = request.param
    out = tmp_path_factory.mktemp(name)
    scenario = replace(BY_NAME[name], load=load, capture=RAW)
    told = capture(kernels.find(kernel), scenario, out)
    told["expected"] = VERDICTS[CAPTURES.index(request.param)]
    return told, out


def readelf(option: str, dump: Path) -> str:
    return subprocess.run(
        ["readelf", "-W", option, str(dump)], capture_output=True, text=True, check=True
    ).stdout


def test_the_truth_is_what_the_scenario_is_for(captured: tuple[Any, Path]) -> None:
    told, _ = captured
    assert told["verdict"] == told["expected"]
    assert told["before_the_crash"]["kexec_crash_loaded"] == "1"


def test_the_dump_describes_and_lacks_the_memory_the_truth_names(captured: tuple[Any, Path]) -> None:
    told, out = captured
    loads = re.findall(r"LOAD +0x\w+ 0x\w+ 0x(\w+) 0x\w+ 0x(\w+)", readelf("--segments", out / "vmcore"))
    described = union((int(start, 16), int(start, 16) + int(size, 16)) for start, size in loads)
    lines = [re.fullmatch(r"(\w+)-(\w+) : System RAM", line) for line in told["before_the_crash"]["iomem"]]
    ram = union((int(line[1], 16), int(line[2], 16) + 1) for line in lines if line)
    # The header of kexec_file_load leaves out the low 1 MiB, and both leave out the crash kernel.
    added = [(4 << 30, 5 << 30)]
    lost = subtract(ram, described)
    high = [[hex(start), hex(end)] for start, end in lost if start >= added[0][0]]
    assert high == told["verdict"]["missing_memory"]
    vain = whole_pages(subtract(described, ram))
    assert [[hex(start), hex(end)] for start, end in vain] == told["verdict"]["phantom_memory"]


def test_the_dump_has_the_notes_of_the_cpus_the_truth_names(captured: tuple[Any, Path]) -> None:
    told, out = captured
    online = cpu_list(told["before_the_crash"]["cpus"]["online"])
    notes = readelf("--notes", out / "vmcore").count("NT_PRSTATUS")
    assert notes == len(online) - len(told["verdict"]["online_cpus_without_a_note"])


def test_the_dump_is_as_long_as_its_headers_say(captured: tuple[Any, Path]) -> None:
    _, out = captured
    segments = re.findall(r"LOAD +0x(\w+) 0x\w+ 0x\w+ 0x(\w+)", readelf("--segments", out / "vmcore"))
    end = max(int(offset, 16) + int(size, 16) for offset, size in segments)
    assert (out / "vmcore").stat().st_size == -(-end // PAGE) * PAGE


def test_the_console_shows_both_kernels(captured: tuple[Any, Path]) -> None:
    told, out = captured
    console = (out / "console.log").read_text(errors="replace")
    assert console.count(f"Linux version {told['kernel']} ") == 2
    assert "lab: capture kernel is up" in console


def test_a_guest_that_dies_on_the_way_is_an_error_of_the_labs(tmp_path: Path) -> None:
    scenario = replace(BY_NAME["fresh"], steps=(Shell("echo c > /proc/sysrq-trigger"),))
    with pytest.raises(LabError, match="the guest died: its console ends with"):
        capture(kernels.find("6.12"), scenario, tmp_path / "out")
    assert not list((tmp_path / "out").glob("vmcore*"))


def test_a_command_that_fails_in_the_guest_is_an_error_of_the_labs(tmp_path: Path) -> None:
    scenario = replace(BY_NAME["fresh"], steps=(Shell("cat /no/such/file"),))
    with pytest.raises(LabError, match="failed with status 1"):
        capture(kernels.find("6.12"), scenario, tmp_path / "out")
