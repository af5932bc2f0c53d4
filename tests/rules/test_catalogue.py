# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every rule is tripped by a dump, and another is clean: real captures, and dumps built here, as files."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest

from fixtures.capture import captures
from tests.builders import GiB, MiB, RawNote, patched, ram
from tests.kernels import EARLY, HAS_MEM_MAP, IMAGE, ONLINE, PRESENT, Machine, healthy, words
from vmcheck.check import Report
from vmcheck.facts.findings import State
from vmcheck.operations.examine import examine
from vmcheck.rules import rules

AT_BOOT = dict.fromkeys(range(8), PRESENT | HAS_MEM_MAP | ONLINE | EARLY)
DIMM = ram(4 * GiB, 4 * GiB + 128 * MiB)


class Built:
    """A dump of a machine, whole unless a test says otherwise."""

    def __init__(self, machine: Machine | None = None) -> None:
        self.machine = machine or healthy()
        self.cpus: Sequence[int] = (0, 1)
        self.loads = [ram(-(-len(self.machine.memory) // 4096) * 4096, GiB)]
        self.options: dict[str, object] = {}
        self.change: Callable[[bytes], bytes] = lambda data: data

    def report(self, directory: Path) -> Report:
        path = Path(self.machine.vmcore(directory / "vmcore", self.loads, self.cpus, **self.options))
        path.write_bytes(self.change(path.read_bytes()))
        return examine([str(path)], self.machine.symbol_file(directory))


def whole() -> Built:
    return Built()


def hot_added() -> Built:
    return Built(healthy(ram=AT_BOOT | {32: PRESENT | ONLINE}))


def memory_removed() -> Built:
    built = Built()
    built.loads.append(DIMM)
    return built


def boot_memory_left_out() -> Built:
    built = Built()
    built.loads = [ram(built.loads[0].start, 512 * MiB)]
    return built


def cpu_that_did_not_answer() -> Built:
    built = Built()
    built.machine.place(words(0b111), "__cpu_online_mask")
    return built


def note_missing() -> Built:
    built = Built()
    built.cpus = (1,)
    return built


def note_of_nobody() -> Built:
    built = Built()
    built.cpus = (0, 1, 7)
    return built


def blocks_online_where_no_section_is() -> Built:
    machine = healthy(ram=AT_BOOT | {32: PRESENT | ONLINE})
    roots = int(machine.vmcoreinfo["SYMBOL(mem_section)"], 16)
    machine.put(machine.word(roots) + 16 * 32, words(PRESENT))
    return Built(machine)


def notes_damaged() -> Built:
    built = Built()
    built.change = lambda data: patched(data, data.find(b"VMCOREINFO\0") - 8, b"\xff\xff\xff\x7f")
    return built


def notes_cut_before_vmcoreinfo() -> Built:
    built = Built()
    built.change = lambda data: data.replace(b"VMCOREINFO\0", b"VMCOREINF?\0", 1)
    return built


def two_vmcoreinfos() -> Built:
    built = Built()
    built.options = {"notes": [RawNote("VMCOREINFO", 0, b"OSRELEASE=another\n")]}
    return built


def never_crashed() -> Built:
    built = Built()
    del built.machine.vmcoreinfo["CRASHTIME"]
    return built


def out_of_space() -> Built:
    built = Built()
    built.options = {"e_flags": 1}
    return built


def cut_short() -> Built:
    built = Built()
    built.change = lambda data: data[:-4096]
    return built


def segments_that_overlap() -> Built:
    built = Built()
    built.loads.append(ram(256 * MiB, 512 * MiB))
    return built


def segment_off_the_direct_map() -> Built:
    built = Built()
    (load,) = built.loads
    built.loads = [load._replace(end=512 * MiB), ram(512 * MiB, GiB, p_vaddr=0x1000)]
    return built


def symbols_of_another_kernel() -> Built:
    built = Built()
    built.machine.vmcoreinfo["BUILD-ID"] = "beef"
    return built


def text_left_out() -> Built:
    built = Built()
    built.machine.symbols |= {"_stext": IMAGE + 64 * MiB, "_etext": IMAGE + 65 * MiB}
    return built


def dumped_by_qemu_in_the_capture_kernel() -> Built:
    built = Built()
    # pr_pid is 100 more; QEMU's are 1 and 2.
    built.cpus = (-99, -98)
    built.options = {"notes": [RawNote("QEMU", 0, bytes(440))] * 2}
    return built


# A dump for each rule that no capture below trips, or that is worth a dump of its own.
BUILT: dict[str, Callable[[], Built]] = {
    "bad-notes": notes_damaged,
    "build-id-mismatch": symbols_of_another_kernel,
    "contradicting-vmcoreinfo": never_crashed,
    "cpu-never-saved": cpu_that_did_not_answer,
    "cpu-without-note": note_missing,
    "described-without-ram": memory_removed,
    "disagreeing-accounts": blocks_online_where_no_section_is,
    "doubled-vmcoreinfo": two_vmcoreinfos,
    "incomplete-flag": out_of_space,
    "kernel-data-filtered": text_left_out,
    "missing-vmcoreinfo": notes_cut_before_vmcoreinfo,
    "note-without-cpu": note_of_nobody,
    "notes-of-capture-kernel": dumped_by_qemu_in_the_capture_kernel,
    "notes-shifted": note_missing,
    "overlapping-segments": segments_that_overlap,
    "segment-addresses": segment_off_the_direct_map,
    "truncated-file": cut_short,
    "undescribed-boot-ram": boot_memory_left_out,
    "undescribed-ram": hot_added,
}
ABOUT_PAGES = {"capture-interrupted", "changed-while-read", "damaged-pages", "split-part-missing"}
"""Of compressed dumps, and of a file that changes: tests/unit/test_body.py breaks dumps that trip them."""
ASKED_ELSEWHERE = {"no-crash-kernel", "undescribed-undated-ram"} | ABOUT_PAGES
"""Asked of a live kernel, and where a recorded topology stands in: their own tests trip them."""


@cache
def found_in_captures() -> dict[str, list[str]]:
    """Names of the captures that trip each rule."""
    found: dict[str, list[str]] = {}
    for capture in captures():
        for finding in json.loads(capture.expected.read_text())["findings"]:
            found.setdefault(finding["rule"], []).append(capture.name)
    return found


def states(report: Report) -> dict[str, State]:
    return {outcome.rule: outcome.state for outcome in report.outcomes}


@pytest.mark.parametrize("rule", BUILT)
def test_a_built_dump_trips_the_rule(rule: str, tmp_path: Path) -> None:
    assert states(BUILT[rule]().report(tmp_path))[rule] is State.FOUND


def test_a_whole_dump_is_clean(tmp_path: Path) -> None:
    found = states(whole().report(tmp_path))
    # A hypervisor alone takes the registers of a capture kernel.
    others = ASKED_ELSEWHERE | {"notes-of-capture-kernel"}
    assert {rule for rule, state in found.items() if state is not State.CLEAN} <= others
    assert {rule for rule, state in found.items() if state is State.CLEAN} >= BUILT.keys() - others


def test_every_rule_is_tripped_by_some_dump() -> None:
    assert BUILT.keys() | found_in_captures().keys() | ASKED_ELSEWHERE == rules().keys()


def test_real_captures_trip_what_they_were_made_for() -> None:
    assert found_in_captures().keys() >= {
        "cpu-without-note",
        "described-without-ram",
        "kernel-data-filtered",
        "notes-shifted",
        "undescribed-ram",
    }


def test_some_capture_is_whole() -> None:
    assert [
        capture.name for capture in captures() if json.loads(capture.expected.read_text())["exit_status"] == 0
    ]


PARTS = ["What it means", "Why it matters", "What to do", "How it is decided"]


@pytest.mark.parametrize("rule", rules())
def test_a_rule_has_a_title_of_one_line_and_a_text_of_four_parts(rule: str) -> None:
    described = rules()[rule]
    assert described.title.endswith(".")
    assert len(described.title) <= 100
    paragraphs = described.text.strip().split("\n\n")
    assert [paragraph.partition(":")[0] for paragraph in paragraphs] == PARTS
    assert all(paragraph.endswith(".") for paragraph in paragraphs)


def test_a_rule_is_in_a_file_of_its_name() -> None:
    folder = Path(__file__).parents[2] / "vmcheck" / "rules"
    files = {path.stem.replace("_", "-") for path in folder.glob("*.py")} - {"--init--", "applies"}
    assert files == rules().keys()
    tests = {path.stem.removeprefix("test_").replace("_", "-") for path in Path(__file__).parent.glob("*.py")}
    assert rules().keys() - tests == set(), "each rule has its tests"
