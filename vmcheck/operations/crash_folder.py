# SPDX-License-Identifier: LGPL-2.1-or-later
"""The dumps below a folder such as /var/crash, told by their signatures, and what lies beside them.

kdump of Fedora, RHEL and SUSE makes a folder of each crash with ``vmcore``, ``vmcore-dmesg.txt``
and ``kexec-dmesg.log``; a capture that failed leaves ``vmcore-incomplete``. kdump-tools of Debian
and Ubuntu makes ``202411230915`` with ``dump.202411230915`` and ``dmesg.202411230915``, or
``dump-incomplete``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from vmcheck.errors import UnreadableFile, VmcheckError
from vmcheck.formats import is_dump, read_header
from vmcheck.records.witnesses import beside

DUMP_NAMES = ("vmcore*", "*.vmcore", "dump.*", "dump-*")
"""A file so called that has no dump's signature is a dump that failed: told, not passed over."""

OTHER_NAMES = ("*.txt", "*.log", "*.html", "*.json", "*.xml", "*.sha*", "*.md5*", "*.sum")
"""Never a dump that failed, whatever the name begins with."""


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
    found = [
        dump
        for parent, _, names in os.walk(folder, onerror=closed.append)
        for dump in _in_folder(Path(parent), sorted(names))
    ]
    for error in closed:
        refusal = f"{error.filename}: {error.strerror}"
        if error.filename == folder:
            raise UnreadableFile(refusal)
        found.append(FoundDump((str(error.filename),), refusal=refusal))
    if not found:
        raise UnreadableFile(f"{folder}: no dump in this directory or below it")
    return sorted(found, key=lambda dump: dump.paths)


def _in_folder(folder: Path, names: Sequence[str]) -> Iterator[FoundDump]:
    for parts in _by_crash([path for name in names if _is_dump(path := folder / name)]):
        yield FoundDump(tuple(map(str, parts)), tuple(beside(str(parts[0]))))


def _called(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name.lower(), pattern) for pattern in patterns)


def _is_dump(path: Path) -> bool:
    """By its signature; one that has none, or cannot be read, by its name."""
    named = _called(path.name, DUMP_NAMES) and not _called(path.name, OTHER_NAMES)
    try:
        # Opening a FIFO would wait for its writer.
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            return is_dump(file.read(32)) or named
    except OSError:
        return named


def _by_crash(dumps: Sequence[Path]) -> list[list[Path]]:
    """The files of each dump: parts of ``makedumpfile --split`` that are of one crash together."""
    found: dict[object, list[Path]] = {}
    for path in dumps:
        found.setdefault(_crash(path) if len(dumps) > 1 else path, []).append(path)
    return list(found.values())


def _crash(path: Path) -> object:
    """The same for parts of one split dump, and for no other two files."""
    try:
        header = read_header([path])
    except VmcheckError:
        return path
    return (header.vmcoreinfo_notes, header.utsname, header.machine) if header.split else path
