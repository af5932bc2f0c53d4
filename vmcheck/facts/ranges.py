# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sets of physical addresses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Bounds = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

ADDRESS_LIMIT = 1 << 62
"""Addresses are below this. No architecture has more than 57 physical address bits."""


def distinct(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The different values, rising. np.unique() imports numpy.ma for this: a twentieth of a check."""
    ordered = np.sort(values)
    first = np.ones(len(ordered), dtype=np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]


class RangeSet:
    """A set of byte addresses as sorted, disjoint, non-adjacent ranges ``[start, end)``.

    Immutable and hashable. Every operation is one vectorised sweep over the bounds,
    linear in the number of ranges, so 500,000 of them cost milliseconds.
    """

    __slots__ = ("_bounds",)

    _bounds: Bounds
    """Strictly increasing: start, end, start, end... Crossing a bound toggles membership."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        pairs = list(ranges)
        if any(start < 0 or end > ADDRESS_LIMIT for start, end in pairs):
            raise ValueError("a range lies outside the physical address space")
        array = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        self._bounds = _merged(array[:, 0], array[:, 1])
        self._bounds.flags.writeable = False

    @classmethod
    def from_arrays(cls, starts: npt.NDArray[Any], ends: npt.NDArray[Any]) -> RangeSet:
        """Ranges in any order, overlapping or empty, as two integer arrays of one length."""
        if len(starts) and (int(starts.min()) < 0 or max(int(starts.max()), int(ends.max())) > ADDRESS_LIMIT):
            raise ValueError("a range lies outside the physical address space")
        return cls._of(_merged(starts.astype(np.int64), ends.astype(np.int64)))

    @classmethod
    def from_bounds(cls, bounds: Bounds) -> RangeSet:
        """Bounds that already are strictly increasing: start, end, start, end..."""
        if len(bounds) & 1 or (bounds[1:] <= bounds[:-1]).any():
            raise ValueError("the bounds of ranges are pairs in rising order")
        if len(bounds) and not 0 <= int(bounds[0]) <= int(bounds[-1]) <= ADDRESS_LIMIT:
            raise ValueError("a range lies outside the physical address space")
        return cls._of(bounds)

    @classmethod
    def _of(cls, bounds: Bounds) -> RangeSet:
        result = cls.__new__(cls)
        bounds.flags.writeable = False
        result._bounds = bounds
        return result

    @property
    def starts(self) -> Bounds:
        return self._bounds[::2]

    @property
    def ends(self) -> Bounds:
        return self._bounds[1::2]

    @property
    def size(self) -> int:
        """Bytes in the set."""
        return int((self.ends - self.starts).sum())

    @property
    def end(self) -> int:
        """The address after the highest one in the set; 0 for the empty set."""
        return int(self._bounds[-1]) if len(self._bounds) else 0

    def __or__(self, other: RangeSet) -> RangeSet:
        return self._sweep(other, np.logical_or)

    def __and__(self, other: RangeSet) -> RangeSet:
        return self._sweep(other, np.logical_and)

    def __sub__(self, other: RangeSet) -> RangeSet:
        return self._sweep(other, np.greater)

    def _sweep(self, other: RangeSet, keep: Callable[[Flags, Flags], Flags]) -> RangeSet:
        points = np.concatenate([self._bounds, other._bounds])
        # Two sorted runs: the stable sort merges them in linear time.
        order = np.argsort(points, kind="stable")
        points = points[order]
        ours = order < len(self._bounds)
        inside_ours = np.logical_xor.accumulate(ours)
        inside_other = np.logical_xor.accumulate(~ours)
        kept = keep(inside_ours, inside_other)
        # Where bounds coincide, the state after the last of them counts.
        last = np.append(points[1:] != points[:-1], np.ones(min(1, len(points)), dtype=bool))
        points, kept = points[last], kept[last]
        changes = np.flatnonzero(kept[1:] != kept[:-1]) + 1
        if len(kept) and kept[0]:
            changes = np.insert(changes, 0, 0)
        return RangeSet._of(points[changes])

    def clipped(self, start: int, end: int) -> RangeSet:
        """The part in ``[start, end)``, at the cost of that part alone."""
        first = int(np.searchsorted(self.ends, start, side="right"))
        last = int(np.searchsorted(self.starts, end, side="left"))
        bounds = self._bounds[2 * first : 2 * last].copy()
        if len(bounds):
            bounds[0], bounds[-1] = max(int(bounds[0]), start), min(int(bounds[-1]), end)
        return RangeSet.from_bounds(bounds)

    def aligned_inward(self, unit: int) -> RangeSet:
        """Only whole, aligned units of ``unit`` bytes that lie entirely in the set."""
        return RangeSet.from_arrays(-(-self.starts // unit) * unit, self.ends // unit * unit)

    def aligned_outward(self, unit: int) -> RangeSet:
        """Every aligned unit of ``unit`` bytes that the set touches."""
        return RangeSet.from_arrays(self.starts // unit * unit, -(-self.ends // unit) * unit)

    def contains(self, addresses: npt.NDArray[Any]) -> Flags:
        """For each address, whether it is in the set."""
        return np.asarray(np.searchsorted(self._bounds, addresses, side="right") & 1, dtype=bool)

    def __contains__(self, address: int) -> bool:
        return bool(self.contains(np.array([address], dtype=np.int64))[0])

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.starts.tolist(), self.ends.tolist(), strict=True)

    def __len__(self) -> int:
        """Ranges, not bytes."""
        return len(self._bounds) // 2

    def __bool__(self) -> bool:
        return len(self._bounds) > 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and np.array_equal(self._bounds, other._bounds)

    def __hash__(self) -> int:
        return hash(self._bounds.tobytes())

    def __repr__(self) -> str:
        return f"RangeSet([{', '.join(f'({start:#x}, {end:#x})' for start, end in self)}])"

    def __reduce__(self) -> tuple[Callable[[Bounds], RangeSet], tuple[Bounds]]:
        return RangeSet.from_bounds, (self._bounds,)


def _merged(starts: Bounds, ends: Bounds) -> Bounds:
    """The bounds of the union of ranges in any order."""
    filled = starts < ends
    starts, ends = starts[filled], ends[filled]
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    # A range begins where it does not touch all that came before it.
    apart = starts[1:] > ends[:-1]
    first = np.append(np.ones(min(1, len(starts)), dtype=bool), apart)
    last = np.append(apart, np.ones(min(1, len(starts)), dtype=bool))
    bounds = np.empty(2 * int(first.sum()), dtype=np.int64)
    bounds[::2], bounds[1::2] = starts[first], ends[last]
    return bounds


EMPTY = RangeSet()
