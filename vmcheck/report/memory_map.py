# SPDX-License-Identifier: LGPL-2.1-or-later
"""The physical address space as lines of equal length, for the page to draw.

Lines start at multiples of their length, so that a line's place says its address; lines
without memory are folded. What would be too small to see is merged with its like or
drawn at a least width: a loss of one page on a machine of 32 TiB has its mark.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from vmcheck.facts.ranges import RangeSet
from vmcheck.facts.topology import Blocks, Unknown
from vmcheck.report import words
from vmcheck.report.memory import GRAVE, Fate, Memory, bytes_below
from vmcheck.report.nodes import Nodes

FEW_LINES, MANY_LINES = 12, 24
MANY_MARKS = 48
"""From so many losses on, more lines keep them apart."""

LEAST_GAP = 1 / 100
"""Of a line. Ranges of one fate that are nearer than this are one mark."""

BARS = 80
"""The profile of stored memory in a full line is drawn with so many bars."""

LEAST_LINE = 1 << 20

LEAST_BLOCK = 1 / 80
"""Of a line. Memory blocks smaller than this would be a grey smear and are not drawn."""

DESCRIBED = "described"
"""Stored and filtered pages alternate too finely to draw each: they are one mark with a profile."""


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

    def text(self, nodes: Nodes) -> str:
        bounds = words.address_range(self.start, self.ranges.end)
        many = f"{words.count(len(self.ranges), 'range')} in " if len(self.ranges) > 1 else ""
        parts = [f"{many}{bounds}", words.size(self.ranges.size), *words.on_nodes(self.ranges, nodes)]
        return f"{words.KIND[self.kind]}: {', '.join(parts)}"


@dataclass(frozen=True)
class Bracket:
    """A piece of a line that is of one NUMA node."""

    node: int
    left: float
    width: float
    """Per cent of the line."""


@dataclass(frozen=True)
class Line:
    start: int
    """Address."""
    marks: tuple[Mark, ...]
    """Drawn in this order: what matters most last, on top."""
    brackets: tuple[Bracket, ...] = ()
    ticks: tuple[float, ...] = ()
    """Where a memory block begins or ends, in per cent of the line."""


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
    block: int | None
    """Bytes of a memory block; None where none are drawn."""


def memory_map(kept: Memory, nodes: Nodes, blocks: Blocks | Unknown) -> MemoryMap:
    """``nodes`` are drawn only where there are several."""
    space = kept.all
    grave = sum(len(kept.fates[fate]) for fate in GRAVE)
    length = _line_length(space, MANY_LINES if grave > MANY_MARKS else FEW_LINES)
    drawn = None
    if not isinstance(blocks, Unknown) and blocks.account.ram and blocks.size >= length * LEAST_BLOCK:
        drawn = blocks
    painter = _Painter(length, by_kind(kept), kept.fates[Fate.STORED], nodes, drawn)
    return MemoryMap(length, tuple(_rows(space, painter)), None if drawn is None else drawn.size)


def by_kind(kept: Memory) -> dict[str, RangeSet]:
    """The fates as the map draws them, least grave first."""
    described = kept.fates[Fate.STORED] | kept.fates[Fate.FILTERED]
    single = (Fate.ELSEWHERE, Fate.EXCLUDED, Fate.UNDESCRIBED, *reversed(GRAVE))
    return {DESCRIBED: described} | {fate.value: kept.fates[fate] for fate in single}


def _line_length(space: RangeSet, most: int) -> int:
    """The least power of two with which no more than ``most`` lines have memory."""
    length = LEAST_LINE
    while space.aligned_outward(length).size // length > most:
        length *= 2
    return length


def _rows(space: RangeSet, painter: _Painter) -> Iterator[Line | Fold]:
    before, length = 0, painter.length
    for first, last in space.aligned_outward(length):
        begins = int(space.starts[np.searchsorted(space.starts, first)])
        if before and first > before:
            yield Fold(begins - _last_end(space, first))
        for start in range(first, last, length):
            yield painter.line(start)
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


@dataclass(frozen=True)
class _Painter:
    """What is to be drawn of every line."""

    length: int
    kinds: Mapping[str, RangeSet]
    stored: RangeSet
    nodes: Nodes
    blocks: Blocks | None

    def line(self, start: int) -> Line:
        window = {kind: _within(ranges, start, start + self.length) for kind, ranges in self.kinds.items()}
        marks = (self._marks(kind, part, start) for kind, part in window.items())
        return Line(
            start,
            tuple(itertools.chain.from_iterable(marks)),
            tuple(self._brackets(start)),
            tuple(self._ticks(start)),
        )

    def _pieces(self, ranges: RangeSet) -> Iterator[RangeSet]:
        """Ranges that are drawn as one, because what lies between them is too little to see."""
        if not ranges:
            return
        apart = np.flatnonzero(ranges.starts[1:] - ranges.ends[:-1] >= self.length * LEAST_GAP) + 1
        for starts, ends in zip(np.split(ranges.starts, apart), np.split(ranges.ends, apart), strict=True):
            yield RangeSet.from_arrays(starts, ends)

    def _place(self, start: int, ranges: RangeSet) -> tuple[float, float]:
        """Left and width."""
        begin = int(ranges.starts[0])
        return 100 * (begin - start) / self.length, 100 * (ranges.end - begin) / self.length

    def _marks(self, kind: str, ranges: RangeSet, line: int) -> Iterator[Mark]:
        for piece in self._pieces(ranges):
            start, end = int(piece.starts[0]), piece.end
            bars = max(1, round(BARS * (end - start) / self.length))
            profile = _profile(ranges, self.stored, start, end, bars) if kind == DESCRIBED else ""
            yield Mark(kind, piece, *self._place(line, piece), profile, bars)

    def _brackets(self, line: int) -> Iterator[Bracket]:
        for node, memory in self.nodes.items():
            for piece in self._pieces(_within(memory, line, line + self.length)):
                yield Bracket(node, *self._place(line, piece))

    def _ticks(self, line: int) -> Iterator[float]:
        if self.blocks is None:
            return
        there = self.blocks.account.ram | self.blocks.offline
        for start, end in _within(there, line, line + self.length):
            first = -(-start // self.blocks.size) * self.blocks.size
            for edge in range(first, end + 1, self.blocks.size):
                yield 100 * (edge - line) / self.length


def _profile(described: RangeSet, stored: RangeSet, start: int, end: int, bars: int) -> str:
    edges = np.linspace(start, end, bars + 1).astype(np.int64)
    whole = np.diff(bytes_below(described, edges))
    share = np.diff(bytes_below(stored & described, edges)) / np.maximum(whole, 1)
    # What is stored at all is seen: a hair's breadth at least.
    heights = np.where(share > 0, np.maximum(share, 0.06), 0)
    steps = (f"V{1 - height:.2f}H{bar}" for bar, height in enumerate(heights, start=1))
    return f"M0 1{''.join(steps)}V1z"
