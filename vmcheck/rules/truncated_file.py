# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity
from vmcheck.rules import rule
from vmcheck.rules.applies import needs_file


@rule
def truncated_file(case: Case) -> Iterator[Finding]:
    """The file ends before the data that its headers point at.

    What it means: the capture ran out of space or time, a transfer broke off, or a copy stopped at a
    size limit.

    Why it matters: the pages after the end of the file are missing.

    What to do: compare the file's size with the original's, and copy it again. If the original ends
    there too, look for the capture kernel's messages.

    How it is decided: the highest offset that the headers and the page table name is compared with
    the file's size.
    """
    needs_file(case)
    header = case.header
    if header.file_size < header.expected_size:
        yield Finding(
            Severity.LOST,
            "the file is truncated",
            ranges=header.cut,
            evidence=(
                f"the file has {header.file_size} bytes; its headers point at {header.expected_size}, "
                f"{header.expected_size - header.file_size} more",
            ),
        )
