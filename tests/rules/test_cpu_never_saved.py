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
    outcome,
    saved,
    skipped,
)
from vmcheck.findings import Finding, Severity
from vmcheck.header import DumpHeader
from vmcheck.topology import SavedNote

RULE = "cpu-never-saved"


def test_a_cpu_that_did_not_answer_is_lost() -> None:
    kernel = replace(KERNEL, saved_notes=saved(0) | {1: SavedNote(b"")})
    assert findings(RULE, DUMP, kernel) == [
        Finding(
            Severity.LOST,
            "registers were never saved: the CPU was online and did not answer the crash",
            cpus=(1,),
            evidence=("crash_notes is empty and cpu_online_mask has the CPU",),
        )
    ]


def test_an_offline_cpu_has_nothing_to_save() -> None:
    kernel = replace(KERNEL, online_cpus=frozenset({0}), saved_notes=saved(0) | {1: SavedNote(b"")})
    assert outcome(RULE, DUMP, kernel) == clean(RULE)


def test_unread_crash_notes_are_no_silence() -> None:
    assert outcome(RULE, DUMP, replace(KERNEL, saved_notes=saved(0) | {1: UNREAD})) == clean(RULE)


def test_an_unread_mask_is_skipped() -> None:
    assert outcome(RULE, DUMP, replace(KERNEL, online_cpus=UNREAD)) == skipped(RULE, "crash_notes: lost")


@pytest.mark.parametrize(
    ("dump", "why"),
    [
        (FROM_QEMU, "the hypervisor took the registers itself, from every virtual CPU"),
        (replace(DUMP, machine="s390x"), "s390 saves registers by SIGP store-status, not in crash_notes"),
        (replace(COMPRESSED, header_version=3), "disk_dump_header version 3 carries no notes"),
    ],
)
def test_where_notes_are_not_crash_notes_there_is_no_question(dump: DumpHeader, why: str) -> None:
    for rule in (RULE, "cpu-without-note", "note-without-cpu", "notes-shifted"):
        assert outcome(rule, dump) == inapplicable(rule, why)
