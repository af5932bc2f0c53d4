# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.expected import map_notes
from vmcheck.findings import Finding, Severity
from vmcheck.rules import Case, rule
from vmcheck.rules.applies import needs_crash_notes


@rule
def cpu_without_note(case: Case) -> Iterator[Finding]:
    """A CPU saved its registers, and the headers have no note for it.

    Every CPU writes its registers into its crash_notes when it stops. elfcorehdr says
    which of those notes exist, and it was written before this CPU came. The registers lie
    in the dump's memory and can be recovered; drgn reads them there. Tools that rely on
    the notes show nothing for this CPU, or another CPU's registers.
    """
    needs_crash_notes(case)
    if cpus := map_notes(case.header, case.topology).without:
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
