# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.header import Format
from vmcheck.rules import rule
from vmcheck.rules.applies import needs_file


@rule
def incomplete_flag(case: Case) -> Iterator[Finding]:
    """makedumpfile ran out of space while it wrote, and marked the file.

    What it means: pages that did not fit are missing, though the headers describe them.

    Why it matters: a tool that needs one of these pages fails, or reads zeros.

    What to do: give the dump target more space, or filter more pages (``makedumpfile -d 31``).

    How it is decided: makedumpfile sets DUMP_ELF_INCOMPLETE in e_flags or
    DUMP_DH_COMPRESSED_INCOMPLETE in disk_dump_header.status.
    """
    needs_file(case)
    if case.header.incomplete:
        field = (
            "DUMP_ELF_INCOMPLETE in e_flags"
            if case.header.format is Format.ELF
            else "DUMP_DH_COMPRESSED_INCOMPLETE in disk_dump_header.status"
        )
        yield Finding(
            Severity.LOST,
            "the dump is marked incomplete: makedumpfile ran out of space",
            ranges=case.header.cut,
            evidence=(f"{field} is set",),
        )
