# SPDX-License-Identifier: LGPL-2.1-or-later
"""RangeSet at half a million ranges, beside numpy sorting the same bounds."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from functools import partial

import numpy as np

from benchmarks.inputs import Inputs
from benchmarks.measure import Row, compared
from vmcheck.facts.ranges import Bounds, RangeSet

RANGES = 500_000
OPERATIONS = {"union": operator.or_, "intersection": operator.and_, "difference": operator.sub}


def range_sets(inputs: Inputs) -> Iterator[Row]:
    count = RANGES // inputs.scale
    rng = np.random.default_rng(3)
    ours, others = (_bounds(rng, count) for _ in range(2))
    left, right = RangeSet.from_bounds(ours.copy()), RangeSet.from_bounds(others.copy())
    both = np.concatenate([ours, others])
    for name, operation in OPERATIONS.items():
        yield compared(
            f"{name} of two RangeSets of {count:,} ranges",
            partial(operation, left, right),
            "numpy sorting their bounds",
            partial(np.sort, both),
            inputs.repetitions,
        )
    order = rng.permutation(count)
    starts, ends = ours[::2][order], ours[1::2][order]
    yield compared(
        f"a RangeSet from {count:,} ranges in any order",
        partial(RangeSet.from_arrays, starts, ends),
        "numpy sorting their bounds",
        partial(np.sort, np.concatenate([starts, ends])),
        inputs.repetitions,
    )


def _bounds(rng: np.random.Generator, count: int) -> Bounds:
    """Of ranges of 1 to 64 pages, as far apart."""
    return np.cumsum(rng.integers(1, 65, 2 * count)) * 4096
