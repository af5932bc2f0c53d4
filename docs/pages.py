# SPDX-License-Identifier: LGPL-2.1-or-later
"""The pages that are made, not written: one a rule, and the gallery of real reports.

``python -m docs.pages`` writes docs/rules/ and docs/gallery.md. With ``--html FOLDER`` it
makes the HTML report of every capture there instead.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fixtures.capture import Capture, captures
from vmcheck.check import Report
from vmcheck.diagnose import explanations
from vmcheck.examine import examine
from vmcheck.findings import Finding, Severity
from vmcheck.ranges import RangeSet
from vmcheck.report import words
from vmcheck.report.page import page
from vmcheck.report.terminal import render
from vmcheck.rules import Rule, rules

DOCS = Path(__file__).parent
MADE = "<!-- Made by python -m docs.pages; edit what it is made from. -->\n"


def pages() -> dict[str, str]:
    """The content of every made page by its path below docs/."""
    made = {f"rules/{rule.name}.md": _rule_page(rule) for rule in rules().values()}
    return made | {"rules/README.md": _index(), "gallery.md": _gallery()}


def _rule_page(rule: Rule) -> str:
    return f"{MADE}\n# {rule.name}\n\n{rule.title}\n\n{rule.text}\n\n## Example\n\n{_example(rule.name)}"


def _example(rule: str) -> str:
    """The finding of the first capture that has one, as the report tells it."""
    for capture in captures():
        for found in json.loads(capture.expected.read_text())["findings"]:
            if found["rule"] == rule:
                text = "\n".join(_told(found))
                where = f"[{capture.name}](../gallery.md#{_anchor(capture)})"
                return f"In the capture {where}:\n\n```\n{text}\n```\n"
    test = f"tests/rules/test_{rule.replace('-', '_')}.py"
    return f"None of the captures has it; [{test}](../../{test}) builds dumps that do.\n"


def _told(found: Mapping[str, Any]) -> Iterator[str]:
    finding = Finding(
        Severity(found["severity"]),
        found["summary"],
        RangeSet(tuple(bounds) for bounds in found["ranges"]),
        tuple(found["cpus"]),
    )
    yield f"{words.SEVERITY[finding.severity]}: {finding.summary}"
    yield from (f"  {line}" for line in words.extents(finding, {}))
    yield from (f"  - {line}" for line in found["evidence"])
    if found["recoverable"]:
        yield f"  - {words.RECOVERABLE}"


def _index() -> str:
    lines = [
        MADE,
        "# Rules",
        "",
        "Each asks one question of a dump. `vmcheck explain NAME` says the same.",
        "",
    ]
    lines += ["| rule | finds |", "| --- | --- |"]
    lines += [f"| [{rule.name}]({rule.name}.md) | {rule.title} |" for rule in rules().values()]
    lines += ["", "## Regimes and causes", "", "What a report names under *Why*.", ""]
    lines += ["| name | says |", "| --- | --- |"]
    lines += [f"| `{each.name}` | {each.title} |" for each in explanations().values()]
    return "\n".join(lines) + "\n"


def _gallery() -> str:
    parts = [
        f"{MADE}\n# Gallery\n\nReal kernels, crashed in the [lab](lab.md), "
        "and what `vmcheck check` says of the dumps. "
        "`make gallery` makes the same reports as HTML pages in build/gallery/.\n"
    ]
    for capture in captures():
        what = str(capture.truth.get("what", capture.folder.name))
        parts.append(
            f"\n## {capture.name}\n\n{words.sentence(what)}.\n\n```\n{render(_report(capture))}```\n"
        )
    return "".join(parts)


@cache
def _report(capture: Capture) -> Report:
    return examine([str(capture.vmcore)], capture.symbols)


def _anchor(capture: Capture) -> str:
    """As forges make it of the gallery's heading."""
    return "".join(c for c in capture.name.lower().replace(" ", "-") if c.isalnum() or c in "-_")


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--html"] and len(arguments) == 2:
        for capture in captures():
            file = Path(arguments[1]) / f"{capture.name.replace('/', '-')}.html"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(page(_report(capture)), encoding="utf-8")
            print(file)
        return 0
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    for name, content in pages().items():
        file = DOCS / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
