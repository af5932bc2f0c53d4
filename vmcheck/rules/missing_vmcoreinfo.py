# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.header import Producer
from vmcheck.rules import rule


@rule
def missing_vmcoreinfo(case: Case) -> Iterator[Finding]:
    """The dump has no VMCOREINFO.

    What it means: the note that describes the kernel is not in the file. QEMU includes it only with
    ``-device vmcoreinfo``.

    Why it matters: without it no tool finds the page tables of a kernel with KASLR, and vmcheck
    cannot read the kernel's memory. What the dump lacks stays unknown.

    What to do: for a kdump dump, look for the original file and read the capture kernel's messages.
    For QEMU, add ``-device vmcoreinfo`` to the machine.

    How it is decided: no note of the file has the name VMCOREINFO.
    """
    if not case.header.vmcoreinfo_notes:
        remedy = (
            ("QEMU was run without -device vmcoreinfo",)
            if case.header.producer is Producer.HYPERVISOR
            else ("elfcorehdr did not name it, or it was cut out",)
        )
        yield Finding(Severity.WRONG, "there is no VMCOREINFO note", evidence=remedy)
