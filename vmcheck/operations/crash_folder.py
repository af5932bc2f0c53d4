# SPDX-License-Identifier: LGPL-2.1-or-later
"""The dumps below a folder such as /var/crash, found by their signatures, and what lies beside them.

kdump of Fedora, RHEL and SUSE makes a folder of each crash with ``vmcore``, ``vmcore-dmesg.txt``
and ``kexec-dmesg.log``; a capture that failed leaves ``vmcore-incomplete``, or the logs alone.
kdump-tools of Debian and Ubuntu makes ``202411230915`` with ``dump.202411230915`` and
``dmesg.202411230915``, or ``dump-incomplete``; SONiC calls the dump ``kdump.202411230915``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from vmcheck.budget import DEFAULT, within
from vmcheck.errors import UnreadableFile, VmcheckError
from vmcheck.files import WrongKind, open_input
from vmcheck.formats import SplitPart, is_dump, split_part
from vmcheck.records.witnesses import beside

DUMP_NAMES = ("vmcore*", "*.vmcore", "dump.*", "dump-*", "kdump.[0-9]*")
"""A file so called that has no dump's signature is a dump that failed: reported, not passed over."""

OTHER_NAMES = ("*.txt", "*.log", "*.html", "*.json", "*.xml", "*.sha*", "*.md5*", "*.sum")
"""Never a dump that failed, whatever the name begins with."""

LOGS_OF_A_CRASH = ("kexec-dmesg.log", "vmcore-dmesg*.txt", "dmesg." + 12 * "[0-9]")
"""What only a capture leaves: a folder that has one has, or should have, a dump."""

NO_DUMP = "no dump, only logs of the crash: the capture failed, or the dump was removed"


@dataclass(frozen=True)
class FoundDump:
    """One dump below a folder."""

    paths: tuple[str, ...]
    """Its file, or all parts of one ``makedumpfile --split`` dump."""
    beside: tuple[str, ...] = ()
    """Logs and sos reports beside it, which a check compares with it."""
    refusal: str = ""
    """Why it cannot be looked at, where that is known already."""


def find_dumps(folder: str) -> list[FoundDump]:
    """Every dump below ``folder``, by path; links to folders are not followed.

    Raises UnreadableFile where the folder itself cannot be read, or has no dump.
    """
    closed: list[OSError] = []
    dumps: list[Path] = []
    failed: list[FoundDump] = []
    for parent, _, names in os.walk(folder, onerror=closed.append):
        there = [path for name in sorted(names) if _is_dump(path := Path(parent, name))]
        dumps += there
        if not there and (logs := [name for name in sorted(names) if _called(name, LOGS_OF_A_CRASH)]):
            beside_it = tuple(str(Path(parent, name)) for name in logs)
            failed.append(FoundDump((parent,), beside_it, NO_DUMP))
    found = [
        FoundDump(tuple(map(str, parts)), tuple(beside(str(parts[0])))) for parts in _by_crash(dumps)
    ] + failed
    for error in closed:
        refusal = f"{error.filename}: {error.strerror}"
        if error.filename == folder:
            raise UnreadableFile(refusal)
        found.append(FoundDump((str(error.filename),), refusal=refusal))
    if not found:
        raise UnreadableFile(f"{folder}: no dump in this directory or below it")
    return sorted(found, key=lambda dump: dump.paths)


def _called(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name.lower(), pattern) for pattern in patterns)


def _is_dump(path: Path) -> bool:
    """By its signature; one that has none, or cannot be read, by its name."""
    named = _called(path.name, DUMP_NAMES) and not _called(path.name, OTHER_NAMES)
    try:
        with open_input(path) as file:
            return is_dump(file.read(32)) or named
    except WrongKind:
        return False
    except (OSError, UnreadableFile):
        return named


def _by_crash(dumps: Sequence[Path]) -> list[list[Path]]:
    """The files of each dump: parts of ``makedumpfile --split`` that are of one crash together.

    They may be in several folders, as each disk has one. Copies of the same parts are not one dump:
    then the parts of each folder are.
    """
    whole: list[list[Path]] = []
    parts: dict[object, list[tuple[Path, tuple[int, int]]]] = {}
    for path in dumps:
        if (part := _part(path)) is None:
            whole.append([path])
        else:
            parts.setdefault(part.crash, []).append((path, part.window))
    for each in parts.values():
        windows = [window for _, window in each]
        together: dict[Path | None, list[Path]] = {}
        for path, _ in each:
            together.setdefault(path.parent if len(set(windows)) < len(windows) else None, []).append(path)
        whole += together.values()
    return whole


def _part(path: Path) -> SplitPart | None:
    try:
        with within(DEFAULT, str(path)):
            return split_part(path)
    except VmcheckError:
        return None
