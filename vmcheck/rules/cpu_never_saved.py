# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.findings import Finding, Severity
from vmcheck.rules import Case, rule
from vmcheck.rules.applies import needs_crash_notes, needs_file
from vmcheck.topology import SavedNote, known


@rule
def cpu_never_saved(case: Case) -> Iterator[Finding]:
    """A CPU was online at the crash and never saved its registers.

    Its crash_notes is empty, so it did not answer the crash's NMI or IPI within a second:
    stuck in firmware or SMM, halted, or held by the hypervisor. No header could have
    helped, and the registers cannot be recovered; its task's stack may still tell where
    it was. A CPU that was offline has nothing to save and is not reported.
    """
    needs_file(case)
    needs_crash_notes(case)
    online, saved = known(case.topology.online_cpus), known(case.topology.saved_notes)
    silent = tuple(sorted(cpu for cpu in online if saved.get(cpu) == SavedNote(b"")))
    if silent:
        yield Finding(
            Severity.LOST,
            "registers were never saved: the CPU was online and did not answer the crash",
            cpus=silent,
            evidence=("crash_notes is empty and cpu_online_mask has the CPU",),
        )
