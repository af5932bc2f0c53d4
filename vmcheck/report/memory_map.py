# SPDX-License-Identifier: LGPL-2.1-or-later
"""The physical address space as lines of equal length, for the page to draw.

Lines start at multiples of their length, so that a line's place says its address; lines
without memory are folded. What would be too small to see is merged with its like or
drawn at a least width: a loss of one page on a machine of 32 TiB has its mark.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from vmcheck.ranges import RangeSet
from vmcheck.report import words
from vmcheck.report.memory import GRAVE, Fate, Memory, bytes_below

FEW_LINES, MANY_LINES = 12, 24
MANY_MARKS = 48
"""From so many losses on, more lines keep them apart."""

LEAST_GAP = 1 / 100
"""Of a line. Ranges of one fate that are nearer than this are one mark."""

BARS = 80
"""The profile of stored memory in a full line is drawn with so many bars."""

LEAST_LINE = 1 << 20

DESCRIBED = "described"
"""Stored and filtered pages alternate too finely to tell apart: one mark with a profile."""


@dataclass(frozen=True)
class Mark:
    """A piece of a line."""

    kind: str
    """A Fate's value, or ``described``."""
    ranges: RangeSet
    """All that it stands for; more than one where neighbours were merged."""
    left: float
    width: float
    """Per cent of the line."""
    profile: str = ""
    """Of described memory: an SVG path over ``[0, bars] x [0, 1]``, the stored part of each bar."""
    bars: int = 1

    @property
    def start(self) -> int:
        return int(self.ranges.starts[0])

    @property
    def text(self) -> str:
        bounds = words.address_range(self.start, self.ranges.end)
        many = f"{words.count(len(self.ranges), 'range')} in " if len(self.ranges) > 1 else ""
        return f"{words.KIND[self.kind]}: {many}{bounds}, {words.size(self.ranges.size)}"


@dataclass(frozen=True)
class Line:
    start: int
    """Address."""
    marks: tuple[Mark, ...]
    """Drawn in this order: what matters most last, on top."""


@dataclass(frozen=True)
class Fold:
    """Lines without memory."""

    size: int
    """Bytes from the last memory before to the first after."""


@dataclass(frozen=True)
class MemoryMap:
    length: int
    """Bytes of address space in each line."""
    rows: tuple[Line | Fold, ...]


def memory_map(kept: Memory) -> MemoryMap:
    kinds = by_kind(kept)
    space = kept.all
    grave = sum(len(kept.fates[fate]) for fate in GRAVE)
    length = _line_length(space, MANY_LINES if grave > MANY_MARKS else FEW_LINES)
    return MemoryMap(length, tuple(_rows(space, kinds, kept.fates[Fate.STORED], length)))


def by_kind(kept: Memory) -> dict[str, RangeSet]:
    """The fates as the map tells them apart, least grave first."""
    described = kept.fates[Fate.STORED] | kept.fates[Fate.FILTERED]
    single = (Fate.ELSEWHERE, Fate.EXCLUDED, Fate.UNDESCRIBED, *reversed(GRAVE))
    return {DESCRIBED: described} | {fate.value: kept.fates[fate] for fate in single}


def _line_length(space: RangeSet, most: int) -> int:
    """The least power of two with which no more than ``most`` lines have memory."""
    length = LEAST_LINE
    while space.aligned_outward(length).size // length > most:
        length *= 2
    return length


def _rows(
    space: RangeSet, kinds: dict[str, RangeSet], stored: RangeSet, length: int
) -> Iterator[Line | Fold]:
    before = 0
    for first, last in space.aligned_outward(length):
        begins = int(space.starts[np.searchsorted(space.starts, first)])
        if before and first > before:
            yield Fold(begins - _last_end(space, first))
        for start in range(first, last, length):
            window = {kind: _within(ranges, start, start + length) for kind, ranges in kinds.items()}
            marks = (_marks(kind, part, stored, start, length) for kind, part in window.items())
            yield Line(start, tuple(itertools.chain.from_iterable(marks)))
        before = last


def _last_end(space: RangeSet, address: int) -> int:
    """Where the last range below ``address`` ends."""
    return int(space.ends[np.searchsorted(space.ends, address, side="right") - 1])


def _within(ranges: RangeSet, start: int, end: int) -> RangeSet:
    """As ``ranges & RangeSet([(start, end)])``, in the time that the result takes."""
    first = np.searchsorted(ranges.ends, start, side="right")
    last = np.searchsorted(ranges.starts, end, side="left")
    starts, ends = ranges.starts[first:last], ranges.ends[first:last]
    return RangeSet.from_arrays(np.maximum(starts, start), np.minimum(ends, end))


def _marks(kind: str, ranges: RangeSet, stored: RangeSet, line: int, length: int) -> Iterator[Mark]:
    if not ranges:
        return
    apart = np.flatnonzero(ranges.starts[1:] - ranges.ends[:-1] >= length * LEAST_GAP) + 1
    for starts, ends in zip(np.split(ranges.starts, apart), np.split(ranges.ends, apart), strict=True):
        start, end = int(starts[0]), int(ends[-1])
        bars = max(1, round(BARS * (end - start) / length))
        profile = _profile(ranges, stored, start, end, bars) if kind == DESCRIBED else ""
        yield Mark(
            kind,
            RangeSet.from_arrays(starts, ends),
            100 * (start - line) / length,
            100 * (end - start) / length,
            profile,
            bars,
        )


def _profile(described: RangeSet, stored: RangeSet, start: int, end: int, bars: int) -> str:
    edges = np.linspace(start, end, bars + 1).astype(np.int64)
    whole = np.diff(bytes_below(described, edges))
    share = np.diff(bytes_below(stored & described, edges)) / np.maximum(whole, 1)
    # What is stored at all is seen: a hair's breadth at least.
    heights = np.where(share > 0, np.maximum(share, 0.06), 0)
    steps = (f"V{1 - height:.2f}H{bar}" for bar, height in enumerate(heights, start=1))
    return f"M0 1{''.join(steps)}V1z"
