# SPDX-License-Identifier: LGPL-2.1-or-later
"""Outcomes and evidence -> Diagnosis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vmcheck.diagnosis import Certainty, Conclusion, Diagnosis
from vmcheck.findings import Outcome
from vmcheck.rules import Case


class Explanation(NamedTuple):
    """What ``vmcheck explain NAME`` prints of a regime or a cause."""

    name: str
    title: str
    text: str


def explanations() -> Mapping[str, Explanation]:
    """Every regime and cause by name, regimes first."""
    return {}


def diagnose(case: Case, outcomes: Sequence[Outcome]) -> Diagnosis:
    """Why, since when, at what cost, and what to do. Pure."""
    return Diagnosis(Conclusion("unknown-regime", "could not tell", Certainty.UNKNOWN))
