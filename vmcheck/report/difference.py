# SPDX-License-Identifier: LGPL-2.1-or-later
"""A stored report against a new one, as lines that a person reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vmcheck.errors import plain
from vmcheck.report import words

NOT_COMPARED = {"vmcheck", "dump.file"}
"""Which vmcheck looked, and what the file is called, say nothing about the dump."""

KEYS = ("rule", "structure", "reason", "fact", "node")
"""The member that names an object in a list."""

IN_BYTES = {"bytes", "missing", "file_size", "expected_size", "page_size"}

LONGEST = 400
"""Characters of a value. The stored report may be a stranger's."""

Member = Mapping[str, Any]


def differences(expected: Member, found: Member) -> list[str]:
    """What differs between two documents. What ``expected`` leaves out is not compared."""
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
    """The member that names the objects of a list; empty for an empty list, which fits any name."""
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
            yield from _members(f"{path}[{_text(entry[key])}]", partner, entry)
    for entry in missing:
        yield f"{path}[{_text(entry[key])}]: expected, not found{_summary(entry)}"
    for entry in extra:
        yield f"{path}[{_text(entry[key])}]: found, not expected{_summary(entry)}"


def _summary(entry: Member) -> str:
    parts = [_text(entry[name]) for name in ("summary", "why") if entry.get(name)]
    parts += [_shown(name, entry[name]) for name in ("ranges", "cpus") if _is_list(entry.get(name))]
    return f": {'; '.join(parts)}" if parts else ""


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


def _shown(path: str, value: Any) -> str:
    name = path.rpartition(".")[2]
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if _is_amount(value) and (path.startswith("memory.") or name in IN_BYTES):
        return f"{value} bytes" if value < 1024 else f"{value} bytes ({words.size(value)})"
    if name == "ranges" and _all(value, list) and all(_is_range(bounds) for bounds in value):
        return _cut(", ".join(words.address_range(*bounds) for bounds in value) or "none")
    if name.endswith("cpus") and isinstance(value, list) and all(map(_is_amount, value)):
        return words.listed_cpus(value) if value else "no CPUs"
    return _text(value)


def _is_range(bounds: list[Any]) -> bool:
    return len(bounds) == 2 and all(map(_is_amount, bounds))


def _is_amount(value: Any) -> bool:
    """A number that a report can have."""
    return type(value) is int and 0 <= value < 1 << 64


def _text(value: Any) -> str:
    try:
        return _cut(str(value))
    except (ValueError, RecursionError):
        # More digits than Python prints, or lists in lists.
        return "what is too large to show"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _all(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(entry, kind) for entry in value)
