# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from dataclasses import replace

import pytest

from tests.rules.cases import (
    COMPRESSED,
    DUMP,
    FROM_QEMU,
    KERNEL,
    UNREAD,
    clean,
    findings,
    inapplicable,
    notes,
    outcome,
    saved,
    skipped,
)
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.header import DumpHeader, Producer
from vmcheck.facts.topology import SavedNote

RULE = "cpu-never-saved"


def test_a_cpu_that_did_not_answer_is_lost() -> None:
    kernel = replace(KERNEL, saved_notes=saved(0) | {1: SavedNote(b"")})
    assert findings(RULE, replace(DUMP, cpu_notes=notes(0)), kernel) == [
        Finding(
            Severity.LOST,
            "registers were never saved: the CPU was online and did not answer the crash",
            cpus=(1,),
            evidence=("crash_notes is empty and cpu_online_mask has the CPU",),
        )
    ]


def test_a_note_that_is_no_cpu_s_may_be_that_of_the_cpu_whose_crash_notes_read_as_empty() -> None:
    """Bits of the second bitmap that moved: each page is read as another one."""
    kernel = replace(KERNEL, saved_notes={0: SavedNote(b""), 1: SavedNote(b"")})
    assert outcome(RULE, replace(DUMP, cpu_notes=notes(0, 1)), kernel) == skipped(
        RULE,
        "2 register notes of the file equal no CPU's crash_notes, and may be these CPUs': "
        "what is read as crash_notes is not what was saved",
    )


def test_an_offline_cpu_has_nothing_to_save() -> None:
    kernel = replace(KERNEL, online_cpus=frozenset({0}), saved_notes=saved(0) | {1: SavedNote(b"")})
    assert outcome(RULE, DUMP, kernel) == clean(RULE)


def test_unread_crash_notes_are_no_silence() -> None:
    assert outcome(RULE, DUMP, replace(KERNEL, saved_notes=saved(0) | {1: UNREAD})) == clean(RULE)


def test_an_unread_mask_is_skipped() -> None:
    assert outcome(RULE, DUMP, replace(KERNEL, online_cpus=UNREAD)) == skipped(RULE, "crash_notes: lost")


NONE_SAVED = replace(KERNEL, saved_notes={0: SavedNote(b""), 1: SavedNote(b"")})
RUNNING = (b"OSRELEASE=6.1.0-test\n",)


@pytest.mark.parametrize(
    ("dump", "why"),
    [
        (
            replace(DUMP, producer=Producer.HYPERVISOR, vmcoreinfo_notes=RUNNING),
            "the hypervisor took the registers itself, from every virtual CPU",
        ),
        (FROM_QEMU, "the capture kernel was running: see notes-of-capture-kernel"),
        (
            replace(DUMP, producer=Producer.KCORE, vmcoreinfo_notes=RUNNING),
            "the kernel was running: no CPU saved its registers",
        ),
        (
            replace(DUMP, producer=Producer.XEN),
            "Xen saved the registers of the physical CPUs, and no CPU of the kernel saved its own",
        ),
        (replace(DUMP, machine="s390x"), "s390x saves registers by the machine itself, not in crash_notes"),
    ],
)
def test_where_notes_are_not_crash_notes_there_is_no_question(dump: DumpHeader, why: str) -> None:
    for rule in (RULE, "cpu-without-note", "note-without-cpu", "notes-shifted"):
        assert outcome(rule, dump, NONE_SAVED) == inapplicable(rule, why)


@pytest.mark.parametrize("producer", [Producer.KCORE, Producer.XEN, Producer.HYPERVISOR])
def test_the_names_of_notes_alone_switch_no_rule_off(producer: Producer) -> None:
    """A CPU of the kernel has saved its registers, so this is of a crash, whatever the notes say."""
    dump = replace(DUMP, producer=producer, cpu_notes=DUMP.cpu_notes[:1], vmcoreinfo_notes=RUNNING)
    assert [finding.cpus for finding in findings("cpu-without-note", dump)] == [(1,)]


def test_a_header_version_without_notes_switches_no_rule_off() -> None:
    """The version is one number of a file that may be damaged."""
    old = replace(COMPRESSED, header_version=3)
    for rule in (RULE, "cpu-without-note", "note-without-cpu", "notes-shifted"):
        assert outcome(rule, old) == skipped(rule, "disk_dump_header version 3 carries no notes")
