# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether the data of pages follow each other in a kdump-compressed file.

makedumpfile (write_kdump_pages_cyclic()) and QEMU (write_dump_pages()) write the pages in rising order, the
data of each behind the data of the one before it. Pages of zeros share one page, which comes first.
So a page_desc whose data do not begin where those of its predecessor end was changed afterwards.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

MOST_BREAKS = 1 << 12
"""Places that are kept, to name the pages."""


class PageChain:
    """The links between neighbours of one table, added piece by piece."""

    def __init__(self, zeros: int, loose: bool) -> None:
        """``zeros`` is the file offset of the page that all pages of zeros share.

        In a ``loose`` chain there may be room between two pages, as ``vmcheck distill --redact`` leaves it.
        """
        self._loose = loose
        self._zeros = np.uint64(zeros)
        self._last: tuple[int, int] | None = None
        """Index of the last page_desc with data of its own, and where these end; None behind a gap."""
        self._breaks: list[tuple[int, int]] = []
        """Neighbours, by index, whose data do not follow each other."""
        self.number = 0
        """Of breaks."""

    def add(self, table: npt.NDArray[Any], first: int, empty: npt.NDArray[np.bool_]) -> None:
        """The page_descs from index ``first`` on. What lies beside ``empty`` ones is not compared."""
        offsets = table["offset"].astype(np.uint64)
        own = np.flatnonzero(~empty & (offsets != self._zeros))
        gaps = np.cumsum(empty)
        if not len(own):
            self._last = None if empty.any() else self._last
            return
        starts = offsets[own]
        ends = starts + table["size"][own].astype(np.uint64)
        if self._last is not None and not gaps[own[0]]:
            before, end = self._last
            if int(starts[0]) < end or (int(starts[0]) > end and not self._loose):
                self._note(before, first + int(own[0]))
        together = gaps[own[:-1]] == gaps[own[1:]]
        apart = starts[1:] < ends[:-1] if self._loose else starts[1:] != ends[:-1]
        broken = np.flatnonzero(together & apart)
        self.number += len(broken)
        for place in broken[: max(0, MOST_BREAKS - len(self._breaks))].tolist():
            self._breaks.append((first + int(own[place]), first + int(own[place + 1])))
        whole = gaps[-1] == gaps[own[-1]]
        self._last = (first + int(own[-1]), int(ends[-1])) if whole else None

    def _note(self, before: int, after: int) -> None:
        self.number += 1
        if len(self._breaks) < MOST_BREAKS:
            self._breaks.append((before, after))

    def pages(self) -> list[int]:
        """Indices of the page_descs that must be wrong for the others to be right."""
        found: list[int] = []
        waiting: tuple[int, int] | None = None
        for before, after in self._breaks:
            if waiting is not None and waiting[1] == before:
                # Neither neighbour joins it: its own offset is wrong.
                found.append(before)
                waiting = None
                continue
            if waiting is not None:
                found.append(waiting[0])
            waiting = before, after
        if waiting is not None:
            found.append(waiting[0])
        return found
