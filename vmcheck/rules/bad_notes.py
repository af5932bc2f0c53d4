# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.findings import Finding, Severity
from vmcheck.rules import Case, rule


@rule
def bad_notes(case: Case) -> Iterator[Finding]:
    """An ELF note's own header is impossible.

    Its name or descriptor runs past the end, or has a size that the note's type cannot
    have. What follows it cannot be read, so notes may be lost. What could be read was used.
    """
    if case.header.note_defects:
        yield Finding(Severity.WRONG, "the notes are damaged", evidence=case.header.note_defects[:8])
