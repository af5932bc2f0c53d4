# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.quantities import count, size
from vmcheck.rules import Inapplicable, rule
from vmcheck.rules.applies import needs_file


@rule
def split_part_missing(case: Case) -> Iterator[Finding]:
    """Parts of a split dump were not given.

    What it means: ``makedumpfile --split`` wrote the dump to several files, and pages that the
    bitmap promises are in files that were not named.

    Why it matters: a tool that needs one of those pages fails. What the missing parts hold was
    not checked.

    What to do: give all parts: ``vmcheck check vmcore.1 vmcore.2 ...``. If one is lost, so are
    its pages.

    How it is decided: each part names the page frames that it holds (kdump_sub_header.start_pfn,
    end_pfn); the second bitmap is of the whole dump.
    """
    needs_file(case)
    if not case.header.split:
        raise Inapplicable("the dump is not split")
    if absent := case.header.absent_parts:
        yield Finding(
            Severity.LOST,
            f"a part of the split dump was not given: {size(absent.size)} of pages are in it",
            ranges=absent,
            evidence=(f"given: {count(len(case.header.split), 'part')}",),
        )
