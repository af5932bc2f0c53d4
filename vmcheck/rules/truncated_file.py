# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vmcheck.findings import Finding, Severity
from vmcheck.ranges import EMPTY, RangeSet
from vmcheck.rules import Case, rule
from vmcheck.rules.applies import physical


@rule
def truncated_file(case: Case) -> Iterator[Finding]:
    """The file ends before the data that its headers point at.

    The capture ran out of space or time, a transfer broke off, or a copy stopped at a size
    limit. The pages behind the end are gone. Look for the capture kernel's messages, and
    compare the size with the original's before anything else.
    """
    header = case.header
    if header.file_size >= header.expected_size:
        return
    ranges = EMPTY
    if len(segments := physical(header.segments)):
        left = np.clip(header.file_size - segments.p_offset.astype(np.int64), 0, None)
        kept = np.minimum(left, segments.p_filesz.astype(np.int64))
        start = segments.p_paddr.astype(np.int64)
        ranges = RangeSet.from_arrays(start + kept, start + segments.p_filesz.astype(np.int64))
        # The kernel's text is stored twice.
        ranges -= RangeSet.from_arrays(start, start + kept)
    yield Finding(
        Severity.LOST,
        "the file is truncated",
        ranges=ranges,
        evidence=(
            f"the file has {header.file_size} bytes; its headers point at {header.expected_size}, "
            f"{header.expected_size - header.file_size} more",
        ),
    )
