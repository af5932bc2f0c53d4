# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.topology import NotKnown
from vmcheck.rules import rule
from vmcheck.rules.applies import needs_crash_notes


@rule
def note_without_cpu(case: Case) -> Iterator[Finding]:
    """The file has a register note that is no CPU's.

    What it means: the note equals no CPU's crash_notes. It is left over from an earlier kernel or from
    a CPU that is gone, was torn while it was written, or was edited.

    Why it matters: what a tool shows for it is not a CPU's state at this crash.

    What to do: use crash_notes in the dump's memory for this kernel's CPUs, as drgn does.

    How it is decided: each NT_PRSTATUS of the file is compared with the crash_notes of every CPU. In
    a running kernel: each PT_NOTE of the loaded elfcorehdr must point at a CPU's crash_notes.
    """
    needs_crash_notes(case)
    notes = case.notes
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
