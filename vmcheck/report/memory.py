# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine's memory divided by what became of it in the dump."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from vmcheck.check import Report
from vmcheck.facts.exclusions import Exclusion
from vmcheck.facts.findings import Severity
from vmcheck.facts.ranges import EMPTY, RangeSet
from vmcheck.facts.topology import Unknown

Amounts = npt.NDArray[np.int64]
Part = TypeVar("Part")


class Fate(str, enum.Enum):
    """What became of a piece of memory, worst first."""

    MISSING = "missing"
    """A finding calls it missing, and no header describes it."""
    DROPPED = "dropped"
    """The headers describe it and a finding calls it missing: cut off, or filtered by mistake."""
    PHANTOM = "phantom"
    """The headers describe it, and a finding says that the kernel had no RAM there."""
    UNDESCRIBED = "undescribed"
    """No header describes it, and no finding calls it missing: a partial page, or a rule was skipped."""
    EXCLUDED = "excluded"
    """No healthy header describes it."""
    ELSEWHERE = "elsewhere"
    """In parts of a split dump that were not given."""
    FILTERED = "filtered"
    STORED = "stored"


GRAVE = (Fate.MISSING, Fate.DROPPED, Fate.PHANTOM)
"""Shown however little it is."""


@dataclass(frozen=True)
class Memory:
    """Every byte of System RAM, and all else that the headers describe, has one fate."""

    ram: RangeSet | Unknown
    fates: Mapping[Fate, RangeSet]
    """Disjoint; empty ones are there too."""

    @property
    def all(self) -> RangeSet:
        return reduce(RangeSet.__or__, self.fates.values(), EMPTY)

    def size(self, fate: Fate) -> int:
        """Bytes."""
        return self.fates[fate].size


def memory(report: Report) -> Memory:
    """The disjoint fates of all memory that the kernel had or the headers claim."""
    header, ram = report.header, report.topology.system_ram
    had = EMPTY if isinstance(ram, Unknown) else ram
    excluded = reduce(RangeSet.__or__, (exclusion.ranges for exclusion in excluded_by_design(report)), EMPTY)
    described_wrongly = _accused(report, Severity.WRONG) & header.described
    claims = {
        Fate.MISSING: report.lost_memory,
        Fate.DROPPED: _accused(report, Severity.LOST) & header.described,
        Fate.PHANTOM: EMPTY if isinstance(ram, Unknown) else described_wrongly - had,
        Fate.STORED: header.stored,
        Fate.ELSEWHERE: header.absent_parts & header.described,
        Fate.FILTERED: header.filtered,
        Fate.EXCLUDED: excluded,
        Fate.UNDESCRIBED: had,
    }
    fates = dict.fromkeys(Fate, EMPTY)
    taken = EMPTY
    for fate, ranges in claims.items():
        fates[fate] = ranges - taken
        taken |= ranges
    return Memory(ram, fates)


def _accused(report: Report, severity: Severity) -> RangeSet:
    return reduce(RangeSet.__or__, (finding.ranges for finding in report.of(severity)), EMPTY)


def excluded_by_design(report: Report) -> tuple[Exclusion, ...]:
    """The exclusions, cut to the System RAM that they keep out of this dump; empty ones dropped."""
    excluded, ram = report.topology.excluded, report.topology.system_ram
    if isinstance(excluded, Unknown):
        return ()
    cut = []
    for exclusion in excluded:
        ranges = exclusion.ranges - report.header.described
        if not isinstance(ram, Unknown):
            ranges &= ram
        if ranges:
            cut.append(Exclusion(exclusion.reason, ranges))
    return tuple(cut)


def bytes_below(ranges: RangeSet, addresses: npt.NDArray[Any]) -> Amounts:
    """For each address, how many bytes of the set lie below it."""
    starts, ends = ranges.starts, ranges.ends
    whole = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(ends - starts)])
    position = np.searchsorted(starts, addresses, side="right")
    if not len(starts):
        return np.zeros(len(addresses), dtype=np.int64)
    last = np.maximum(position - 1, 0)
    inside = np.clip(addresses - starts[last], 0, ends[last] - starts[last])
    return np.asarray(np.where(position > 0, whole[last] + inside, 0), dtype=np.int64)


def cells(space: RangeSet, fates: Mapping[Fate, RangeSet], number: int) -> list[Fate]:
    """``space``, its holes squeezed out, in ``number`` equal cells, each with the fate to show there.

    A grave fate shows however small it is; otherwise the fate of most of the cell's bytes.
    """
    amounts = _cut(space, fates, number)
    shown = []
    for cell in range(number if space else 0):
        here = {fate: int(amount[cell]) for fate, amount in amounts.items() if amount[cell]}
        grave = [fate for fate in GRAVE if fate in here]
        shown.append(grave[0] if grave else max(here, key=lambda fate: here[fate], default=Fate.STORED))
    return shown


def most_of(space: RangeSet, parts: Mapping[int, RangeSet], number: int) -> list[int | None]:
    """As :func:`cells`: which of the parts has most of each cell's bytes; None: none of them has any."""
    amounts = _cut(space, parts, number)
    return [
        max(
            (part for part in parts if amounts[part][cell]),
            key=lambda part: amounts[part][cell],
            default=None,
        )
        for cell in range(number if space else 0)
    ]


def _cut(space: RangeSet, parts: Mapping[Part, RangeSet], number: int) -> dict[Part, Amounts]:
    """Each part's bytes in ``number`` equal cells of ``space``, its holes squeezed out."""
    if not space:
        return {}
    edges = _addresses_at(space, np.linspace(0, space.size, number + 1).astype(np.int64))
    return {part: np.diff(bytes_below(ranges & space, edges)) for part, ranges in parts.items()}


def _addresses_at(space: RangeSet, offsets: Amounts) -> Amounts:
    """The address of each offset into ``space`` with its holes squeezed out."""
    begun = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(space.ends - space.starts)])
    index = np.clip(np.searchsorted(begun, offsets, side="right") - 1, 0, len(space) - 1)
    return np.asarray(space.starts[index] + (offsets - begun[index]), dtype=np.int64)
