# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.quantities import count
from vmcheck.facts.topology import known
from vmcheck.rules import rule
from vmcheck.rules.applies import needs_file, needs_page_table


@rule
def damaged_pages(case: Case) -> Iterator[Finding]:
    """Pages that are in the file are damaged.

    What it means: the file has a place for each of these pages, and what is there is no page: an
    impossible page_desc, or data that do not unpack. A disk, a copy or a reset right after the
    capture damaged the file.

    Why it matters: a tool that needs such a page fails or reads zeros, and what else the damage
    touched is unknown.

    What to do: compare the file with its original by a checksum, and copy it again. If the
    original is damaged too, look at its disk and file system.

    How it is decided: the whole table of page_desc is read, and a sample of pages is unpacked
    beside those that the check itself reads; ``--pages all`` unpacks all of them. A plain check can
    miss damage to the data of a few pages; the report says how much it would have seen.
    """
    needs_file(case)
    body = known(case.body)
    if body.verified is None:
        needs_page_table(case)
    if body.damaged or body.defects:
        pages = body.damaged.size // case.header.page_size
        yield Finding(
            Severity.LOST,
            f"the dump is damaged: {count(pages, 'page')} of {body.pages or body.unpacked:,} cannot be read"
            if pages
            else "the dump is damaged: its table of pages contradicts its bitmap",
            ranges=body.damaged,
            evidence=(
                *body.defects,
                *(f"used for {use.name}: {count(use.pages, 'page')}" for use in body.uses),
            ),
        )
