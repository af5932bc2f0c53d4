# SPDX-License-Identifier: LGPL-2.1-or-later
"""RangeSet at its edges; its laws are in tests/property."""

from __future__ import annotations

import numpy as np
import pytest

from tests.builders import GiB, MiB
from vmcheck.facts.ranges import ADDRESS_LIMIT, EMPTY, RangeSet, distinct


def test_ranges_that_touch_are_one() -> None:
    assert list(RangeSet([(5, 8), (0, 5)])) == [(0, 8)]


def test_an_empty_or_backward_range_holds_nothing() -> None:
    assert RangeSet([(5, 5), (8, 6)]) == EMPTY


def test_the_highest_address_there_is() -> None:
    top = RangeSet([(ADDRESS_LIMIT - 1, ADDRESS_LIMIT)])
    assert top.end == ADDRESS_LIMIT
    assert ADDRESS_LIMIT - 1 in top


@pytest.mark.parametrize("wrong", [(-1, 5), (0, ADDRESS_LIMIT + 1), (2**63, 2**64)])
def test_addresses_that_no_machine_has_are_refused(wrong: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="outside the physical address space"):
        RangeSet([wrong])


@pytest.mark.parametrize(("start", "end"), [(2**63, 2**63 + 1), (0, 2**64 - 1)])
def test_unsigned_columns_do_not_wrap(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="outside the physical address space"):
        RangeSet.from_arrays(np.array([start], dtype=np.uint64), np.array([end], dtype=np.uint64))


@pytest.mark.parametrize("bounds", [[0], [3, 3], [5, 2], [0, 4, 4, 8]])
def test_bounds_must_rise(bounds: list[int]) -> None:
    with pytest.raises(ValueError, match="pairs in rising order"):
        RangeSet.from_bounds(np.array(bounds, dtype=np.int64))


@pytest.mark.parametrize("bounds", [[-8, 4], [0, ADDRESS_LIMIT + 1]])
def test_bounds_must_be_addresses(bounds: list[int]) -> None:
    with pytest.raises(ValueError, match="outside the physical address space"):
        RangeSet.from_bounds(np.array(bounds, dtype=np.int64))


def test_cannot_be_changed() -> None:
    ranges = RangeSet([(0, 5)])
    with pytest.raises(ValueError, match="read-only"):
        ranges.starts[0] = 3


def test_shows_its_ranges_in_hexadecimal() -> None:
    assert repr(RangeSet([(1 * MiB, 1 * GiB)])) == "RangeSet([(0x100000, 0x40000000)])"


def test_half_a_million_ranges_take_one_sweep() -> None:
    """A loop over ranges would take seconds; a sweep is bounded by the sort of a million bounds."""
    starts = np.arange(500_000) * 8192
    even, odd = (
        RangeSet.from_arrays(starts, starts + 4096),
        RangeSet.from_arrays(starts + 4096, starts + 8192),
    )
    assert (even | odd) == RangeSet([(0, 500_000 * 8192)])
    assert (even & odd) == EMPTY
    assert ((even | odd) - odd) == even


@pytest.mark.parametrize("values", [[], [7], [3, 1, 3, 2, 1, 1], [2**64 - 1, 0, 0]])
def test_distinct_values_rise(values: list[int]) -> None:
    assert distinct(np.array(values, np.uint64)).tolist() == sorted(set(values))
