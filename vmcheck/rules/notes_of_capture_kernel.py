# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.header import Producer
from vmcheck.facts.topology import NotKnown, SavedNote, known
from vmcheck.rules import Inapplicable, rule
from vmcheck.rules.applies import registers_saved


@rule
def notes_of_capture_kernel(case: Case) -> Iterator[Finding]:
    """The register notes are not the crashed kernel's: its capture kernel was running.

    What it means: the kernel had crashed and started its capture kernel, and then the hypervisor
    took this dump. VMCOREINFO and the memory are the crashed kernel's. The registers in the notes
    are those of the capture kernel.

    Why it matters: a tool that uses the notes shows registers and stacks that have nothing to do
    with the crash.

    What to do: read the registers from crash_notes in memory, as drgn does. Let the capture
    kernel finish, or take the hypervisor's dump before it starts (QEMU's pvpanic).

    How it is decided: the kernel adds CRASHTIME to VMCOREINFO, and each CPU saves its registers in
    crash_notes, just before the capture kernel starts. A guest that runs, or that crashed without
    a crash kernel, has neither.
    """
    if case.header.producer is not Producer.HYPERVISOR:
        raise Inapplicable("no hypervisor took the registers")
    crashed = "CRASHTIME" in case.header.vmcoreinfo
    try:
        saved = registers_saved(case)
        cpus = tuple(
            sorted(
                cpu
                for cpu, note in known(case.topology.saved_notes).items()
                if isinstance(note, SavedNote) and note.descriptor
            )
        )
    except NotKnown:
        if not crashed:
            raise
        saved, cpus = False, ()
    if crashed or saved:
        yield Finding(
            Severity.WRONG,
            "the register notes are not the crashed kernel's: the hypervisor took them when the "
            "capture kernel was running",
            cpus=cpus,
            evidence=(
                *(["VMCOREINFO has CRASHTIME: the kernel had crashed"] if crashed else []),
                *(["crash_notes in memory has the registers that these CPUs saved"] if cpus else []),
            ),
            recoverable=bool(cpus),
        )
