# SPDX-License-Identifier: LGPL-2.1-or-later
"""The peers as programs: this machine's, or another suite's by its own ld.so. Every run has its limit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from fixtures.lab import apt
from fixtures.lab.errors import LabError

LIBRARIES = "usr/lib/x86_64-linux-gnu"


def bounded(
    command: list[str],
    seconds: float,
    stdin: str = "",
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """A command's exit status and all it said. One that does not end in time is a failure."""
    try:
        done = subprocess.run(
            command,
            input=stdin.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C", "TERM": "dumb", **(environment or {})},
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.fail(f"{Path(command[0]).name} did not end within {seconds:.0f} s: {' '.join(command)}")
    return done.returncode, done.stdout.decode("utf-8", "replace")


def here(tool: str) -> list[str]:
    """This machine's own."""
    path = shutil.which(tool)
    if path is None:
        pytest.skip(f"{tool} is not on this machine")
    return [path]


def root_of(suite: str, package: str) -> Path:
    """A folder with a package of ``suite`` and all it needs, fetched once into the lab's cache."""
    try:
        return apt.root_of(suite, package)
    except LabError as error:
        pytest.skip(f"{package} of {suite} cannot be had: {error}")


def of_suite(suite: str, package: str, program: str) -> list[str]:
    """A program of another suite, with that suite's own libraries."""
    root = root_of(suite, package)
    loader = root / LIBRARIES / "ld-linux-x86-64.so.2"
    return [str(loader), "--library-path", str(root / LIBRARIES), str(root / "usr/bin" / program)]


def version_of(command: list[str], pattern: str, option: str) -> str:
    """The version a program says it is."""
    _, said = bounded([*command, option], seconds=30)
    found = re.search(pattern, said)
    if found is None:
        pytest.skip(f"{command[-1]} {option} names no version: {said[:100]!r}")
    return found[1]
