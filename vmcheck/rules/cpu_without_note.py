# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity
from vmcheck.rules import rule
from vmcheck.rules.applies import needs_crash_notes


@rule
def cpu_without_note(case: Case) -> Iterator[Finding]:
    """A CPU saved its registers, and the headers have no note for it.

    What it means: each CPU writes its registers into its crash_notes when it stops. elfcorehdr names
    the crash_notes to copy into the dump, and it was written before this CPU was added.

    Why it matters: tools that rely on the notes show nothing for this CPU, or another CPU's
    registers.

    What to do: use drgn, which reads crash_notes in the dump's memory. For the next dump, let the
    kernel or udev update elfcorehdr after each change of CPUs.

    How it is decided: crash_notes in memory holds an NT_PRSTATUS that equals no note of the file. In
    a running kernel: no PT_NOTE of the loaded elfcorehdr points at it.
    """
    needs_crash_notes(case)
    if cpus := case.notes.without:
        yield Finding(
            Severity.LOST,
            "registers would be saved and have no note: elfcorehdr was written before the CPU came"
            if case.forecast
            else "registers that were saved have no note: elfcorehdr was written before the CPU came",
            cpus=cpus,
            evidence=(
                "no PT_NOTE of the loaded elfcorehdr points at its crash_notes"
                if case.forecast
                else "crash_notes in memory holds an NT_PRSTATUS that equals no note of the file",
            ),
            recoverable=True,
        )
