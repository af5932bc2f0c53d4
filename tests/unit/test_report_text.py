# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from tests import reports
from tests.reports import GiB, MiB, TiB
from vmcheck.check import Report
from vmcheck.facts.body import Body
from vmcheck.facts.diagnosis import Certainty, Diagnosis, Effect, Event, Step, Timeline, Use
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.ranges import RangeSet
from vmcheck.facts.topology import MemoryAccount, Resources, Unknown
from vmcheck.report import terminal, words
from vmcheck.report.memory import Fate, cells, memory
from vmcheck.report.words import Outlook


def test_sizes_read_as_people_say_them() -> None:
    assert [words.size(n) for n in (0, 1, 4096, 128 * MiB, 639 * MiB + 5000, GiB, 12 * GiB + GiB // 2)] == [
        "0 bytes",
        "1 byte",
        "4.0 KiB",
        "128 MiB",
        "639 MiB",
        "1.0 GiB",
        "12.5 GiB",
    ]


def test_a_size_just_below_a_unit_is_not_1024_of_the_smaller_one() -> None:
    assert [words.size(n) for n in (GiB - 1, TiB - 1, 16 * GiB)] == ["1.0 GiB", "1.0 TiB", "16 GiB"]


def test_cpus_are_listed_as_the_kernel_lists_them() -> None:
    assert words.cpu_list([5, 0, 2, 1]) == "0-2,5"
    assert [words.cpus(numbers) for numbers in ([2], [2, 3], range(0, 1024, 4))] == [
        "CPU 2",
        "CPUs 2-3",
        "256 CPUs",
    ]


@pytest.mark.parametrize(
    ("report", "answer"),
    [
        (
            reports.WHOLE,
            "COMPLETE: this dump describes all 319 MiB of RAM that it should "
            "and the registers of both online CPUs",
        ),
        (
            reports.ADDED,
            "INCOMPLETE: 128 MiB of 639 MiB RAM is missing, "
            "and CPU 2 has no register note (its registers are still in memory)",
        ),
        (
            reports.report(
                ("undescribed-ram", reports.LOST_DIMM), kernel=reports.topology(reports.BOOT | reports.DIMM)
            ),
            "INCOMPLETE: 128 MiB of 639 MiB RAM is missing",
        ),
        (
            reports.report(("cpu-without-note", replace(reports.LOST_CPU, cpus=(2, 3)))),
            "INCOMPLETE: CPUs 2-3 have no register notes (their registers are still in memory)",
        ),
        (
            reports.report(("cpu-never-saved", replace(reports.LOST_CPU, recoverable=False))),
            "INCOMPLETE: the registers of CPU 2 are missing",
        ),
        (
            reports.report(
                ("cpu-without-note", reports.LOST_CPU),
                ("cpu-never-saved", replace(reports.LOST_CPU, cpus=(5,), recoverable=False)),
            ),
            "INCOMPLETE: the registers of CPU 5 are missing, "
            "and CPU 2 has no register note (its registers are still in memory)",
        ),
        (
            reports.report(
                ("undescribed-ram", reports.LOST_DIMM),
                ("kernel-data-filtered", Finding(Severity.LOST, "kernel data was filtered out")),
                ("truncated-file", Finding(Severity.LOST, "the file is truncated")),
                kernel=reports.topology(reports.BOOT | reports.DIMM),
            ),
            "INCOMPLETE: the file is truncated; 128 MiB of 639 MiB RAM is missing; 1 more finding",
        ),
        (
            reports.report(
                (
                    "described-without-ram",
                    Finding(Severity.WRONG, "memory is described", ranges=reports.DIMM),
                ),
                ("bad-notes", Finding(Severity.WRONG, "the notes are damaged")),
            ),
            "MISLEADING: the notes are damaged; 1 more finding",
        ),
        (
            reports.skipping(
                reports.report(("doubled-vmcoreinfo", Finding(Severity.NOTICE, "it is there twice"))),
                "notes-shifted",
                why="no symbols",
            ),
            "COULD NOT TELL: 1 of 7 rules could not look: no symbols",
        ),
        (
            reports.skipping(
                reports.skipping(reports.WHOLE, "a", why="an odd reason"), "b", "c", why="the common reason"
            ),
            "COULD NOT TELL: nothing wrong was seen, but 3 of 8 rules could not look: the common reason",
        ),
        (
            reports.report(("truncated-file", Finding(Severity.LOST, "the file ends early"))),
            "INCOMPLETE: the file ends early",
        ),
        (reports.PHANTOM, "MISLEADING: the headers describe 128 MiB where the kernel had no RAM"),
        (
            reports.BLIND,
            "COULD NOT TELL: nothing wrong was seen, but 2 of 7 rules could not look: "
            "no symbol named crash_notes",
        ),
    ],
)
def test_the_first_line_is_the_answer_and_is_one_line(report: Report, answer: str) -> None:
    assert terminal.render(report, 60).split("\n")[0] == answer


def test_losses_of_unknown_ram_are_not_said_to_be_of_something() -> None:
    blind = replace(reports.ADDED.topology, resources=Unknown("no symbols"))
    assert words.answer(replace(reports.ADDED, topology=blind)) == (
        "INCOMPLETE: 128 MiB RAM is missing, "
        "and CPU 2 has no register note (its registers are still in memory)"
    )


def test_the_whole_text_of_a_dump_that_lacks_memory_and_a_cpu() -> None:
    assert (
        terminal.render(reports.ADDED, full=True)
        == f"""\
{words.answer(reports.ADDED)}

Missing
  System RAM added after elfcorehdr was written, in no PT_LOAD segment  [undescribed-ram]
    [0x100000000, 0x108000000)  128 MiB
    - mem_section: 1 section is ONLINE and not EARLY
    - iomem_resource: System RAM [0x100000000, 0x108000000); the highest described address is
      0x1ffda000

  An online CPU saved its registers and no NT_PRSTATUS of the dump has them  [cpu-without-note]
    CPU 2
    - crash_notes of CPU 2 holds an NT_PRSTATUS of 336 bytes, pid 0
    - recoverable: what the headers lack is still in the dump's memory

Excluded by design
  192 MiB         the crash kernel's reservation (crashk_res), [0xe000000, 0x1a000000)
  632 KiB         low memory that the crash kernel uses itself, [0x1000, 0x9f000)

The dump
  file            vmcore, 16.3 MiB
  format          kdump-compressed version 6, zlib, written by kdump
  machine         x86_64, 64-bit, little endian, 4,096-byte pages
  dump level      31: without zero, cache, private cache, user and free pages
  memory          319 MiB described: 63 MiB stored, 256 MiB filtered
  notes           registers of 2 CPUs (NT_PRSTATUS), VMCOREINFO
  crashed         2024-11-23 09:15:00 UTC

Its pages
  pages           unknown: the pages were not looked at

The kernel
  read from       the dump's own memory, by its BTF and kallsyms
  release         6.1.0-56-amd64
  build ID        8f1a0c3e5b7d9f1a0c3e5b7d9f1a0c3e5b7d9f1a
  mem_section     640 MiB, read whole
  iomem_resource  639 MiB, read whole
  memory blocks   640 MiB, read whole
  CPUs            0-2 online; 0-2 present; 0-3 possible
  crash image     kexec_load, 1 segment; this kernel cannot rewrite elfcorehdr on hotplug

The rules
  found           undescribed-ram, cpu-without-note
  clean           described-without-ram, truncated-file
  inapplicable    segment-addresses

vmcheck explain NAME says what a finding means and what to do
"""
    )


def test_the_short_report_of_a_dump_that_lacks_memory_and_a_cpu() -> None:
    assert (
        terminal.render(reports.DIAGNOSED)
        == f"""\
{words.answer(reports.DIAGNOSED)}

  Why             memory and a CPU were added after the crash kernel was loaded, and it was not
                  loaded again
  What it costs   the crashing task's stack is in missing memory, so its backtrace is cut
  What to do      load the crash kernel with the kernel's own loader
                    kexec -s -p /boot/vmlinuz

Missing
  System RAM added after elfcorehdr was written, in no PT_LOAD segment  [undescribed-ram]
    [0x100000000, 0x108000000)  128 MiB
    - mem_section: 1 section is ONLINE and not EARLY
    - iomem_resource: System RAM [0x100000000, 0x108000000); the highest described address is 0x1...
  An online CPU saved its registers and no NT_PRSTATUS of the dump has them  [cpu-without-note]
    CPU 2
    - crash_notes of CPU 2 holds an NT_PRSTATUS of 336 bytes, pid 0
    - recoverable: what the headers lack is still in the dump's memory

  Why                 added-after-load, reload-by-udev (likely)
  When                5 events; crash: 52.750 s, 09:15:00 UTC
  What it costs       of 3 commands of crash and drgn, 1 fails, 1 works in part, 1 is safe
  What to do          1 step for the next dump, 1 step for this dump, with their commands
  Records compared    vmcore-dmesg.txt agrees
  Excluded by design  192 MiB the crash kernel's reservation (crashk_res), 632 KiB low memory tha...
  The dump            vmcore, 16.3 MiB, kdump-compressed, 319 MiB described, 63 MiB stored
  Its pages           unknown: the pages were not looked at
  The kernel          6.1.0-56-amd64, CPUs 0-2 online, 3 of 3 memory accounts read whole
  The rules           2 found, 2 clean, 1 inapplicable
--full shows everything; vmcheck explain NAME says what a finding means and what to do
"""
    )


def test_long_lists_of_the_short_report_fold_with_their_count() -> None:
    many = tuple(
        (
            rule,
            Finding(
                Severity.LOST,
                rule,
                ranges=RangeSet([(n * GiB, n * GiB + MiB) for n in range(10)]),
                evidence=("first", "second", "third"),
            ),
        )
        for rule in ("one", "two", "three", "four", "five")
    )
    text = terminal.render(reports.report(*many))
    assert text.count("    and 8 more ranges, 8.0 MiB\n") == 3
    assert text.count("    - first (and 2 more)\n") == 3
    assert "  and 2 more findings: four, five\n" in text


def test_a_command_that_does_not_fit_is_left_to_the_full_report() -> None:
    long = replace(reports.DIAGNOSIS, next_dump=(Step("reload it", ("echo " + "x" * 200,)),))
    report = replace(reports.DIAGNOSED, diagnosis=long)
    assert "xxx" not in terminal.render(report)
    assert "x" * 200 in terminal.render(report, full=True)


def test_what_could_not_be_looked_at_has_its_reason() -> None:
    text = terminal.render(reports.BLIND, full=True)
    assert text[text.index("Could not look") :] == (
        "Could not look\n"
        "  cpu-never-saved, notes-shifted: no symbol named crash_notes\n"
        "  iomem_resource: stopped: sibling at 0xffff888100000000: page not stored\n"
    )


def test_an_account_that_stopped_is_named_once() -> None:
    """A rule that was skipped for it has the same reason."""
    where = "the resource at 0xff00: filtered: 0x1000"
    resources = Resources(MemoryAccount("iomem_resource", reports.BOOT, (where,)), RangeSet())
    blind = replace(reports.WHOLE, topology=replace(reports.topology(), resources=resources))
    why = f"iomem_resource could not be read to its end: {where}"
    text = terminal.render(reports.skipping(blind, "undescribed-boot-ram", why=why), full=True)
    _, _, rest = text.partition("\n")
    assert " ".join(rest.split()).count(where) == 1


def test_a_diagnosis_stands_between_the_findings_and_the_facts() -> None:
    text = terminal.render(reports.DIAGNOSED, full=True)
    assert (
        text[text.index("\nWhy") + 1 : text.index("Excluded by design")]
        == """\
Why
  Memory and a CPU were added after the crash kernel was loaded, and it was not loaded again
    [added-after-load]
    - the kernel log has no kexec_load after 41.200 s

  A udev rule reloads the crash kernel after each change  [reload-by-udev, likely]
    - kexec_crash_image.file_mode is 0: the header was made by kexec-tools

When
  0.000 s               boot (2024-11-23 09:14:07 UTC)
  3.500 to 41.200 s     the crash kernel was loaded
  41.200 s              memory [0x100000000, 0x108000000) was onlined (09:14:48 UTC)
  after 41.200 s        CPU 2 came online
  52.750 s              crash (09:15:00 UTC)
  - the log begins at 0.000 s

What it costs
  The crashing task's stack is in missing memory, so its backtrace is cut
    - 1,204 of 32,768 missing pages are slab
  fails     crash: bt: the stack is missing
  in part   crash: ps (likely): two task_structs are missing
  safe      crash: log

What to do
  So that the next dump is whole
    1. load the crash kernel with the kernel's own loader
         kexec -s -p /boot/vmlinuz
  With this dump
    1. read CPU 2's registers from crash_notes

Records compared
  vmcore-dmesg.txt: kernel log, agrees: the same boot, to the last line

"""
    )


def test_no_total_is_shown_that_lacks_what_is_missing() -> None:
    """iomem_resource that was read in part has less RAM than the sections that are missing."""
    resources = reports.ADDED.topology.resources
    assert not isinstance(resources, Unknown)
    cut = replace(resources, account=replace(resources.account, ram=RangeSet([(0, GiB)])))
    report = replace(reports.ADDED, topology=replace(reports.ADDED.topology, resources=cut))
    assert not report.lost_memory - reports.ADDED.lost_memory
    whole, part = (words.answer(each).partition(" RAM")[0] for each in (reports.ADDED, report))
    assert " of " in whole
    assert part == whole.partition(" of ")[0]


def test_why_what_it_costs_and_what_to_do_stand_below_the_answer() -> None:
    assert terminal.render(reports.DIAGNOSED).split("\n")[1:6] == [
        "",
        "  Why             memory and a CPU were added after the crash kernel was loaded, and it was not",
        "                  loaded again",
        "  What it costs   the crashing task's stack is in missing memory, so its backtrace is cut",
        "  What to do      load the crash kernel with the kernel's own loader",
    ]


def test_a_regime_alone_is_no_why() -> None:
    text = terminal.render(replace(reports.WHOLE, diagnosis=Diagnosis(reports.DIAGNOSIS.regime)), full=True)
    assert "\nUpdate mechanism\n  A udev rule reloads" in text
    assert "\nWhy\n" not in text


def test_a_date_is_shown_once() -> None:
    day = 86400.0
    events = [Event("a", 0.0), Event("b", 1.0), Event("c"), Event("d", day), Event("e", day)]
    assert words.clocks(Timeline(tuple(events), boot=1732353247.0)) == [
        "2024-11-23 09:14:07 UTC",
        "09:14:08 UTC",
        "",
        "2024-11-24 09:14:07 UTC",
        "09:14:07 UTC",
    ]


def test_commands_of_one_outlook_stand_together() -> None:
    effects = [
        Effect("bt", "crash", Use.FAILS, Certainty.CERTAIN, "the stack is missing"),
        Effect("rd -u", "crash", Use.PARTIAL, Certainty.CERTAIN, "pages are missing"),
        Effect("access_process_vm()", "drgn", Use.PARTIAL, Certainty.CERTAIN, "pages are missing"),
        Effect("log", "crash", Use.SAFE, Certainty.CERTAIN, "it was read whole"),
        Effect("mod", "crash", Use.SAFE, Certainty.CERTAIN, "no module is missing"),
        Effect("ps", "crash", Use.SAFE, Certainty.LIKELY, "no task is missing"),
    ]
    assert words.outlooks(effects) == [
        Outlook(Use.FAILS, "", {"crash": ["bt"]}, "the stack is missing"),
        Outlook(Use.PARTIAL, "", {"crash": ["rd -u"], "drgn": ["access_process_vm()"]}, "pages are missing"),
        Outlook(Use.SAFE, "", {"crash": ["log", "mod"]}, ""),
        Outlook(Use.SAFE, "likely", {"crash": ["ps"]}, ""),
    ]


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0.0 %"), (1e-9, "< 0.1 %"), (0.5, "50.0 %"), (0.99999, "99.9 %"), (1.0, "100.0 %")],
)
def test_a_share_is_neither_nothing_nor_all_by_rounding(share: float, text: str) -> None:
    assert words.percent(share) == text


def test_memory_of_several_nodes_is_shown_by_node() -> None:
    text = terminal.render(reports.TWO_NODES, full=True)
    assert "    [0x100000000, 0x108000000)  128 MiB, node 1\n" in text
    assert "  NUMA node 0     256 MiB\n  NUMA node 1     384 MiB, 128 MiB of it missing\n" in text
    assert "node" not in terminal.render(reports.ADDED)


def test_a_node_that_is_missing_altogether_is_shown_so() -> None:
    kernel = replace(reports.ADDED.topology, nodes={0: RangeSet([(0, 512 * MiB)]), 1: reports.DIMM})
    assert "  NUMA node 1     128 MiB, all of it missing\n" in terminal.render(
        replace(reports.ADDED, topology=kernel), full=True
    )


def test_the_bar_has_a_bracket_below_each_node() -> None:
    lines = re.sub(r"\x1b\[[0-9;]*m", "", on_terminal(reports.TWO_NODES, 60)).split("\n")
    bar = next(number for number, line in enumerate(lines) if "█" in line)
    assert lines[bar + 1] == "  └─────── node 0 ──────┘└───────────── node 1 ────────────┘"
    assert len(lines[bar + 1]) == len(lines[bar])


def test_500_losses_are_counted_after_the_first_dozen() -> None:
    lines = terminal.render(reports.huge(), full=True).split("\n")
    assert "    and 488 more ranges, 122 GiB" in lines
    assert sum(line.startswith("    [0x") for line in lines) == 12
    assert any(line.endswith("and 232 more runs") for line in lines)


@pytest.mark.parametrize("width", [60, 100, 200])
@pytest.mark.parametrize("report", [reports.ADDED, reports.BLIND, reports.hostile(), reports.huge()])
@pytest.mark.parametrize("full", [True, False])
def test_no_line_but_the_answer_is_wider_than_the_terminal(report: Report, width: int, full: bool) -> None:
    _, *lines = terminal.render(report, width, full).split("\n")
    to_be_copied = ("vmcheck explain", " " * 9)
    assert [line for line in lines if len(line) > width and not line.startswith(to_be_copied)] == []


@pytest.mark.parametrize("full", [True, False])
def test_hostile_strings_are_shown_and_never_sent_to_the_terminal(full: bool) -> None:
    text = terminal.render(reports.hostile(), full=full)
    assert all(char.isprintable() for char in text.replace("\n", ""))
    assert r"\x1b]0;owned" in text


def on_terminal(report: Report, width: int = 80) -> str:
    file = io.StringIO()
    terminal.show(
        report, Console(file=file, width=width, force_terminal=True, highlight=False, no_color=True)
    )
    return file.getvalue()


def test_a_terminal_gets_a_memory_bar_in_which_the_smallest_loss_shows() -> None:
    page = RangeSet([(0x1FFD9000, 0x1FFDA000)])
    header = replace(reports.WHOLE_HEADER, described=reports.WHOLE_HEADER.described - page)
    found = ("undescribed-ram", replace(reports.LOST_DIMM, ranges=page))
    assert on_terminal(reports.report(found, header=header)).split("\n")[2].count("×") == 1


def test_square_brackets_in_a_dumps_strings_are_not_markup() -> None:
    finding = replace(reports.LOST_CPU, summary="[bold red]loud[/]")
    assert "[bold red]loud[/]" in on_terminal(reports.report(("cpu-without-note", finding)))


def test_hostile_strings_reach_no_terminal_through_colours() -> None:
    shown = on_terminal(reports.hostile())
    assert "\x1b]" not in shown
    assert "\x07" not in shown


def test_every_byte_has_one_fate() -> None:
    kept = memory(reports.ADDED)
    assert {fate: ranges.size for fate, ranges in kept.fates.items() if ranges} == {
        Fate.STORED: 63 * MiB,
        Fate.FILTERED: 0x1FFDA000 - 0x100000 - 192 * MiB - 63 * MiB,
        Fate.EXCLUDED: 192 * MiB + 0x9E000,
        Fate.MISSING: 128 * MiB,
    }
    assert sum(ranges.size for ranges in kept.fates.values()) == kept.all.size


def test_memory_that_the_headers_wrongly_claim_is_a_phantom_and_not_filtered() -> None:
    assert memory(reports.PHANTOM).fates[Fate.PHANTOM] == reports.DIMM


def test_described_memory_whose_bytes_are_lost_is_dropped_and_not_counted_as_missing() -> None:
    page = RangeSet([(0x700000, 0x701000)])
    found = ("kernel-data-filtered", Finding(Severity.LOST, "kernel data was filtered out", ranges=page))
    report = reports.report(("cpu-without-note", reports.LOST_CPU), found)
    assert memory(report).fates[Fate.DROPPED] == page
    assert memory(report).fates[Fate.MISSING] == RangeSet()
    assert (
        words.answer(report)
        == "INCOMPLETE: CPU 2 has no register note (its registers are still in memory); 1 more finding"
    )


def test_excluded_memory_that_a_header_describes_all_the_same_is_not_called_absent() -> None:
    header = replace(reports.WHOLE_HEADER, described=reports.BOOT | reports.LOW)
    assert memory(reports.report(header=header)).fates[Fate.EXCLUDED] == RangeSet()


def test_a_cell_shows_its_worst_fate_and_else_its_commonest() -> None:
    space = RangeSet([(0, 100), (200, 300)])
    fates = dict.fromkeys(Fate, RangeSet()) | {
        Fate.STORED: RangeSet([(0, 60)]),
        Fate.FILTERED: RangeSet([(60, 100), (200, 299)]),
        Fate.MISSING: RangeSet([(299, 300)]),
    }
    assert cells(space, fates, 4) == [Fate.STORED, Fate.FILTERED, Fate.FILTERED, Fate.MISSING]


@pytest.mark.parametrize(
    ("body", "pages"),
    [
        (Body(pages=1000, unpacked=1000), "1,000 in the file, all unpacked"),
        (
            Body(pages=1000, unpacked=459),
            "1,000 in the file, 459 unpacked: damage to 1.0 % of them would show",
        ),
        (Body(pages=1000), "1,000 in the file; their table was read, and none was unpacked"),
        (Body(), "an ELF dump has no table of pages: nothing in it says whether a page is right"),
        (Unknown("it was killed"), "unknown: it was killed"),
    ],
)
def test_how_far_the_pages_were_looked_at_is_shown(body: Body | Unknown, pages: str) -> None:
    report = replace(reports.WHOLE, body=body)
    assert f"\n  Its pages           {pages}\n" in terminal.render(report)
    assert f"\nIts pages\n  pages           {pages}\n" in terminal.render(report, full=True)


def test_damaged_and_unwritten_pages_are_shown_with_their_place() -> None:
    body = Body(pages=9, damaged=RangeSet([(0x1000, 0x3000)]), never_written=RangeSet([(0x4000, 0x5000)]))
    text = terminal.render(replace(reports.WHOLE, body=replace(body, distilled=True)), full=True)
    assert (
        text[text.index("  damaged") : text.index("\nThe kernel")]
        == """\
  damaged         8.0 KiB, [0x1000, 0x3000)
  never written   4.0 KiB, [0x4000, 0x5000)
  distilled       the file has only the pages that a check reads
"""
    )
