# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.findings import Finding, Severity
from vmcheck.header import Format
from vmcheck.rules import Case, rule
from vmcheck.rules.applies import needs_file


@rule
def incomplete_flag(case: Case) -> Iterator[Finding]:
    """makedumpfile ran out of space while it wrote, and marked the file.

    Pages that did not fit are absent, though the headers describe them. The target needs
    more space, or the dump a stricter filter (makedumpfile -d 31).
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
