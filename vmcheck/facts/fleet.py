# SPDX-License-Identifier: LGPL-2.1-or-later
"""One dump of many: what identifies it, and what a check said of it."""

from __future__ import annotations

from dataclasses import dataclass

FAILED = "unreadable"
"""In the place of a verdict, where there is no report."""

WORST_FIRST = (FAILED, "incomplete", "misleading", "could not tell", "complete")
"""A dump that cannot be read at all is the greatest loss."""


@dataclass(frozen=True)
class Identity:
    """What says that a dump has not changed since it was checked."""

    path: str
    """Absolute; of a split dump, of its first part."""
    size: int
    """Bytes, of all parts."""
    mtime_ns: int
    """Nanoseconds since the epoch, of the part that was written last."""
    head: str
    """SHA-256 of the first 64 KiB of each part, in hexadecimal."""


@dataclass(frozen=True)
class Row:
    """What a check said of one dump. Empty strings and None: unknown."""

    identity: Identity
    parts: int
    vmcheck: str
    """The version that checked it."""
    verdict: str
    """As in the JSON report, or :data:`FAILED`."""
    answer: str
    """The verdict in one line, for people; of a dump without a report, the reason."""
    exit_status: int
    missing: int = 0
    """Bytes of System RAM that the dump lacks."""
    ranges: tuple[tuple[int, int], ...] = ()
    """Physical addresses ``[start, end)`` that the dump lacks."""
    cpus: tuple[int, ...] = ()
    """CPUs that have no register note."""
    kernel: str = ""
    build_id: str = ""
    machine: str = ""
    host: str = ""
    """The node name, or ``sha256:`` and the first 16 digits of its hash."""
    regime: str = ""
    cause: str = ""
    """The first one's name."""
    certainty: str = ""
    crash_time: int | None = None
    """Seconds since the epoch."""
    seconds: float = 0.0
    """That the check took."""
    report: str = ""
    """The JSON report."""
