# SPDX-License-Identifier: LGPL-2.1-or-later
"""Outcomes and evidence -> Diagnosis: the regime, the causes, since when, at what cost, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vmcheck.diagnosis.causes import causes
from vmcheck.diagnosis.impact import impact
from vmcheck.diagnosis.regimes import update_regime
from vmcheck.diagnosis.timeline import timeline
from vmcheck.facts.case import Case
from vmcheck.facts.diagnosis import Certainty, Comparison, Conclusion, Diagnosis
from vmcheck.facts.findings import INTEGRITY, Outcome, Severity


def diagnose(case: Case, outcomes: Sequence[Outcome], witnesses: tuple[Comparison, ...] = ()) -> Diagnosis:
    """Why, since when, at what cost, and what to do. Pure."""
    found = {outcome.rule: outcome.findings for outcome in outcomes if outcome.findings}
    broken = tuple(
        rule
        for rule in INTEGRITY
        if any(finding.severity is not Severity.NOTICE for finding in found.get(rule, ()))
    )
    if {"cpu-without-note", "note-without-cpu"} <= found.keys():
        # The note that is no CPU's may be the damaged one of the CPU that has none.
        broken = (*broken, "note-without-cpu")
    regime = _doubted(update_regime(case), broken)
    why = tuple(_doubted(cause, broken) for cause in causes(case, found))
    if not why:
        return Diagnosis(regime, witnesses=witnesses)
    # A healthy dump need not spend the time to load them.
    from vmcheck.diagnosis.remedies import next_dump, this_dump

    return Diagnosis(
        regime,
        why,
        timeline(case),
        impact(case, found),
        tuple(next_dump(case, why)),
        tuple(this_dump(case, found)),
        witnesses,
    )


def _doubted(conclusion: Conclusion, broken: tuple[str, ...]) -> Conclusion:
    """Nothing that is read from a broken dump is certain, but what says how it is broken."""
    if not broken or conclusion.certainty is not Certainty.CERTAIN:
        return conclusion
    if conclusion.rules and set(conclusion.rules) <= set(broken):
        return conclusion
    doubt = f"the dump itself is broken ({', '.join(broken)}), so this is not certain"
    return replace(conclusion, certainty=Certainty.LIKELY, evidence=(*conclusion.evidence, doubt))
