# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.topology import NotKnown, SavedNote, known
from vmcheck.rules import rule
from vmcheck.rules.applies import needs_crash_notes, needs_file


@rule
def cpu_never_saved(case: Case) -> Iterator[Finding]:
    """A CPU was online at the crash and never saved its registers.

    What it means: the CPU did not answer the crash's NMI or IPI in time: it was stuck in firmware or
    SMM, halted, or stopped by the hypervisor.

    Why it matters: its registers cannot be recovered, and no header could have kept them. The stack
    of its task may still show where it was.

    What to do: read the kernel log for a lockup of this CPU, and look for its current task's stack
    with crash or drgn. On a virtual machine, look at the host.

    How it is decided: the CPU's crash_notes is empty and cpu_online_mask has the CPU. A CPU that was
    offline has nothing to save and is not reported. Where the file has a register note that is no
    CPU's, the rule is skipped: the note may be this CPU's.
    """
    needs_file(case)
    needs_crash_notes(case)
    online, saved = known(case.topology.online_cpus), known(case.topology.saved_notes)
    silent = tuple(sorted(cpu for cpu in online if saved.get(cpu) == SavedNote(b"")))
    if silent and (unclaimed := case.notes.unclaimed):
        raise NotKnown(
            f"{len(unclaimed)} register notes of the file equal no CPU's crash_notes, and may be these "
            "CPUs': what is read as crash_notes is not what was saved"
        )
    if silent:
        yield Finding(
            Severity.LOST,
            "registers were never saved: the CPU was online and did not answer the crash",
            cpus=silent,
            evidence=("crash_notes is empty and cpu_online_mask has the CPU",),
        )
