# SPDX-License-Identifier: LGPL-2.1-or-later
"""A stored report against a new one, as lines that a person reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vmcheck.errors import plain
from vmcheck.report import words

NOT_COMPARED = {"vmcheck", "dump.file"}
"""Which vmcheck looked, and what the file is called, say nothing of the dump."""

KEYS = ("rule", "structure", "reason", "fact", "node")
"""What an object in a list goes by."""

IN_BYTES = {"bytes", "missing", "file_size", "expected_size", "page_size"}

Member = Mapping[str, Any]


def differences(expected: Member, found: Member) -> list[str]:
    """What differs between two documents. What ``expected`` leaves out is not asked for."""
    return [plain(line) for line in _members("", expected, found)]


def _members(path: str, expected: Member, found: Member) -> Iterator[str]:
    for name, value in expected.items():
        below = f"{path}.{name}" if path else name
        if below in NOT_COMPARED:
            continue
        if name not in found:
            yield f"{below}: expected {_shown(below, value)}, found no such member"
        else:
            yield from _values(below, value, found[name])


def _values(path: str, expected: Any, found: Any) -> Iterator[str]:
    if isinstance(expected, dict) and isinstance(found, dict):
        yield from _members(path, expected, found)
    elif _named(expected) is not None and _named(found) is not None:
        yield from _entries(path, expected, found)
    elif expected != found or type(expected) is not type(found):
        yield f"{path}: expected {_shown(path, expected)}, found {_shown(path, found)}"


def _named(value: Any) -> str | None:
    """The key that the objects of a list go by; empty for an empty list, whose objects could have any."""
    if not isinstance(value, list) or not _all(value, dict):
        return None
    if not value:
        return ""
    return next((key for key in KEYS if all(key in entry for entry in value)), None)


def _entries(path: str, expected: Sequence[Member], found: Sequence[Member]) -> Iterator[str]:
    """Entries are paired by name, and those of one name in their order."""
    key = _named(expected) or _named(found)
    if not key:
        return
    missing, extra = list(expected), []
    for entry in found:
        partner = next((other for other in missing if other[key] == entry[key]), None)
        if partner is None:
            extra.append(entry)
        else:
            missing.remove(partner)
            yield from _members(f"{path}[{entry[key]}]", partner, entry)
    for entry in missing:
        yield f"{path}[{entry[key]}]: expected, not found{_summary(entry)}"
    for entry in extra:
        yield f"{path}[{entry[key]}]: found, not expected{_summary(entry)}"


def _summary(entry: Member) -> str:
    told = [str(entry[name]) for name in ("summary", "why") if entry.get(name)]
    if isinstance(entry.get("ranges"), list) and entry["ranges"]:
        told.append(_shown("ranges", entry["ranges"]))
    if isinstance(entry.get("cpus"), list) and entry["cpus"]:
        told.append(_shown("cpus", entry["cpus"]))
    return f": {'; '.join(told)}" if told else ""


def _shown(path: str, value: Any) -> str:
    name = path.rpartition(".")[2]
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and (path.startswith("memory.") or name in IN_BYTES):
        return f"{value} bytes" if value < 1024 else f"{value} bytes ({words.size(value)})"
    if name == "ranges" and _all(value, list):
        return ", ".join(words.address_range(*bounds) for bounds in value) or "none"
    if name.endswith("cpus") and _all(value, int):
        return words.listed_cpus(value) if value else "no CPUs"
    return str(value)


def _all(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(entry, kind) for entry in value)
