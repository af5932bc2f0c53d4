# SPDX-License-Identifier: LGPL-2.1-or-later
"""Decisions over built evidence. What real captures say is in test_diagnose_captures.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.capture import captures
from tests.rules.cases import (
    COMPRESSED,
    DUMP,
    FROM_QEMU,
    HEALTHY,
    KERNEL,
    cut_short,
    dump,
    kernel,
    notes,
    saved,
)
from vmcheck.check import check
from vmcheck.diagnosis import causes as causes_module
from vmcheck.diagnosis import distributions as distributions_module
from vmcheck.diagnosis import regimes as regimes_module
from vmcheck.diagnosis.diagnose import diagnose
from vmcheck.diagnosis.distributions import distribution
from vmcheck.diagnosis.explanation import explanations
from vmcheck.diagnosis.remedies import remedies, remedy
from vmcheck.facts.case import Case
from vmcheck.facts.diagnosis import Cause, Certainty, Conclusion, Diagnosis, Event, Regime, Use
from vmcheck.facts.header import DumpHeader
from vmcheck.facts.ranges import EMPTY, RangeSet
from vmcheck.facts.topology import (
    CrashImage,
    Loss,
    LostModule,
    LostPages,
    Modules,
    PageCount,
    PageKind,
    Resources,
    SavedNote,
    Sections,
    Task,
    Tasks,
    Topology,
    Unknown,
)

MiB = 1 << 20
DIMM = RangeSet([(4096 * MiB, 4224 * MiB)])
GROWN = kernel(hot_added=DIMM)
"""A kernel to which memory came after its header was written."""

PLAIN = CrashImage((), file_mode=False, hotplug_support=None, elfcorehdr_index=None, elfcorehdr_updated=None)
"""kexec_load on a kernel without CONFIG_CRASH_HOTPLUG."""
FILE = replace(PLAIN, file_mode=True)
NOT_ASKED = replace(PLAIN, hotplug_support=False, elfcorehdr_updated=False)
"""kexec_load without --hotplug where the kernel could have helped."""
IN_KERNEL = replace(FILE, hotplug_support=True, elfcorehdr_updated=True)
BY_FLAG = replace(IN_KERNEL, file_mode=False)

INIT = Task(1, "init")
UDEV = Task(300, "systemd-udevd")


def tasks(*more: Task, panic_cpu: int | None = 0) -> Tasks:
    return Tasks((INIT, *more), panic_cpu)


def log(*lines: tuple[float, str]) -> str:
    return "\n".join(f"[{seconds:12.6f}] {text}" for seconds, text in lines)


def diagnosis(header: DumpHeader = DUMP, topology: Topology = KERNEL) -> Diagnosis:
    found = check(Case(header, topology)).diagnosis
    assert found is not None
    return found


def regime(header: DumpHeader = DUMP, topology: Topology = KERNEL) -> tuple[str, Certainty]:
    told = diagnosis(header, topology).regime
    return told.name, told.certainty


def causes(header: DumpHeader = DUMP, topology: Topology = KERNEL) -> list[tuple[str, Certainty]]:
    return [(cause.name, cause.certainty) for cause in diagnosis(header, topology).causes]


class TestRegime:
    def test_hotplug_support_says_for_certain_that_the_kernel_rewrites_the_header(self) -> None:
        kernel = replace(KERNEL, crash_image=IN_KERNEL)
        assert regime(topology=kernel) == ("in-kernel-file-load", Certainty.CERTAIN)
        kernel = replace(KERNEL, crash_image=BY_FLAG)
        assert regime(topology=kernel) == ("in-kernel-kexec-load", Certainty.CERTAIN)

    def test_elfcorehdr_updated_is_told_as_an_attempt(self) -> None:
        told = diagnosis(topology=replace(KERNEL, crash_image=IN_KERNEL)).regime
        assert told.evidence[-1] == "elfcorehdr_updated: the kernel has tried at least once"

    def test_a_hypervisor_wrote_it(self) -> None:
        assert regime(FROM_QEMU) == ("hypervisor", Certainty.CERTAIN)

    def test_a_hypervisor_s_dump_can_show_that_no_crash_kernel_was_loaded(self) -> None:
        assert "no crash kernel was loaded" in diagnosis(FROM_QEMU).regime.evidence[-1]
        loaded = diagnosis(FROM_QEMU, replace(KERNEL, crash_image=PLAIN)).regime
        assert not any("was loaded" in line for line in loaded.evidence)

    def test_a_hypervisor_s_dump_says_whether_a_crash_kernel_was_started(self) -> None:
        notes = ((b"OSRELEASE=6.1.0\nCRASHTIME=1\n",), (b"OSRELEASE=6.1.0\n",), ())
        headers = [replace(FROM_QEMU, vmcoreinfo_notes=texts) for texts in notes]
        told = [" ".join(diagnosis(header).regime.evidence) for header in headers]
        assert ["has CRASHTIME" in line for line in told] == [True, False, False]
        assert ["has no CRASHTIME" in line for line in told] == [False, True, False]

    def test_s390_builds_the_header_after_the_crash(self) -> None:
        assert regime(replace(DUMP, machine="s390x")) == ("capture-kernel", Certainty.CERTAIN)

    def test_without_tasks_user_space_is_not_guessed(self) -> None:
        kernel = replace(KERNEL, crash_image=PLAIN, tasks=Unknown("lost"))
        assert regime(topology=kernel) == ("unknown-regime", Certainty.UNKNOWN)

    def test_no_udev_daemon_means_likely_nothing(self) -> None:
        kernel = replace(KERNEL, crash_image=PLAIN, tasks=tasks())
        assert regime(topology=kernel) == ("no-update", Certainty.LIKELY)

    def test_a_task_list_without_its_beginning_proves_no_absence(self) -> None:
        seen = Tasks((Task(4000, "sh"),), None, ("PIDs 0 to 63: lost",))
        kernel = replace(KERNEL, crash_image=PLAIN, tasks=seen)
        assert regime(topology=kernel) == ("unknown-regime", Certainty.UNKNOWN)

    @pytest.mark.parametrize(
        ("release", "banner", "name"),
        [
            (
                "6.1.0-56-amd64",
                "Linux version 6.1.0-56-amd64 (debian-kernel@...) Debian",
                "debian-try-reload",
            ),
            ("5.15.0-91-generic", "(Ubuntu 11.4.0-1ubuntu1) #101-Ubuntu SMP", "debian-try-reload"),
            ("4.18.0-513.el8.x86_64", "(mockbuild@x86-64) gcc (Red Hat 8.5.0-20)", "rhel-throttled-reload"),
            ("6.5.6-300.fc39.x86_64", "", "rhel-throttled-reload"),
            ("5.15.0-200.131.27.el8uek.x86_64", "", "rhel-throttled-reload"),
            ("3.10.0-1160.el7.x86_64", "", "rhel7-per-event-reload"),
            ("5.14.21-150500.55.19-default", "gcc (SUSE Linux) 7.5.0", "suse-reload"),
            ("6.4.0-150600.23.47-default", "", "suse-reload"),
            ("4.12.14-lp151.27-default", "", "suse-reload"),
            ("5.4.17-2136.315.5.el7uek.x86_64", "", "rhel7-per-event-reload"),
            ("5.10.134-16.an8.x86_64", "", "rhel-throttled-reload"),
            ("4.14.336-253.554.amzn2.x86_64", "", "user-space-reload"),
            ("6.6.29.1-4.azl3", "", "user-space-reload"),
            ("5.10.0-60.18.0.50.oe2203.x86_64", "", "user-space-reload"),
            # The compiler is Debian's.
            ("4.18.0-147.el8.x86_64", "gcc version 10.2.1 (Debian 10.2.1-6)", "rhel-throttled-reload"),
            ("6.1.66-flatcar", "", "unknown-regime"),
        ],
    )
    def test_a_udev_daemon_makes_the_distribution_s_way_likely(
        self, release: str, banner: str, name: str
    ) -> None:
        kernel = replace(KERNEL, crash_image=PLAIN, tasks=tasks(UDEV), release=release, banner=banner)
        certainty = Certainty.UNKNOWN if name == Regime.UNKNOWN else Certainty.LIKELY
        assert regime(topology=kernel) == (name, certainty)

    def test_a_udev_daemon_on_an_unknown_distribution_says_nothing(self) -> None:
        kernel = replace(KERNEL, crash_image=PLAIN, tasks=tasks(UDEV), release="6.1.0", banner="me@here")
        assert regime(topology=kernel) == ("unknown-regime", Certainty.UNKNOWN)

    @pytest.mark.parametrize(
        ("release", "caught", "name", "certainty"),
        [
            ("6.1.0", ["kdump-config"], "debian-try-reload", Certainty.CERTAIN),
            ("4.18.0-513.el8.x86_64", ["kdumpctl", "kexec"], "rhel-throttled-reload", Certainty.CERTAIN),
            ("3.10.0-1160.el7.x86_64", ["kdumpctl"], "rhel7-per-event-reload", Certainty.CERTAIN),
            ("6.1.0", ["kdumpctl"], "user-space-reload", Certainty.LIKELY),
            ("6.1.0", ["kdump-udev-thro"], "rhel-throttled-reload", Certainty.CERTAIN),
            ("6.1.0", ["kdump-udev-thro", "kdumpctl"], "rhel-throttled-reload", Certainty.CERTAIN),
            ("6.1.0", ["kexec"], "user-space-reload", Certainty.LIKELY),
            ("6.4.0-150600.23.47-default", ["load-once.sh"], "suse-reload", Certainty.CERTAIN),
            ("4.18.0-513.el8.x86_64", ["kdumpctl", "kdump-config"], "user-space-reload", Certainty.LIKELY),
        ],
    )
    def test_a_reloader_caught_in_the_act(
        self, release: str, caught: list[str], name: str, certainty: Certainty
    ) -> None:
        seen = tasks(*[Task(500 + i, each) for i, each in enumerate(caught)])
        kernel = replace(KERNEL, crash_image=PLAIN, tasks=seen, release=release)
        assert regime(topology=kernel) == (name, certainty)

    def test_added_memory_that_is_described_was_loaded_by_somebody(self) -> None:
        """No udev daemon ran, and yet the crash kernel was loaded after the memory came."""
        seen = replace(KERNEL, crash_image=PLAIN, tasks=tasks())
        assert isinstance(seen.sections, Sections)
        late = replace(seen, sections=replace(seen.sections, early=EMPTY))
        told = diagnosis(DUMP, late).regime
        assert (told.name, told.certainty) == ("unknown-regime", Certainty.UNKNOWN)
        assert "memory that was added after boot is described" in told.evidence

    def test_without_the_image_low_memory_tells_kexec_tools_header(self) -> None:
        """The kernel's own headers leave the first MiB out."""
        unread = replace(KERNEL, crash_image=Unknown("filtered"), crash_hotplug=True, tasks=tasks())
        low = dump(HEALTHY | RangeSet([(0x1000, 0x9F000)]))
        assert regime(low, unread) == ("no-update", Certainty.LIKELY)
        assert regime(DUMP, unread) == ("unknown-regime", Certainty.UNKNOWN)


class TestMissingMemory:
    def cause(self, topology: Topology, header: DumpHeader = DUMP) -> Conclusion:
        first, *_ = diagnosis(header, topology).causes
        return first

    def test_it_came_after_the_last_load(self) -> None:
        told = self.cause(replace(GROWN, crash_image=PLAIN))
        assert (told.name, told.certainty) == ("added-after-load", Certainty.CERTAIN)
        assert told.rules == ("undescribed-ram",)

    def test_the_kernel_was_not_asked(self) -> None:
        told = self.cause(replace(GROWN, crash_image=NOT_ASKED))
        assert (told.name, told.certainty) == ("loaded-without-hotplug", Certainty.CERTAIN)

    def test_a_contradictory_image_is_no_ground(self) -> None:
        told = self.cause(replace(GROWN, crash_image=replace(NOT_ASKED, file_mode=True)))
        assert (told.name, told.certainty) == ("unknown-cause", Certainty.UNKNOWN)

    def test_a_reload_under_way_is_likely_the_window(self) -> None:
        told = self.cause(replace(GROWN, crash_image=PLAIN, tasks=tasks(Task(9, "kexec"))))
        assert (told.name, told.certainty) == ("reload-window", Certainty.LIKELY)

    @pytest.mark.parametrize(
        ("line", "name", "certainty"),
        [
            (
                "crash hp: kexec_trylock() failed, kdump image may be inaccurate",
                "kernel-update-skipped",
                Certainty.LIKELY,
            ),
            (
                "crash hp: update elfcorehdr elfsz 458816 > memsz 458752",
                "kernel-update-failed",
                Certainty.CERTAIN,
            ),
            ("crash hp: unable to create new elfcorehdr", "kernel-update-failed", Certainty.CERTAIN),
            ("smpboot: CPU 1 is now offline", "unknown-cause", Certainty.UNKNOWN),
        ],
    )
    def test_the_kernel_says_what_went_wrong_with_its_update(
        self, line: str, name: str, certainty: Certainty
    ) -> None:
        told = self.cause(replace(GROWN, crash_image=IN_KERNEL, log=log((9.0, line))))
        assert (told.name, told.certainty) == (name, certainty)

    def test_memory_of_a_driver_is_kexec_tools_policy_on_arm64(self) -> None:
        header, grown = replace(DUMP, machine="aarch64"), replace(GROWN, crash_image=PLAIN)
        assert isinstance(grown.resources, Resources)
        grown = replace(grown, resources=replace(grown.resources, driver_managed=DIMM))
        told = self.cause(grown, header)
        assert (told.name, told.certainty) == ("driver-managed-policy", Certainty.CERTAIN)

    def test_on_x86_it_may_be_policy_or_staleness(self) -> None:
        grown = replace(GROWN, crash_image=PLAIN)
        assert isinstance(grown.resources, Resources)
        grown = replace(grown, resources=replace(grown.resources, driver_managed=DIMM))
        told = self.cause(grown)
        assert (told.name, told.certainty) == ("added-after-load", Certainty.LIKELY)
        assert "2.0.22" in told.evidence[-1]

    def test_other_memory_of_drivers_in_the_header_rules_policy_out(self) -> None:
        grown = replace(GROWN, crash_image=PLAIN)
        assert isinstance(grown.resources, Resources)
        boot = RangeSet([(512 * MiB, 640 * MiB)])
        grown = replace(grown, resources=replace(grown.resources, driver_managed=DIMM | boot))
        assert self.cause(grown).certainty is Certainty.CERTAIN

    def test_resources_cut_short_leave_a_doubt(self) -> None:
        grown = replace(GROWN, crash_image=PLAIN)
        assert isinstance(grown.resources, Resources)
        assert self.cause(replace(grown, resources=cut_short(grown.resources))).certainty is Certainty.LIKELY

    def test_a_header_that_is_full(self) -> None:
        start = 8 << 30
        islands = RangeSet((start + 2 * i * MiB, start + (2 * i + 1) * MiB) for i in range(32768))
        grown = kernel(ram=RangeSet([(0, 1 << 30)]) | islands, hot_added=DIMM)
        told = diagnosis(dump(HEALTHY | islands), replace(grown, crash_image=PLAIN)).causes[0]
        assert (told.name, told.certainty) == ("header-limits", Certainty.LIKELY)

    def test_memory_that_was_there_at_boot_is_not_explained_away(self) -> None:
        lost = RangeSet([(640 * MiB, 768 * MiB)])
        told = self.cause(replace(KERNEL, crash_image=PLAIN), dump(HEALTHY - lost))
        assert (told.name, told.certainty) == ("unknown-cause", Certainty.UNKNOWN)


class TestMissingNotes:
    """CPUs that saved their registers and have no note."""

    def lacking(self, present: int, *noted: int, image: CrashImage = PLAIN, text: str = "") -> Conclusion:
        cpus = frozenset(range(present))
        topology = replace(
            KERNEL,
            crash_image=image,
            online_cpus=cpus,
            present_cpus=cpus,
            possible_cpus=cpus,
            saved_notes=saved(*cpus),
            log=text,
        )
        cause = diagnosis(replace(DUMP, cpu_notes=notes(*noted)), topology).causes[0]
        assert "cpu-without-note" in cause.rules
        return cause

    def test_the_next_cpu_came_later_for_certain(self) -> None:
        assert self.lacking(3, 0, 1).certainty is Certainty.CERTAIN

    def test_a_cpu_above_a_gap_may_have_been_missed_by_kexec_tools(self) -> None:
        told = self.lacking(4, 0, 1)
        assert told.certainty is Certainty.LIKELY
        assert "stopped counting" in told.evidence[-1]

    def test_the_log_can_settle_it(self) -> None:
        came = log((5.0, "ACPI: CPU2 has been hot-added"), (6.0, "ACPI: CPU3 has been hot-added"))
        assert self.lacking(4, 0, 1, text=came).certainty is Certainty.CERTAIN

    def test_a_cpu_that_came_before_the_other_is_not_settled(self) -> None:
        came = log((5.0, "CPU3 has been hot-added"), (6.0, "CPU2 has been hot-added"))
        assert self.lacking(4, 0, 1, text=came).certainty is Certainty.LIKELY

    def test_the_kernel_misses_no_cpu_that_is_present(self) -> None:
        assert self.lacking(4, 0, 1, image=FILE).certainty is Certainty.CERTAIN

    def test_a_gap_in_the_middle_names_the_tools_that_are_misled(self) -> None:
        told = self.lacking(4, 0, 1, 3)
        assert (told.certainty, told.rules) == (Certainty.CERTAIN, ("cpu-without-note", "notes-shifted"))


def test_a_cpu_that_never_answered() -> None:
    silent = replace(KERNEL, saved_notes={**saved(0), 1: SavedNote(b"")}, crash_image=PLAIN)
    header = replace(DUMP, cpu_notes=notes(0))
    assert causes(header, silent) == [("cpu-never-answered", Certainty.CERTAIN)]


def test_phantom_memory_where_the_kernel_keeps_the_header_is_the_order_of_its_events() -> None:
    header = dump(HEALTHY | DIMM)
    updated = replace(KERNEL, crash_image=IN_KERNEL, log=log((1.0, "hello")))
    assert causes(header, updated) == [("phantom-after-remove", Certainty.CERTAIN)]
    unread = replace(updated, log=Unknown("lost"))
    assert causes(header, unread) == [("phantom-after-remove", Certainty.LIKELY)]
    stale = replace(KERNEL, crash_image=PLAIN)
    assert causes(header, stale) == [("removed-after-load", Certainty.CERTAIN)]


def test_a_dump_cut_off_by_lack_of_space_and_one_cut_off_by_who_knows_what() -> None:
    assert causes(replace(COMPRESSED, incomplete=True)) == [("capture-out-of-space", Certainty.CERTAIN)]
    short = replace(DUMP, file_size=DUMP.expected_size - 4096)
    assert causes(short) == [("file-cut-short", Certainty.LIKELY)]


def test_one_cause_of_memory_and_cpus_is_told_once() -> None:
    cpus = frozenset(range(3))
    topology = replace(
        GROWN,
        crash_image=PLAIN,
        online_cpus=cpus,
        present_cpus=cpus,
        saved_notes=saved(*cpus),
    )
    (told,) = diagnosis(DUMP, topology).causes
    assert told.text.startswith("memory and CPU 2 were added after")
    assert told.rules == ("undescribed-ram", "cpu-without-note")


def test_a_healthy_dump_has_a_regime_and_nothing_else() -> None:
    told = diagnosis(topology=replace(KERNEL, crash_image=IN_KERNEL))
    assert told == Diagnosis(told.regime)


class TestTimeline:
    KERNEL = replace(
        GROWN,
        crash_image=PLAIN,
        log=log(
            (0.0, "Linux version 6.1.0"),
            (0.04, "smpboot: Allowing 4 CPUs, 2 hotplug CPUs"),
            (0.05, "Built 1 zonelists, mobility grouping on.  Total pages: 128730"),
            (1.5, "smpboot: Booting Node 0 Processor 1 APIC 0x1"),
            (2.5, "Run /init as init process"),
            (3.0, "CPU3 has been hot-added"),
            (5.0, "Built 1 zonelists, mobility grouping on.  Total pages: 82815"),
            (6.0, "CPU2 has been hot-added"),
            (6.5, "smpboot: Booting Node 0 Processor 2 APIC 0x2"),
            (8.0, "Kernel panic - not syncing: sysrq triggered crash"),
        ),
        online_cpus=frozenset(range(4)),
        present_cpus=frozenset(range(4)),
        saved_notes=saved(0, 1, 2, 3),
    )
    HEADER = replace(
        DUMP, cpu_notes=notes(0, 1, 3), vmcoreinfo_notes=(b"OSRELEASE=6.1.0-test\nCRASHTIME=100\n",)
    )

    def test_hotplug_is_told_and_boot_s_own_bring_up_is_not(self) -> None:
        line = diagnosis(self.HEADER, self.KERNEL).timeline
        assert line is not None
        assert [(event.seconds, event.text) for event in line.events] == [
            (0.0, "boot"),
            (0.04, "smpboot: Allowing 4 CPUs, 2 hotplug CPUs"),
            (3.0, "CPU 3 was added"),
            (None, "elfcorehdr was last written: it names CPU 3 and lacks CPU 2"),
            (5.0, "memory was onlined in a zone that had none"),
            (6.0, "CPU 2 was added"),
            (6.5, "CPU 2 was brought up"),
            (8.0, "Kernel panic - not syncing: sysrq triggered crash"),
            (8.0, "the kernel crashed; its log ends"),
        ]
        assert line.boot == 92.0

    def test_the_header_s_last_writing_is_bounded_by_what_it_names_and_lacks(self) -> None:
        line = diagnosis(self.HEADER, self.KERNEL).timeline
        assert line is not None
        assert line.events[3] == Event(line.events[3].text, None, 3.0, 6.0)

    def test_a_log_that_was_not_read_gives_no_times(self) -> None:
        line = diagnosis(self.HEADER, replace(self.KERNEL, log=Unknown("lost"))).timeline
        assert line is not None
        assert (line.boot, [event.seconds for event in line.events]) == (None, [0.0, None])
        assert "could not be read" in line.remarks[0]

    def test_words_of_the_log_are_shown_and_never_obeyed(self) -> None:
        evil = replace(self.KERNEL, log=log((1.0, "Kernel panic - not syncing: \x1b[2J\u202e")))
        line = diagnosis(self.HEADER, evil).timeline
        assert line is not None
        assert line.events[1].text == "Kernel panic - not syncing: \\x1b[2J\\u202e"

    def test_a_storm_of_events_is_cut_in_the_middle(self) -> None:
        storm = log(*[(float(i), f"CPU{i} has been hot-added") for i in range(1, 5000)])
        line = diagnosis(self.HEADER, replace(self.KERNEL, log=storm)).timeline
        assert line is not None
        assert len(line.events) == 202
        assert any("4800 events in the middle are left out" in remark for remark in line.remarks)


class TestImpact:
    PAGES = LostPages(
        32768,
        32768,
        0,
        (
            PageCount(0, "Normal", PageKind.FREE, 32000),
            PageCount(0, "Normal", PageKind.ANONYMOUS, 512),
            PageCount(0, "Normal", PageKind.SLAB, 256),
        ),
    )
    LOSS = Loss(DIMM, PAGES, Modules(10, ()), frozenset(), EMPTY)

    def told(self, **facts: object) -> Diagnosis:
        base = replace(GROWN, crash_image=PLAIN, loss=self.LOSS, tasks=tasks(Task(7, "sh", 0, False, 4, 0)))
        return diagnosis(topology=replace(base, **facts))  # type: ignore[arg-type]

    def effects(self, told: Diagnosis) -> dict[tuple[str, str], tuple[Use, Certainty]]:
        assert told.impact is not None
        return {(each.tool, each.command): (each.use, each.certainty) for each in told.impact.effects}

    def test_a_lost_stack_comes_first_and_names_what_fails(self) -> None:
        told = self.told(tasks=tasks(Task(384, "sh", 0, False, 4, 4)))
        assert told.impact is not None
        assert told.impact.headline == "the kernel stack of the crashing task, sh (PID 384) on CPU 0, is lost"
        effects = self.effects(told)
        assert effects["crash", "bt"] == (Use.FAILS, Certainty.CERTAIN)
        assert effects["drgn", "prog.crashed_thread().stack_trace()"] == (Use.MISLEADS, Certainty.CERTAIN)
        assert effects["drgn", "for_each_task(prog)"] == (Use.SAFE, Certainty.CERTAIN)

    def test_a_lost_task_is_named_by_its_note_and_the_log(self) -> None:
        told = self.told(
            tasks=tasks(Task(None, "", 0, True)),
            log=log(
                (8.0, "CPU: 0 PID: 100 Comm: nfsd Kdump: loaded Not tainted 6.1.0"), (8.1, "Call Trace:")
            ),
        )
        assert told.impact is not None
        assert told.impact.headline == (
            "the crashing task, nfsd (PID 100) on CPU 0, is lost: its task_struct lies in missing memory"
        )
        effects = self.effects(told)
        assert effects["drgn", "for_each_task(prog)"] == (Use.PARTIAL, Certainty.CERTAIN)
        assert "call trace" in told.this_dump[0].text

    def test_pages_are_told_in_bytes_most_first(self) -> None:
        told = self.told()
        assert told.impact is not None
        assert told.impact.headline == "of 128 MiB missing: 125 MiB free, 2.0 MiB anonymous, 1.0 MiB slab"

    def test_a_sample_is_told_as_one(self) -> None:
        sample = replace(self.PAGES, pages=8 * 32768)
        told = self.told(loss=replace(self.LOSS, pages=sample))
        assert told.impact is not None
        assert told.impact.headline.startswith(
            "of 1.0 GiB missing, by a sample of 32,768 of 262,144 pages: 1000 MiB"
        )

    def test_struct_pages_that_are_missing_too_tell_nothing(self) -> None:
        told = self.told(loss=replace(self.LOSS, pages=LostPages(32768, 0, 32768, ())))
        assert told.impact is not None
        assert "is not known" in told.impact.headline
        assert self.effects(told)["crash", "kmem -p"] == (Use.PARTIAL, Certainty.CERTAIN)

    def test_only_free_pages_break_nothing(self) -> None:
        free = LostPages(32768, 32768, 0, (PageCount(0, "Movable", PageKind.FREE, 32768),))
        effects = self.effects(self.told(loss=replace(self.LOSS, pages=free)))
        assert {use for use, _ in effects.values()} == {Use.SAFE}

    def test_modules_per_cpu_areas_and_memory_maps(self) -> None:
        loss = replace(
            self.LOSS,
            modules=Modules(10, (LostModule("nf\x1bs", 8, 3),)),
            per_cpu_areas=frozenset({2, 3}),
            memmap=RangeSet([(1 << 40, (1 << 40) + 256 * MiB)]),
        )
        told = self.told(loss=loss)
        assert told.impact is not None
        assert "module nf\\x1bs lacks 3 of its 8 pages" in told.impact.facts
        assert "the struct pages of 256 MiB of memory that is in the dump are lost" in told.impact.facts
        effects = self.effects(told)
        assert effects["crash", "mod"] == (Use.PARTIAL, Certainty.CERTAIN)
        assert effects["crash", "runq"] == (Use.FAILS, Certainty.CERTAIN)

    def test_registers_that_can_be_had_and_those_that_cannot(self) -> None:
        cpus = frozenset(range(4))
        told = self.told(
            online_cpus=cpus,
            present_cpus=cpus,
            saved_notes={**saved(0, 1, 2), 3: SavedNote(b"")},
        )
        assert told.impact is not None
        assert (told.impact.recoverable_cpus, told.impact.lost_cpus) == ((2,), (3,))
        effects = self.effects(told)
        assert effects["drgn", "prog.stack_trace(cpu_curr(prog, 2))"][0] is Use.SAFE
        assert effects["drgn", "prog.stack_trace(cpu_curr(prog, 3))"][0] is Use.FAILS

    def test_failing_commands_come_before_safe_ones(self) -> None:
        told = self.told(tasks=tasks(Task(384, "sh", 0, False, 4, 4)))
        assert told.impact is not None
        order = [list(Use).index(effect.use) for effect in told.impact.effects]
        assert order == sorted(order)


class TestRemedy:
    def commands(self, topology: Topology) -> list[str]:
        return [command for step in diagnosis(topology=topology).next_dump for command in step.commands]

    DEBIAN = "Linux version 6.12 (debian-kernel@lists.debian.org) Debian"

    def test_debian_whose_kernel_can_update_is_told_to_load_by_file(self) -> None:
        commands = self.commands(replace(GROWN, crash_image=NOT_ASKED, banner=self.DEBIAN))
        assert "kdump-config reload" in commands
        assert any('KDUMP_KEXEC_ARGS="-s"' in command for command in commands)
        assert any("ATTRS{crash_hotplug}" in command for command in commands)

    def test_debian_whose_kernel_cannot_is_told_to_reload(self) -> None:
        commands = self.commands(replace(GROWN, crash_image=PLAIN, banner=self.DEBIAN))
        assert "kdump-config reload" in commands
        assert not any("crash_hotplug" in command for command in commands)

    def test_rhel(self) -> None:
        commands = self.commands(replace(GROWN, crash_image=PLAIN, release="4.18.0-513.el8.x86_64"))
        assert "kdumpctl reload" in commands
        assert not any("kdump-config" in command for command in commands)

    @pytest.mark.parametrize("image", [PLAIN, FILE, NOT_ASKED, IN_KERNEL])
    @pytest.mark.parametrize("release", ["6.1.0", "3.10.0-1.el7", "4.18.0-1.el8", "6.4.0-default"])
    def test_there_is_always_something_to_do_about_missing_memory(
        self, image: CrashImage, release: str
    ) -> None:
        log_line = log((1.0, "crash hp: kexec_trylock() failed, kdump image may be inaccurate"))
        grown = replace(GROWN, crash_image=image, release=release, log=log_line)
        assert diagnosis(topology=grown).next_dump

    def test_the_distribution_is_unknown_rather_than_guessed(self) -> None:
        assert distribution(Case(DUMP, replace(KERNEL, banner="Linux version 6.1 (me@here)"))) is None


def test_every_regime_and_cause_is_explained_and_decided() -> None:
    """A member is named by ``explain`` and by the code that concludes it, and both are in one module."""
    explained = explanations()
    assert list(explained) == [*Regime, *Cause]
    sources = {
        Regime: Path(regimes_module.__file__).read_text() + Path(distributions_module.__file__).read_text(),
        Cause: Path(causes_module.__file__).read_text(),
    }
    for name, each in explained.items():
        assert each.name == name
        assert each.title
        assert each.text.endswith(".")
        kind = type(each.name)
        assert sources[kind].count(f"{kind.__name__}.{each.name.name}") >= 2


@pytest.mark.parametrize("name", [name for name, each in explanations().items() if each.example])
def test_every_example_is_a_real_capture_that_has_it(name: str) -> None:
    each = explanations()[name]
    assert each.example is not None
    (capture,) = [capture for capture in captures() if capture.name == each.example.capture]
    told = json.loads(capture.expected.read_text())["diagnosis"]
    assert name in {told["regime"]["name"], *(cause["name"] for cause in told["causes"])}


def test_names_of_rules_causes_and_regimes_do_not_collide() -> None:
    from vmcheck.rules import rules

    # A rule and the cause that its finding alone proves may share a name and an explanation.
    assert set(rules()) & set(explanations()) <= {"no-crash-kernel"}


def test_each_remedy_is_for_causes_and_distributions_that_exist() -> None:
    """Reading the table checks it."""
    assert len(remedies()) > 20
    with pytest.raises(ValueError, match="no distribution is named 'redhat'"):
        remedy({"causes": ["added-after-load"], "text": "reload", "distributions": ["redhat"]})
    with pytest.raises(ValueError, match="added-afterload"):
        remedy({"causes": ["added-afterload"], "text": "reload"})
    with pytest.raises(TypeError, match="command"):
        remedy({"causes": ["added-after-load"], "text": "reload", "command": []})


def test_diagnosing_is_pure() -> None:
    case = Case(DUMP, replace(GROWN, crash_image=PLAIN))
    outcomes = check(case).outcomes
    assert diagnose(case, outcomes) == diagnose(case, outcomes)
