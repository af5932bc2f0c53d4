# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.topology import NotKnown
from vmcheck.rules import rule


@rule
def bad_notes(case: Case) -> Iterator[Finding]:
    """A note is damaged: its own header is impossible, or its registers are not what the CPU saved.

    What it means: the note's name or descriptor runs past the end, or has a size that the note's
    type cannot have. What follows such a note cannot be read. What could be read was used. Or a few
    bytes of a register note differ from the CPU's crash_notes, or are zeros.

    Why it matters: register notes or VMCOREINFO may be missing, and tools may show registers that
    are not a CPU's.

    What to do: compare the file with its original by a checksum, and copy it again. If the original
    has the same damage, rely on crash_notes in the dump's memory, as drgn does.

    How it is decided: each note's n_namesz and n_descsz are checked against the end of the notes and
    against the size that ``struct elf_prstatus`` has on the dump's machine. Each register note is
    compared with the CPUs' crash_notes in the dump's memory.
    """
    evidence = list(case.header.note_defects)
    try:
        changed = case.notes.changed
    except NotKnown:
        changed = {}
    evidence += [
        f"NT_PRSTATUS {position} differs from CPU {cpu}'s crash_notes in memory in a few bytes"
        for position, cpu in changed.items()
    ]
    if evidence:
        yield Finding(Severity.WRONG, "the notes are damaged", evidence=tuple(evidence[:8]))
