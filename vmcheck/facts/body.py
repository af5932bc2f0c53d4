# SPDX-License-Identifier: LGPL-2.1-or-later
"""What became of the pages that a dump's headers promise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from vmcheck.facts.ranges import EMPTY, RangeSet
from vmcheck.facts.topology import Unknown

NOT_LOOKED_AT = Unknown("the pages were not looked at")


@dataclass(frozen=True)
class Verified:
    """What ``--pages all`` read, beside what every check looks at."""

    start: int
    end: int
    """Physical addresses ``[start, end)`` that were asked for."""
    pages: int = 0
    """Pages in them that were unpacked; of an ELF dump, pages that were read."""
    plain: int = 0
    """Of these, pages that have no checksum: stored as they are, or in an ELF dump."""
    zeros: int = 0
    """Bytes of an ELF dump that are in holes of the file, and read as zeros."""
    damaged: RangeSet = EMPTY
    defects: tuple[str, ...] = ()
    """The first of them, and why."""


class PageUse(NamedTuple):
    """What the kernel used damaged pages for."""

    name: str
    pages: int


@dataclass(frozen=True)
class Body:
    """How far the pages of a dump were looked at, and what was found. Physical addresses throughout."""

    pages: int = 0
    """Pages that the second bitmap says are in the file; of an ELF dump 0: it has no table of pages."""
    never_written: RangeSet = EMPTY
    """Pages at the end of the table that have no page_desc: the writer stopped before them."""
    damaged: RangeSet = EMPTY
    """Pages whose page_desc is impossible, or whose data do not unpack."""
    defects: tuple[str, ...] = ()
    """What is wrong with the table and with damaged pages, the first of each kind."""
    unpacked: int = 0
    """Pages that were unpacked, as a sample over the whole table."""
    distilled: bool = False
    """``vmcheck distill`` made the file: pages that a check does not read were left out on purpose."""
    verified: Verified | None = None
    """All pages of a range, where they were asked for."""
    uses: tuple[PageUse, ...] = ()
    """What the kernel used the damaged pages for, where ``--pages all`` found them."""
    changed: str = ""
    """How the file changed while it was read; empty where it did not."""

    @property
    def would_have_seen(self) -> float | None:
        """Share of damaged pages that the sample shows with 99% probability; None without a sample."""
        if self.verified is not None and self.unpacked < self.pages:
            # Not a sample: nothing follows for the pages outside the range.
            return None
        if not self.unpacked or self.unpacked >= self.pages:
            return 0.0 if self.unpacked else None
        # (1 - share) ** unpacked = 0.01
        return float(1 - 0.01 ** (1 / self.unpacked))
