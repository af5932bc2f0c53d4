# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.findings import Finding, Severity
from vmcheck.rules import Case, rule
from vmcheck.rules.applies import needs_file


@rule
def truncated_file(case: Case) -> Iterator[Finding]:
    """The file ends before the data that its headers point at.

    The capture ran out of space or time, a transfer broke off, or a copy stopped at a size
    limit. The pages behind the end are gone. Look for the capture kernel's messages, and
    compare the size with the original's before anything else.
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
