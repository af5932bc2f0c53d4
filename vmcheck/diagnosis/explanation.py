# SPDX-License-Identifier: LGPL-2.1-or-later
"""What ``vmcheck explain NAME`` prints of a regime or a cause, declared beside the code that decides it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import NamedTuple

from vmcheck.facts.diagnosis import Name

WIDTH = 100


class Example(NamedTuple):
    """What a real dump showed."""

    capture: str
    """Its folder below fixtures/captures. A test compares its report with the name it is an example of."""
    text: str


class Explanation(NamedTuple):
    name: Name
    words: str
    """The title, an empty line, the text."""
    window: str = ""
    """Of a regime: how long elfcorehdr can be stale after a hotplug event."""
    example: Example | None = None

    @property
    def title(self) -> str:
        return self.words.strip().partition("\n")[0]

    @property
    def text(self) -> str:
        parts = [self.words.strip().partition("\n")[2].strip()]
        if self.window:
            parts.append(textwrap.fill(f"elfcorehdr can be stale for {self.window}.", WIDTH))
        if self.example:
            example = f"Example: in {self.example.capture}, {self.example.text}"
            parts.append(textwrap.fill(example, WIDTH, break_long_words=False, break_on_hyphens=False))
        return "\n\n".join(parts)


_registry: dict[str, Explanation] = {}


def explain(name: Name, words: str, *, window: str = "", example: tuple[str, str] | None = None) -> None:
    _registry[name.value] = Explanation(name, words, window, Example(*example) if example else None)


def explanations() -> Mapping[str, Explanation]:
    """Every regime and cause by name, regimes first."""
    from vmcheck.diagnosis import causes, regimes

    del causes, regimes
    return dict(sorted(_registry.items(), key=lambda item: _order(item[1].name)))


def _order(name: Name) -> tuple[str, int]:
    # Regime before Cause, then as the enumerations list them.
    return {"Regime": "0"}.get(type(name).__name__, "1"), list(type(name)).index(name)
