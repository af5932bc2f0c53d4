# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measuring two contenders in turns, and one line of the table."""

from __future__ import annotations

import re
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

Work = Callable[[], object]


class Lacking(Exception):
    """What a benchmark needs and this machine has not; the message names it and says how to get it."""


@dataclass(frozen=True)
class Timing:
    """Seconds of wall clock, of several repetitions."""

    best: float
    median: float

    def __str__(self) -> str:
        return f"{seconds(self.best)} / {seconds(self.median)}"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    ours: str
    peer: str = ""
    theirs: str = ""
    ratio: float | None = None
    """Ours in parts of the peer's, by the best of each. Less than 1: vmcheck is the faster."""
    target: str = ""
    reached: bool | None = None
    """None where there is no target."""


class Peak(NamedTuple):
    """Bytes of memory."""

    largest: int
    """VmHWM of the process that took most."""
    together: int
    """Pss of all processes at one time: what they share counts once."""


def in_turns(contenders: Sequence[Work], repetitions: int) -> list[Timing]:
    """Each in turn, again and again, so that a busy machine is busy for all of them.

    One more round comes first and does not count: it fills the page cache.
    """
    samples: list[list[float]] = [[] for _ in contenders]
    for _ in range(repetitions + 1):
        for work, taken in zip(contenders, samples, strict=True):
            start = time.perf_counter()
            work()
            taken.append(time.perf_counter() - start)
    return [Timing(min(taken[1:]), statistics.median(taken[1:])) for taken in samples]


def compared(
    what: str,
    ours: Work,
    peer: str,
    theirs: Work,
    repetitions: int,
    at_most: float | None = None,
    within: float | None = None,
) -> Row:
    """A row. ``at_most`` is the ratio to reach, or ``within`` the seconds."""
    our_timing, their_timing = in_turns([ours, theirs], repetitions)
    ratio = our_timing.best / their_timing.best
    row = Row(what, str(our_timing), peer, str(their_timing), ratio)
    if at_most is not None:
        return replace(row, target=f"at most {at_most:g} times the peer", reached=ratio <= at_most)
    if within is not None:
        return replace(row, target=f"under {within:g} s", reached=our_timing.median < within)
    return row


def command(
    arguments: Sequence[str | Path],
    environment: Mapping[str, str] | None = None,
    statuses: Sequence[int] = (0,),
) -> Work:
    """A program's whole run; its output is thrown away. Raises RuntimeError for any other exit status."""

    def run() -> None:
        done = subprocess.run(
            [str(argument) for argument in arguments],
            env=environment,
            input=b"quit\n",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        if done.returncode not in statuses:
            last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise RuntimeError(f"{arguments[0]} exited with {done.returncode}: {' '.join(last)}")

    return run


def peak_memory(arguments: Sequence[str | Path], environment: Mapping[str, str]) -> Peak:
    """Of a program and its children, looked at every millisecond."""
    process = subprocess.Popen(
        [str(argument) for argument in arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    largest = together = 0
    while process.poll() is None:
        family = _family(process.pid)
        # Not ru_maxrss, which begins with the memory of the process that forked.
        largest = max(largest, *(_kilobytes(f"/proc/{pid}/status", "VmHWM") for pid in family))
        together = max(together, sum(_kilobytes(f"/proc/{pid}/smaps_rollup", "Pss") for pid in family))
        time.sleep(0.001)
    return Peak(largest * 1024, together * 1024)


def _family(pid: int) -> list[int]:
    """A process and its children."""
    with suppress(OSError):
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    return [pid]


def _kilobytes(path: str, field: str) -> int:
    """0 where the process has just ended."""
    with suppress(OSError):
        if found := re.search(rf"^{field}:\s+(\d+) kB", Path(path).read_text(), re.M):
            return int(found[1])
    return 0


def seconds(value: float) -> str:
    """For people: three digits and a unit."""
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"


def megabytes(value: int) -> str:
    return f"{value / 1e6:.3g} MB"
