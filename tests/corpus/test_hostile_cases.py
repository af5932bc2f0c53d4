# SPDX-License-Identifier: LGPL-2.1-or-later
"""Small inputs that once took minutes, gigabytes or a traceback: fixtures/cases has one folder for each."""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from fixtures.capture import captures

CASES = Path(__file__).parents[2] / "fixtures" / "cases"
MOST_MEMORY = 600 << 20
"""Bytes of one process: the budget of 400 MiB, and what Python and its libraries take before."""
HANGS = 60
"""Seconds after which a case has hung: three times its budget."""


class Said(NamedTuple):
    status: int
    first: str
    """The first line, of standard error where nothing is on standard output."""


LACKS = "INCOMPLETE: 128 MiB RAM is missing"
MISLEADS = "MISLEADING: VMCOREINFO contradicts the dump's other headers"

RIGHT = {
    # LENGTH(node_data)=4096: the union of all other nodes was made for each node.
    "hang-4096-nodes": Said(1, LACKS),
    # A first bitmap of 8 MiB of 0x55: 33 million ranges.
    "hang-alternating-bitmap": Said(3, "vmcheck: vmcore: the check wants more than 400 MiB of memory"),
    # A stream of 21 KB with a bitmap of 512 GiB, nearly all of it a hole.
    "hang-flattened-bitmap": Said(1, MISLEADS),
    # 1024 records of 65,527 newlines in one page: 67 million lines of log.
    "hang-log-of-newlines": Said(1, LACKS),
    # 262,144 roots of mem_section that are one page.
    "mem-64-million-sections": Said(1, "INCOMPLETE: CPU 2 has no register note"),
    # e_phnum is 4,194,304, in a hole of a stream.
    "mem-program-headers-in-a-hole": Said(3, "vmcheck: vmcore: 4194304 program headers, more than any"),
    # 600 PT_NOTEs of one VMCOREINFO of 1 MiB.
    "mem-pt-notes-of-one-vmcoreinfo": Said(1, MISLEADS),
    # struct module has neither mem nor core_layout.
    "trace-module-without-layout": Said(1, LACKS),
    # drgn raises NotImplementedError for an integer of BTF that is wider than it reads.
    "trace-not-implemented": Said(1, LACKS),
    # BTF makes unsigned long another type, so that page_offset_base is no 64-bit number.
    "trace-page-offset-type": Said(1, LACKS),
}


def run(*arguments: str, cwd: Path) -> tuple[int, str, str, int]:
    """Exit status, standard output, standard error, and bytes of the largest process."""
    script = (
        "import json, resource, subprocess, sys\n"
        "command = [sys.executable, '-m', 'vmcheck', *sys.argv[1:]]\n"
        "done = subprocess.run(command, capture_output=True, text=True)\n"
        "most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
        "print(json.dumps([done.returncode, done.stdout, done.stderr, most << 10]))\n"
    )
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS, cwd=cwd, check=True)
    status, out, err, most = json.loads(done.stdout)
    return status, out, err, most


@pytest.mark.parametrize("name", RIGHT)
def test_a_hostile_dump_is_answered_in_its_budget(name: str, tmp_path: Path) -> None:
    (tmp_path / "vmcore").write_bytes(lzma.decompress((CASES / name / "vmcore.xz").read_bytes()))
    symbols = CASES / name / "kernel.symbols"
    status, out, err, most = run(
        "check", "vmcore", *(["-s", str(symbols)] if symbols.exists() else []), cwd=tmp_path
    )
    assert (status, (out or err).split("\n")[0][: len(RIGHT[name].first)]) == RIGHT[name]
    assert err == "" or (status == 3 and err.count("\n") == 1)
    assert most < MOST_MEMORY


@pytest.mark.parametrize(
    ("name", "why"),
    [
        # 1 << 63, which the schema allows and 64 bits do not hold.
        ("trace-topology-section-size", "sections.size is 9223372036854775808, which 64 bits do not hold"),
        # 2**40 - 1 seconds.
        ("trace-topology-year", "recorded is 1099511627775, which is no time in seconds"),
    ],
)
def test_a_record_that_no_machine_made_is_one_line(name: str, why: str, tmp_path: Path) -> None:
    capture = next(capture for capture in captures() if capture.name == "6.1.0-56-amd64/whole")
    topology = str(CASES / name / "topology.json")
    status, out, err, _ = run("check", str(capture.vmcore), "--topology", topology, cwd=tmp_path)
    assert (status, out, err.count("\n")) == (3, "", 1)
    assert why in err


@pytest.mark.parametrize("size", ["-8000000", "0", "ffffffffffffffff", "x"])
def test_memory_blocks_of_a_size_that_no_machine_has_are_one_line(size: str, tmp_path: Path) -> None:
    folder = tmp_path / "root" / "sys" / "devices" / "system" / "memory"
    (folder / "memory1").mkdir(parents=True)
    (folder / "block_size_bytes").write_text(f"{size}\n")
    (folder / "memory1" / "state").write_text("online\n")
    status, out, err, _ = run("record", "--root", "root", "-o", "record.json", cwd=tmp_path)
    assert (status, out, err.count("\n")) == (3, "", 1)


@pytest.mark.parametrize(
    "expected",
    [
        {"memory": {"described": 10**400}},
        {"findings": [{"rule": "undescribed-ram", "ranges": [["a", "b"]]}]},
    ],
)
def test_an_expected_report_with_odd_values_is_a_difference(
    expected: dict[str, object], tmp_path: Path
) -> None:
    capture = next(capture for capture in captures() if capture.name == "6.1.0-56-amd64/mem-added")
    (tmp_path / "expected.json").write_text(json.dumps(expected))
    status, out, err, _ = run(
        "expect", str(capture.vmcore), "expected.json", "-s", str(capture.symbols), cwd=tmp_path
    )
    assert (status, err) == (1, "")
    assert out


def test_the_budget_is_what_the_options_say(tmp_path: Path) -> None:
    (tmp_path / "vmcore").write_bytes(
        lzma.decompress((CASES / "hang-alternating-bitmap" / "vmcore.xz").read_bytes())
    )
    for option, why in (
        (
            ["--memory-limit", "64"],
            "vmcheck: vmcore: the check wants more than 64 MiB of memory (--memory-limit)\n",
        ),
        (
            ["--memory-limit", "8000", "--time-limit", "0.2"],
            "vmcheck: vmcore: the check takes more than 0.2 seconds (--time-limit)\n",
        ),
    ):
        status, out, err, _ = run("check", "vmcore", *option, cwd=tmp_path)
        assert (status, out, err) == (3, "", why)
