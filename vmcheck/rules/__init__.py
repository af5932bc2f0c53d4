# SPDX-License-Identifier: LGPL-2.1-or-later
"""The rules. One function a rule; its name is the rule's name, its docstring what a person reads.

A rule takes a :class:`Case` and yields its findings. It asks for facts with
:func:`~vmcheck.facts.topology.known`, which skips the rule where the fact could not be read,
and raises :class:`Inapplicable` where the question does not arise.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Outcome, State
from vmcheck.facts.topology import NotKnown


class Inapplicable(Exception):
    """The rule's question does not arise for this dump; the message says why."""


@dataclass(frozen=True)
class Rule:
    name: str
    """As the user types it: ``undescribed-ram``."""
    title: str
    """The docstring's first line."""
    text: str
    """The docstring's other paragraphs."""
    find: Callable[[Case], Iterator[Finding]]

    def outcome(self, case: Case) -> Outcome:
        try:
            findings = tuple(self.find(case))
        except NotKnown as unknown:
            return Outcome(self.name, State.SKIPPED, why=str(unknown))
        except Inapplicable as reason:
            return Outcome(self.name, State.INAPPLICABLE, why=str(reason))
        return Outcome(self.name, State.FOUND if findings else State.CLEAN, findings)


_registry: dict[str, Rule] = {}


def rule(find: Callable[[Case], Iterator[Finding]]) -> Callable[[Case], Iterator[Finding]]:
    """Register a rule under its function's name."""
    title, _, text = inspect.cleandoc(find.__doc__ or "").partition("\n\n")
    name = find.__name__.replace("_", "-")
    _registry[name] = Rule(name, " ".join(title.split()), text, find)
    return find


def rules() -> Mapping[str, Rule]:
    """Every rule by name, in the order of their names, whichever was imported first."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(_registry.items()))
