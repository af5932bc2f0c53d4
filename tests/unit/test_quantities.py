# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmcheck.facts.quantities import cpu_list, parsed_cpu_list


@given(st.frozensets(st.integers(0, 9999), min_size=1))
def test_a_cpu_list_is_read_back(cpus: frozenset[int]) -> None:
    assert parsed_cpu_list(cpu_list(cpus)) == cpus


@pytest.mark.parametrize("text", ["", "-1", "1,,2", "0-", "a", "0x1", "1 2", "٣", "0-999999,0-1"])
def test_what_is_no_list_of_cpus_is_none(text: str) -> None:
    assert parsed_cpu_list(text) is None
