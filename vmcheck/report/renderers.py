# SPDX-License-Identifier: LGPL-2.1-or-later
"""The table of renderers: every form in which a report can be written to a file.

A new one is a module in this folder, a loader and a row here. What a renderer imports is
imported when it is used, so that ``--help`` starts at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from vmcheck.check import Report
    from vmcheck.facts.findings import Severity
    from vmcheck.report.folder import Checked


class Rendering(NamedTuple):
    """The functions of one renderer. Each is given what ``--fail-on`` says."""

    one: Callable[[Report, Severity], bytes]
    folder: Callable[[str, Sequence[Checked], Severity], bytes] | None
    """Of the folder's path and its dumps. None: it shows one dump."""


class Renderer(NamedTuple):
    """One row."""

    name: str
    """Of the option ``--NAME FILE``."""
    help: str
    load: Callable[[], Rendering]


def _text() -> Rendering:
    from vmcheck.report import terminal

    return Rendering(
        lambda report, _: terminal.render(report, full=True).encode(),
        lambda folder, entries, _: terminal.render_folder(folder, entries, full=True).encode(),
    )


def _markdown() -> Rendering:
    from vmcheck.report.markdown import markdown, markdown_of_folder

    return Rendering(markdown, markdown_of_folder)


def _json() -> Rendering:
    from vmcheck.report.document import to_json, to_json_lines

    return Rendering(to_json, to_json_lines)


def _html() -> Rendering:
    from vmcheck.report.page import page

    return Rendering(lambda report, _: page(report).encode(), None)


def _junit() -> Rendering:
    from vmcheck.report.junit import junit, junit_of_folder

    return Rendering(junit, junit_of_folder)


RENDERERS = (
    Renderer("text", "Write the whole report as text.", _text),
    Renderer("markdown", "Write Markdown, to paste into a ticket or merge request.", _markdown),
    Renderer("html", "Write one HTML page with a map of the memory.", _html),
    Renderer("json", "Write JSON, for programs ('vmcheck schema').", _json),
    Renderer("junit", "Write JUnit XML for CI: a test case for each rule.", _junit),
)
"""In the order of ``--help``."""
