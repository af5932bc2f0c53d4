# SPDX-License-Identifier: LGPL-2.1-or-later
"""The generated pages: one a rule, the gallery of real reports, the tables of them, the JSON schemas.

``python -m docs.pages`` writes them; ``make docs`` writes the captures' expected reports too.
With ``--html FOLDER`` it makes the HTML report of every capture there instead.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fixtures.capture import Capture, captures
from vmcheck.check import Report
from vmcheck.diagnosis.explanation import explanations
from vmcheck.facts import quantities
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.ranges import RangeSet
from vmcheck.operations.examine import examine
from vmcheck.report import words
from vmcheck.report.document import json_schema
from vmcheck.report.page import page
from vmcheck.report.terminal import render
from vmcheck.rules import Rule, rules

DOCS = Path(__file__).parent
MADE = "<!-- Made by python -m docs.pages; edit what it is made from. -->\n"


def pages() -> dict[str, str]:
    """The content of every generated page by its path below docs/."""
    made = {f"rules/{rule.name}.md": _rule_page(rule) for rule in rules().values()}
    made |= {"rules/README.md": _index(), "gallery.md": _gallery(), "scenarios.md": _scenarios()}
    return made | {
        f"{name}.schema.json": json_schema(name == "folder").decode() for name in ("report", "folder")
    }


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
        report = render(_report(capture), full=True)
        parts.append(f"\n## {capture.name}\n\n{words.sentence(what)}.\n\n```\n{report}```\n")
    return "".join(parts)


def _scenarios() -> str:
    all_of_them = [(capture, json.loads(capture.expected.read_text())) for capture in captures()]
    parts = [
        f"""{MADE}
# Scenarios

Every capture in fixtures/captures: a real kernel, crashed in the [lab](lab.md). What was true was said by
the guest and by QEMU just before the crash, and never by the dump; `tests/corpus` compares the two. The
whole reports are in the [gallery](gallery.md).

## What was true, and what vmcheck says

""",
        _table(
            ("capture", "what was done", "loaded by", "true at the crash", "vmcheck", "exit"),
            (
                (
                    _link(capture),
                    capture.truth.get("what", ""),
                    str(capture.truth["load"]).partition(" (")[0],
                    _truth(capture),
                    said["answer"],
                    said["exit_status"],
                )
                for capture, said in all_of_them
            ),
        ),
        """
A phantom at the very end of memory is not seen in a compressed dump: its `max_mapnr` ends before.

## Regimes

What kept elfcorehdr fresh, as the lab knows it, and what vmcheck makes of the dump. The scripts for RHEL's
two regimes run in a guest of Debian's kernel without systemd, so that only a reload at work can name them.

""",
        _table(
            ("in force", "capture", "true at the crash", "vmcheck", "it takes the regime for", "evidence"),
            (
                (
                    capture.truth["regime"],
                    _link(capture),
                    _truth(capture),
                    str(said["verdict"]),
                    _surely(said["diagnosis"]["regime"]),
                    "; ".join(said["diagnosis"]["regime"]["evidence"]),
                )
                for capture, said in sorted(all_of_them, key=lambda pair: pair[0].truth.get("regime", ""))
                if capture.truth.get("regime", "none") != "none" or capture.folder.name == "none-stale"
            ),
        ),
        """
## Why, at what cost, and what to do

Certain is what nothing else known to us could have led to. A whole dump has no cause.

""",
        _table(
            ("capture", "true at the crash", "cause", "what it costs", "for the next dump"),
            (
                (
                    _link(capture),
                    _truth(capture),
                    "; ".join(_surely(cause) for cause in said["diagnosis"]["causes"]),
                    (said["diagnosis"]["impact"] or {}).get("headline", ""),
                    (said["diagnosis"]["next_dump"] or [{"text": ""}])[0]["text"],
                )
                for capture, said in all_of_them
                if said["diagnosis"]["causes"]
            ),
        ),
    ]
    return "".join(parts)


def _table(heads: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "".join(f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |\n" for line in lines)


def _link(capture: Capture) -> str:
    return f"[{capture.name}](gallery.md#{_anchor(capture)})"


def _truth(capture: Capture) -> str:
    """The guest's and QEMU's verdict in a few words."""
    ranges = {
        text: sum(int(end, 16) - int(start, 16) for start, end in capture.verdict[key])
        for key, text in (("missing_memory", "lost"), ("phantom_memory", "described and gone"))
    }
    said = [f"{quantities.size(size)} {text}" for text, size in ranges.items() if size]
    if cpus := capture.verdict["online_cpus_without_a_note"]:
        said.append(f"CPU {quantities.cpu_list(cpus)} without a note")
    if capture.truth.get("crash_kernel_loaded") is False:
        said.append("no crash kernel was loaded")
    if "mount -t tmpfs" in capture.truth.get("capture", ""):
        said.append("the capture's disk was full")
    return ", ".join(said) or "nothing lacks"


def _surely(conclusion: Mapping[str, Any]) -> str:
    return f"`{conclusion['name']}`, {conclusion['certainty']}"


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
