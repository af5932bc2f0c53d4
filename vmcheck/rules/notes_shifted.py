# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity
from vmcheck.rules import rule
from vmcheck.rules.applies import needs_crash_notes


@rule
def notes_shifted(case: Case) -> Iterator[Finding]:
    """crash would give CPUs each other's registers.

    What it means: crash assigns the notes in order to the CPUs that have valid crash_notes. If one
    of these CPUs has no note in the file and a later one has, each note from there on goes to the
    wrong CPU, and the last CPUs get none.

    Why it matters: crash shows wrong registers and no error. drgn reads crash_notes itself and is
    not affected.

    What to do: use drgn for the registers and stacks of running tasks.

    How it is decided: the notes are matched with the CPUs' crash_notes, and crash's order is applied
    to the result.
    """
    needs_crash_notes(case)
    notes = case.notes
    takers = sorted([*notes.cpu_of.values(), *notes.without])
    owners = [notes.cpu_of.get(note.position) for note in case.header.cpu_notes]
    wrong = [
        (taker, owner)
        for taker, owner in zip(takers, owners, strict=False)
        if owner is not None and owner != taker
    ]
    if wrong:
        yield Finding(
            Severity.WRONG,
            f"crash {'would' if case.forecast else 'will'} show registers of the wrong CPU: "
            "it assigns notes in order, and one is absent",
            cpus=tuple(taker for taker, _ in wrong),
            evidence=tuple(
                f"crash {'would show' if case.forecast else 'shows'} CPU {owner}'s registers as CPU {taker}'s"
                for taker, owner in wrong[:8]
            ),
        )
