# SPDX-License-Identifier: LGPL-2.1-or-later
"""The table, and the machine that it was measured on, as Markdown between two markers."""

from __future__ import annotations

import datetime
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.measure import Row

BEGIN, END = "<!-- python -m benchmarks: begin -->", "<!-- python -m benchmarks: end -->"
HEAD = ("what", "vmcheck", "peer", "the peer's", "ratio", "target")
PACKAGES = ("vmcheck", "numpy", "drgn")
TOOLS = ("crash", "readelf")


def table(rows: Sequence[Row]) -> str:
    """Times are best / median."""
    lines = [HEAD, ("---",) * len(HEAD), *map(_cells, rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cells(row: Row) -> tuple[str, ...]:
    reached = {None: "", True: ", reached", False: ", **not reached**"}[row.reached]
    ratio = "" if row.ratio is None else f"{row.ratio:.2g}"
    return row.what, row.ours, row.peer, row.theirs, ratio, row.target + reached


def machine() -> str:
    """Cores, versions and the date."""
    versions = [
        f"Linux {platform.release()} on {platform.machine()}",
        f"Python {platform.python_version()}",
        *(f"{package} {version(package)}" for package in PACKAGES),
        *(_tool_version(tool) for tool in TOOLS if shutil.which(tool)),
    ]
    today = datetime.datetime.now(datetime.timezone.utc).date()
    return f"Measured on {today} with {os.cpu_count()} cores, {', '.join(versions)}."


def _tool_version(tool: str) -> str:
    lines = subprocess.run([tool, "--version"], capture_output=True, text=True).stdout.split("\n")
    return next(f"{tool} {line.split()[-1]}" for line in lines if line.strip())


def write(path: Path, text: str) -> None:
    """Put the text between the markers. Raises ValueError where the file has none."""
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{path} lacks {BEGIN!r} or {END!r}")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
