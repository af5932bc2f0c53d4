# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bytes, counts and CPU numbers for people."""

from __future__ import annotations

import re
from collections.abc import Iterable


def size(number: int) -> str:
    """Bytes: ``128 MiB``, ``1.0 GiB``, ``12.5 TiB``."""
    units = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    value, unit = float(number), 0
    # 1023.7 MiB would round to 1024 MiB.
    while round(value) >= 1024 and unit < len(units) - 1:
        value, unit = value / 1024, unit + 1
    if unit == 0:
        return count(number, "byte")
    decimals = 1 if value < 9.95 or (value < 99.95 and value != int(value)) else 0
    return f"{value:.{decimals}f} {units[unit]}"


def count(number: int, noun: str) -> str:
    """``1 rule``, ``2 rules``, ``1,024 CPUs``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def address_range(start: int, end: int) -> str:
    return f"[{start:#x}, {end:#x})"


def parsed_cpu_list(text: str) -> frozenset[int] | None:
    """The inverse of :func:`cpu_list`. None where the text is no list, or one of over a million CPUs."""
    found: set[int] = set()
    listed = 0
    for part in text.strip().split(","):
        match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part, re.ASCII)
        if match is None:
            return None
        listed += len(cpus := range(int(match[1]), int(match[2] or match[1]) + 1))
        if listed > 1_000_000:
            return None
        found.update(cpus)
    return frozenset(found)


def cpu_list(cpus: Iterable[int]) -> str:
    """As the kernel prints a CPU mask: ``0-2,5``."""
    runs: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if runs and runs[-1][1] == cpu - 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
