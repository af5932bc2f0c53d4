# SPDX-License-Identifier: LGPL-2.1-or-later
"""The templates of the pages, and what all of them share. The only home of jinja2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

import vmcheck
from vmcheck.errors import plain

TEMPLATES = [
    str(Path(vmcheck.__file__).parent / "templates"),
    str(Path(vmcheck.__file__).parent.parent / "templates"),
]
"""Inside the installed package; beside it in a checkout."""


def environment() -> jinja2.Environment:
    """Where every page is made: all is escaped, and an undefined name is an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["paragraphs"] = lambda text: [
        " ".join(paragraph.split()) for paragraph in text.split("\n\n")
    ]
    return made


def _visible(value: Any) -> Any:
    """Control characters shown, in everything that a template prints and that is not its own markup."""
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value
