# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.findings import Finding, Severity
from vmcheck.header import Producer
from vmcheck.rules import Case, rule


@rule
def missing_vmcoreinfo(case: Case) -> Iterator[Finding]:
    """The dump has no VMCOREINFO.

    It is the way into the kernel's memory: without it no tool finds the page tables of a
    kernel with KASLR, and vmcheck can ask the kernel nothing. QEMU includes it only with
    ``-device vmcoreinfo``.
    """
    if not case.header.vmcoreinfo_notes:
        remedy = (
            ("QEMU was run without -device vmcoreinfo",)
            if case.header.producer is Producer.HYPERVISOR
            else ("elfcorehdr did not name it, or it was cut out",)
        )
        yield Finding(Severity.WRONG, "there is no VMCOREINFO note", evidence=remedy)
