# SPDX-License-Identifier: LGPL-2.1-or-later
"""The rows of a scan: a table, CSV, JUnit, Prometheus metrics, and a page that sorts and filters itself."""

from __future__ import annotations

import base64
import csv
import datetime
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from markupsafe import Markup

import vmcheck
from vmcheck.errors import plain
from vmcheck.facts.fleet import FAILED, WORST_FIRST, Row
from vmcheck.facts.quantities import count, cpu_list, size
from vmcheck.report.templates import environment

TABLE_ROWS = 50
"""On a terminal; the page, CSV and the store have all."""
GROUPS_SHOWN = 25
"""Kernels, hosts and causes of the page's tables, the most affected first."""
COLUMNS = (
    "verdict",
    "missing",
    "cpus",
    "kernel",
    "machine",
    "host",
    "regime",
    "cause",
    "certainty",
    "crashed",
)
"""Of the page, before the path and the answer."""


@dataclass(frozen=True)
class Fleet:
    """All rows of a scan, without their reports, worst first."""

    rows: tuple[Row, ...]
    new: frozenset[str]
    """Paths that no scan before had."""

    @classmethod
    def of(cls, rows: Iterable[tuple[Row, bool]]) -> Fleet:
        found, new = [], set()
        for row, is_new in rows:
            found.append(row)
            if is_new:
                new.add(row.identity.path)
        found.sort(key=lambda row: (WORST_FIRST.index(row.verdict), -row.missing, row.identity.path))
        return cls(tuple(found), frozenset(new))

    @property
    def verdicts(self) -> Mapping[str, int]:
        """How many of each verdict, worst first."""
        counted = Counter(row.verdict for row in self.rows)
        return {verdict: counted[verdict] for verdict in WORST_FIRST if counted[verdict]}


def tally(verdicts: Mapping[str, int]) -> str:
    """``3 dumps: 1 INCOMPLETE, 2 COMPLETE``."""
    parts = (f"{number:,} {verdict.upper()}" for verdict, number in verdicts.items())
    return f"{count(sum(verdicts.values()), 'dump')}: {', '.join(parts)}" if verdicts else "no dumps"


def table(fleet: Fleet, width: int) -> Iterator[str]:
    """Lines of the terminal's table: those that are not complete, worst first."""
    yield tally(fleet.verdicts)
    shown = [row for row in fleet.rows if row.verdict != WORST_FIRST[-1]]
    for row in shown[:TABLE_ROWS]:
        yield ""
        marks = " (new)" if row.identity.path in fleet.new and len(fleet.new) < len(fleet.rows) else ""
        yield f"  {row.verdict.upper():14}  {row.identity.path}{marks}"
        answer = row.answer.partition(": ")[2] if row.verdict != FAILED else row.answer
        yield _cut(f"{'':18}{answer}", width)
        about = [row.kernel, row.host, when(row), row.cause and f"{row.cause} ({row.certainty})"]
        if any(about):
            yield _cut(f"{'':18}{', '.join(part for part in about if part)}", width)
    if len(shown) > TABLE_ROWS:
        yield ""
        yield f"  {len(shown) - TABLE_ROWS:,} more: --html, --csv or --store have them"


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: width - 3]}..."


def when(row: Row) -> str:
    """The crash time in UTC; empty where it is unknown or no date."""
    if row.crash_time is None:
        return ""
    try:
        moment = datetime.datetime.fromtimestamp(row.crash_time, datetime.timezone.utc)
    except (ValueError, OverflowError, OSError):
        return ""
    return f"{moment:%Y-%m-%d %H:%M:%S}"


CSV_COLUMNS = (
    *("path", "verdict", "answer", "exit_status", "missing_bytes", "cpus", "kernel", "build_id", "machine"),
    *("host", "regime", "cause", "certainty", "crashed", "size", "parts", "seconds", "vmcheck"),
)


def as_csv(fleet: Fleet) -> str:
    """RFC 4180, a header line first. What a spreadsheet would take for a formula begins with a quote."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(CSV_COLUMNS)
    for row in fleet.rows:
        cells = (
            *(row.identity.path, row.verdict, row.answer, row.exit_status, row.missing, cpu_list(row.cpus)),
            *(row.kernel, row.build_id, row.machine, row.host, row.regime, row.cause, row.certainty),
            *(when(row), row.identity.size, row.parts, row.seconds, row.vmcheck),
        )
        writer.writerow([_inert(cell) if isinstance(cell, str) else cell for cell in cells])
    return text.getvalue()


def _inert(cell: str) -> str:
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def json_lines(fleet: Fleet) -> str:
    """A line a dump: what CSV has, with numbers as numbers."""
    return "".join(json.dumps(_members(row)) + "\n" for row in fleet.rows)


def _members(row: Row) -> dict[str, object]:
    return {
        "path": row.identity.path,
        "parts": row.parts,
        "size": row.identity.size,
        "verdict": row.verdict,
        "answer": row.answer,
        "exit_status": row.exit_status,
        "missing_bytes": row.missing,
        "ranges": row.ranges,
        "cpus": row.cpus,
        "kernel": row.kernel or None,
        "build_id": row.build_id or None,
        "machine": row.machine or None,
        "host": row.host or None,
        "regime": row.regime or None,
        "cause": row.cause or None,
        "certainty": row.certainty or None,
        "crash_time": row.crash_time,
        "seconds": row.seconds,
        "vmcheck": row.vmcheck,
    }


def junit(fleet: Fleet) -> bytes:
    """One suite, a case a dump: unreadable is an error, lost or wrong a failure, could not tell a skip."""
    counted = Counter(row.exit_status for row in fleet.rows)
    numbers = {"tests": len(fleet.rows), "failures": counted[1], "errors": counted[3], "skipped": counted[4]}
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(root, "testsuite", {"name": "vmcheck scan"})
    for name, number in numbers.items():
        suite.set(name, str(number))
    kinds = {1: "failure", 3: "error", 4: "skipped"}
    for row in fleet.rows:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            {"classname": "vmcheck", "name": plain(row.identity.path), "time": f"{row.seconds:.3f}"},
        )
        if kind := kinds.get(row.exit_status):
            attributes = {"message": plain(row.answer)}
            if kind != "skipped":
                attributes["type"] = row.verdict
            ElementTree.SubElement(case, kind, attributes)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def prometheus(fleet: Fleet, now: int) -> str:
    """For node_exporter's textfile collector; ``now`` is in seconds since the epoch."""
    lines = [
        "# HELP vmcheck_scan_dumps Dumps of the last scan by verdict.",
        "# TYPE vmcheck_scan_dumps gauge",
        *(
            f'vmcheck_scan_dumps{{verdict="{verdict}"}} {fleet.verdicts.get(verdict, 0)}'
            for verdict in WORST_FIRST
        ),
        "# HELP vmcheck_scan_new_dumps Dumps that no scan before had.",
        "# TYPE vmcheck_scan_new_dumps gauge",
        f"vmcheck_scan_new_dumps {len(fleet.new)}",
        "# HELP vmcheck_scan_missing_bytes RAM that dumps lack, in all.",
        "# TYPE vmcheck_scan_missing_bytes gauge",
        f"vmcheck_scan_missing_bytes {sum(row.missing for row in fleet.rows)}",
        "# HELP vmcheck_scan_timestamp_seconds When the scan ended.",
        "# TYPE vmcheck_scan_timestamp_seconds gauge",
        f"vmcheck_scan_timestamp_seconds {now}",
    ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Group:
    """Dumps that share a kernel, a host, a mechanism or a cause."""

    name: str
    dumps: int
    bad: int
    """Of them, those that are not complete."""
    missing: int
    """Bytes in all."""


def groups(rows: Sequence[Row], key: str) -> list[Group]:
    """The most affected first."""
    members: dict[str, list[Row]] = {}
    for row in rows:
        if name := str(getattr(row, key)):
            members.setdefault(name, []).append(row)
    found = [
        Group(
            name,
            len(of_it),
            sum(row.verdict != WORST_FIRST[-1] for row in of_it),
            sum(row.missing for row in of_it),
        )
        for name, of_it in members.items()
    ]
    return sorted(found, key=lambda group: (-group.bad, -group.missing, group.name))


@dataclass(frozen=True)
class Month:
    """Verdicts of one month's crashes."""

    name: str
    numbers: tuple[int, ...]
    """In the order of :data:`~vmcheck.facts.fleet.WORST_FIRST`."""


def months(rows: Sequence[Row]) -> list[Month]:
    """Every month that has a crash, in order."""
    found: dict[str, Counter[str]] = {}
    for row in rows:
        if moment := when(row):
            found.setdefault(moment[:7], Counter())[row.verdict] += 1
    return [
        Month(name, tuple(numbers[verdict] for verdict in WORST_FIRST))
        for name, numbers in sorted(found.items())
    ]


def page(fleet: Fleet, reports: Mapping[str, str] | None = None) -> str:
    """The fleet as one page that needs no network. ``reports`` has each dump's own page by its path."""
    reports = reports or {}
    script = (environment().loader.get_source(environment(), "fleet.js"))[0]  # type: ignore[union-attr]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parent = os.path.commonpath([row.identity.path for row in fleet.rows]) if len(fleet.rows) > 1 else ""
    return (
        environment()
        .get_template("fleet.html.j2")
        .render(
            version=vmcheck.__version__,
            answer=tally(fleet.verdicts),
            worst=next(iter(fleet.verdicts), WORST_FIRST[-1]),
            verdicts=fleet.verdicts,
            new=[row for row in fleet.rows if row.identity.path in fleet.new],
            first_scan=len(fleet.new) == len(fleet.rows),
            months=months(fleet.rows),
            order=WORST_FIRST,
            groups=[
                (title, found[:GROUPS_SHOWN], len(found))
                for title, key in (
                    ("Kernels", "kernel"),
                    ("Hosts", "host"),
                    ("Update mechanisms", "regime"),
                    ("Causes", "cause"),
                )
                if (found := groups(fleet.rows, key))
            ],
            size=size,
            count=count,
            script=Markup(script),
            digest=digest,
            data=Markup(_inline(_compact(fleet, parent, reports))),
        )
    )


def _compact(fleet: Fleet, parent: str, reports: Mapping[str, str]) -> dict[str, object]:
    """Rows as arrays; words that repeat stand once, in ``names``."""
    names: dict[str, int] = {"": 0}

    def number(word: str) -> int:
        return names.setdefault(plain(word), len(names))

    rows = [
        [
            WORST_FIRST.index(row.verdict),
            row.missing,
            cpu_list(row.cpus),
            *(
                number(getattr(row, key))
                for key in ("kernel", "machine", "host", "regime", "cause", "certainty")
            ),
            row.crash_time if when(row) else None,
            plain(os.path.relpath(row.identity.path, parent) if parent else row.identity.path),
            plain(row.answer.partition(": ")[2] or row.answer) if row.verdict != WORST_FIRST[-1] else "",
            int(row.identity.path in fleet.new),
            reports.get(row.identity.path, ""),
        ]
        for row in fleet.rows
    ]
    return {"verdicts": WORST_FIRST, "names": list(names), "parent": plain(parent), "rows": rows}


def _inline(value: object) -> str:
    """JSON that nothing ends early inside a script element."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
