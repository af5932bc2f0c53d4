# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a crash now would leave: the forecast's values. The lab's guests are asked in tests/lab."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import pytest

from tests.builders import GiB
from tests.rules.cases import HEALTHY, KERNEL, dump, kernel
from vmcheck.check import ExitStatus, Report, Verdict, check
from vmcheck.facts.findings import Severity, State
from vmcheck.facts.header import CpuNote, DumpHeader, Producer, unwritten_registers
from vmcheck.facts.ranges import RangeSet
from vmcheck.facts.topology import CrashImage, SavedNote, Topology, Unknown
from vmcheck.operations.preflight import CannotLook, foretell, without_header
from vmcheck.records.sysfs import CrashKernel
from vmcheck.report import terminal, words
from vmcheck.report.document import json_schema, to_json
from vmcheck.report.page import page

IMAGE = CrashImage(((0x10000000, 16384, 4096),), False, None, None, None)
READY = CrashKernel(256 << 20, True, False, False, False, False)
ADDED = RangeSet([(4 * GiB, 5 * GiB)])


def place(cpu: int) -> bytes:
    return unwritten_registers(0x3FE0_0000 + cpu * 0x8000)


def loaded(*cpus: int, described: RangeSet = HEALTHY) -> DumpHeader:
    """elfcorehdr with a PT_NOTE for each of these CPUs."""
    notes = tuple(CpuNote(position, 0, place(cpu)) for position, cpu in enumerate(cpus))
    return replace(dump(described), producer=Producer.LOADED, cpu_notes=notes)


def live(*online: int, possible: int = 4, topology: Topology = KERNEL) -> Topology:
    return replace(
        topology,
        crash_image=IMAGE,
        possible_cpus=frozenset(range(possible)),
        present_cpus=frozenset(online),
        online_cpus=frozenset(online),
        saved_notes={cpu: SavedNote(place(cpu)) for cpu in range(possible)},
    )


def test_a_fresh_header_would_give_a_whole_dump() -> None:
    report = check(foretell(loaded(0, 1), live(0, 1)))
    assert report.verdict is Verdict.COMPLETE
    assert report.exit_status() is ExitStatus.COMPLETE


def test_memory_and_a_cpu_that_came_after_the_load_would_be_lost() -> None:
    report = check(foretell(loaded(0, 1), live(0, 1, 2, topology=kernel(hot_added=ADDED))))
    assert report.verdict is Verdict.INCOMPLETE
    assert report.lost_memory == ADDED
    assert report.lost_cpus == (2,)
    assert {finding.summary for finding in report.of(Severity.LOST)} == {
        "registers would be saved and have no note: elfcorehdr was written before the CPU came",
        "hot-added memory would be in no part of a dump: elfcorehdr is stale",
    }


def test_notes_of_possible_cpus_that_are_not_online_stay_empty_and_are_no_loss() -> None:
    case = foretell(loaded(0, 1, 2, 3), live(0, 3))
    assert [note.descriptor for note in case.header.cpu_notes] == [place(0), place(3)]
    assert [note.position for note in case.header.cpu_notes] == [0, 1]
    assert check(case).verdict is Verdict.COMPLETE


def test_a_cpu_added_in_the_middle_would_shift_the_notes_that_crash_shows() -> None:
    report = check(foretell(loaded(0, 1, 3), live(0, 1, 2, 3)))
    assert report.lost_cpus == (2,)
    [shifted] = [finding for rule, finding in report.named_findings if rule == "notes-shifted"]
    assert "crash would show CPU 3's registers as CPU 2's" in shifted.evidence


def test_a_note_that_points_at_no_cpus_crash_notes_is_wrong() -> None:
    header = loaded(0, 1)
    stray = CpuNote(2, 0, unwritten_registers(0x1234000))
    report = check(foretell(replace(header, cpu_notes=(*header.cpu_notes, stray)), live(0, 1)))
    [finding] = [finding for rule, finding in report.named_findings if rule == "note-without-cpu"]
    assert finding.evidence == ("PT_NOTE 2 of elfcorehdr points at no CPU's crash_notes",)


def test_memory_removed_after_the_load_would_be_described_in_vain() -> None:
    report = check(foretell(loaded(0, 1, described=HEALTHY | ADDED), live(0, 1)))
    assert report.verdict is Verdict.MISLEADING
    [(rule, finding)] = report.named_findings
    assert (rule, finding.ranges) == ("described-without-ram", ADDED)
    assert "no longer has" in finding.summary


def test_cpus_that_are_not_known_are_not_called_whole() -> None:
    topology = replace(live(0, 1), online_cpus=Unknown("cpu_online_mask: lost"))
    assert check(foretell(loaded(0, 1), topology)).exit_status() is not ExitStatus.COMPLETE


def test_rules_about_a_file_do_not_arise_before_there_is_one() -> None:
    states = {each.rule: each.state for each in check(foretell(loaded(0, 1), live(0, 1))).outcomes}
    about_files = ("truncated-file", "incomplete-flag", "kernel-data-filtered", "cpu-never-saved")
    assert {states[rule] for rule in about_files} == {State.INAPPLICABLE}
    assert states["contradicting-vmcoreinfo"] is State.CLEAN, "a live kernel's has no CRASHTIME"


@pytest.mark.parametrize(
    ("prepared", "summary"),
    [
        (replace(READY, loaded=False), "no crash kernel is loaded"),
        (replace(READY, loaded=False, reserved=0), "no memory is reserved for a crash kernel"),
    ],
)
def test_without_a_crash_kernel_a_crash_leaves_nothing(prepared: CrashKernel, summary: str) -> None:
    report = without_header(prepared, "x86_64")
    assert report is not None
    assert report.exit_status() is ExitStatus.FOUND
    assert [finding.summary for finding in report.findings] == [
        f"{summary}: a crash now would leave no dump at all"
    ]


@pytest.mark.parametrize(
    ("prepared", "machine"),
    [
        (READY, "s390x"),
        (
            replace(READY, loaded=False, fadump=True, fadump_registered=True, fadump_made_after=True),
            "ppc64le",
        ),
    ],
)
def test_a_header_that_is_made_after_the_crash_cannot_be_stale(prepared: CrashKernel, machine: str) -> None:
    report = without_header(prepared, machine)
    assert report is not None
    assert report.exit_status() is ExitStatus.COMPLETE
    assert {each.state for each in report.outcomes} == {State.CLEAN, State.INAPPLICABLE}


def test_an_old_fadump_header_cannot_be_looked_at() -> None:
    prepared = replace(READY, loaded=False, fadump=True, fadump_registered=True)
    with pytest.raises(CannotLook, match="register again"):
        without_header(prepared, "ppc64le")


def test_a_kernel_without_kexec_is_told_so() -> None:
    with pytest.raises(CannotLook, match="cannot load a crash kernel"):
        without_header(replace(READY, loaded=None, reserved=None), "x86_64")


def test_a_loaded_crash_kernel_is_asked_for_its_header() -> None:
    assert without_header(READY, "x86_64") is None


STALE = foretell(loaded(0, 1), live(0, 1, 2, topology=kernel(hot_added=ADDED)))
NOTHING_LOADED = without_header(replace(READY, loaded=False), "x86_64")


def test_the_answer_is_in_the_mood_of_a_forecast() -> None:
    assert words.answer(check(STALE)) == (
        "INCOMPLETE: 1.0 GiB of 2.0 GiB RAM and the registers of CPU 2 would not be in a dump if this "
        "kernel crashed now"
    )
    assert words.answer(check(foretell(loaded(0, 1), live(0, 1)))).startswith(
        "COMPLETE: a crash now would leave a dump of all"
    )


@pytest.mark.parametrize("report", [check(STALE), NOTHING_LOADED], ids=["stale", "nothing loaded"])
def test_every_form_of_the_report_is_of_the_header_and_not_of_a_dump(report: Report) -> None:
    text = terminal.render(report, full=True)
    assert "\nThe loaded elfcorehdr\n" in text
    assert "The dump" not in text
    assert '<h2 id="dump">The loaded elfcorehdr</h2>' in page(report)
    document = json.loads(to_json(report))
    jsonschema.validate(document, json.loads(json_schema()))
    assert document["dump"]["producer"] == "the loaded crash image"
    assert document["exit_status"] == 1


def test_a_report_before_the_crash_has_nothing_that_only_a_crash_tells() -> None:
    assert NOTHING_LOADED is not None
    assert NOTHING_LOADED.diagnosis is not None
    assert NOTHING_LOADED.diagnosis.timeline is None
    assert NOTHING_LOADED.diagnosis.this_dump == ()
