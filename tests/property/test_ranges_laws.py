# SPDX-License-Identifier: LGPL-2.1-or-later
"""RangeSet against the oracle: a Python set of addresses."""

from __future__ import annotations

import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vmcheck.facts.ranges import EMPTY, RangeSet

END = 40
"""Addresses are below this, so that ranges touch and overlap often."""

pairs = st.lists(st.tuples(st.integers(0, END), st.integers(0, END)), max_size=8)
units = st.integers(1, 9)


def addresses(ranges: list[tuple[int, int]]) -> set[int]:
    return {address for start, end in ranges for address in range(start, end)}


def members(ranges: RangeSet) -> set[int]:
    return addresses(list(ranges))


@given(pairs)
def test_holds_the_addresses_of_its_ranges(ranges: list[tuple[int, int]]) -> None:
    made = RangeSet(ranges)
    assert members(made) == addresses(ranges)
    assert made.size == len(addresses(ranges))
    assert made.end == max(addresses(ranges), default=-1) + 1
    assert bool(made) == bool(addresses(ranges))


@given(pairs)
def test_ranges_are_sorted_disjoint_and_apart(ranges: list[tuple[int, int]]) -> None:
    bounds = [bound for pair in RangeSet(ranges) for bound in pair]
    assert bounds == sorted(set(bounds))


@given(pairs, pairs)
def test_equal_and_hashed_by_content(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    same = addresses(one) == addresses(other)
    assert (RangeSet(one) == RangeSet(other)) == same
    assert not same or hash(RangeSet(one)) == hash(RangeSet(other))


@given(pairs, pairs)
def test_union(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    assert members(RangeSet(one) | RangeSet(other)) == addresses(one) | addresses(other)


@given(pairs, pairs)
def test_intersection(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    assert members(RangeSet(one) & RangeSet(other)) == addresses(one) & addresses(other)


@given(pairs, pairs)
def test_difference(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    assert members(RangeSet(one) - RangeSet(other)) == addresses(one) - addresses(other)


@given(pairs, pairs)
def test_results_are_in_normal_form(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    a, b = RangeSet(one), RangeSet(other)
    for result in (a | b, a & b, a - b):
        assert result == RangeSet(list(result))


@given(pairs)
def test_the_empty_set(ranges: list[tuple[int, int]]) -> None:
    made = RangeSet(ranges)
    assert made | EMPTY == made
    assert made & EMPTY == EMPTY
    assert made - EMPTY == made
    assert EMPTY - made == EMPTY
    assert made - made == EMPTY


@given(pairs, units)
def test_whole_units_inward(ranges: list[tuple[int, int]], unit: int) -> None:
    held = addresses(ranges)
    whole = [n for n in range(END) if all(n * unit + byte in held for byte in range(unit))]
    expected = {n * unit + byte for n in whole for byte in range(unit)}
    assert members(RangeSet(ranges).aligned_inward(unit)) == expected


@given(pairs, units)
def test_whole_units_outward(ranges: list[tuple[int, int]], unit: int) -> None:
    touched = {address // unit for address in addresses(ranges)}
    expected = {n * unit + byte for n in touched for byte in range(unit)}
    assert members(RangeSet(ranges).aligned_outward(unit)) == expected


@given(pairs)
def test_contains(ranges: list[tuple[int, int]]) -> None:
    made = RangeSet(ranges)
    expected = [address in addresses(ranges) for address in range(END + 1)]
    assert made.contains(np.arange(END + 1)).tolist() == expected
    assert [address in made for address in range(END + 1)] == expected


@given(pairs)
def test_from_arrays_and_from_bounds_agree(ranges: list[tuple[int, int]]) -> None:
    columns = np.array(ranges, dtype=np.uint64).reshape(-1, 2)
    made = RangeSet.from_arrays(columns[:, 0], columns[:, 1])
    assert made == RangeSet(ranges)
    bounds = np.array([bound for pair in made for bound in pair], dtype=np.int64)
    assert RangeSet.from_bounds(bounds) == made


@given(pairs)
def test_survives_a_process_pool(ranges: list[tuple[int, int]]) -> None:
    assert pickle.loads(pickle.dumps(RangeSet(ranges))) == RangeSet(ranges)
