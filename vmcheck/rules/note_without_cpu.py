# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.expected import map_notes
from vmcheck.findings import Finding, Severity
from vmcheck.rules import Case, rule
from vmcheck.rules.applies import needs_crash_notes
from vmcheck.topology import NotKnown


@rule
def note_without_cpu(case: Case) -> Iterator[Finding]:
    """The file has a register note that is no CPU's.

    It equals no CPU's crash_notes: left over from an earlier kernel or a CPU that is gone,
    torn while it was written, or edited. Whatever a tool shows for it is not a CPU's state
    at this crash.
    """
    needs_crash_notes(case)
    notes = map_notes(case.header, case.topology)
    if len(notes.unclaimed) > len(notes.unread):
        yield Finding(
            Severity.WRONG,
            f"{len(notes.unclaimed)} of {len(case.header.cpu_notes)} register notes are no CPU's",
            evidence=tuple(f"{_note(case, position)} crash_notes" for position in notes.unclaimed[:8]),
        )
    elif notes.unclaimed:
        raise NotKnown(f"crash_notes of {len(notes.unread)} CPUs could not be read; the notes may be theirs")


def _note(case: Case, position: int) -> str:
    if case.forecast:
        return f"PT_NOTE {position} of elfcorehdr points at no CPU's"
    return f"NT_PRSTATUS {position} (pid {case.header.cpu_notes[position].pid}) equals no"
