# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from dataclasses import replace

from tests.rules.cases import DUMP, FROM_QEMU, KERNEL, UNREAD, clean, findings, inapplicable, outcome, skipped
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.topology import SavedNote

RULE = "notes-of-capture-kernel"
RUNNING = replace(FROM_QEMU, vmcoreinfo_notes=(b"OSRELEASE=6.1.0-test\n",))
"""A hypervisor's dump of a kernel that has not started its capture kernel."""
NONE_SAVED = replace(KERNEL, saved_notes={0: SavedNote(b""), 1: SavedNote(b"")})
SUMMARY = (
    "the register notes are not the crashed kernel's: the hypervisor took them when the "
    "capture kernel was running"
)
CRASHTIME = "VMCOREINFO has CRASHTIME: the kernel had crashed"
SAVED = "crash_notes in memory has the registers that these CPUs saved"


def test_registers_of_the_capture_kernel_are_no_registers_of_the_crash() -> None:
    assert findings(RULE, FROM_QEMU, KERNEL) == [
        Finding(Severity.WRONG, SUMMARY, cpus=(0, 1), evidence=(CRASHTIME, SAVED), recoverable=True)
    ]


def test_crashtime_alone_says_so() -> None:
    kernel = replace(KERNEL, saved_notes=UNREAD)
    assert findings(RULE, FROM_QEMU, kernel) == [Finding(Severity.WRONG, SUMMARY, evidence=(CRASHTIME,))]


def test_saved_registers_alone_say_so() -> None:
    assert findings(RULE, RUNNING, KERNEL) == [
        Finding(Severity.WRONG, SUMMARY, cpus=(0, 1), evidence=(SAVED,), recoverable=True)
    ]


def test_a_running_guest_has_its_own_registers_in_the_notes() -> None:
    assert outcome(RULE, RUNNING, NONE_SAVED) == clean(RULE)


def test_without_crash_notes_it_is_not_known() -> None:
    assert outcome(RULE, RUNNING, replace(KERNEL, saved_notes=UNREAD)) == skipped(RULE, "crash_notes: lost")


def test_kdump_has_no_hypervisors_notes() -> None:
    assert outcome(RULE, DUMP) == inapplicable(RULE, "no hypervisor took the registers")
