# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the examination of one dump may take: its headers, memory, symbols, logs and archives together."""

from __future__ import annotations

import contextlib
import resource
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

from vmcheck.errors import VmcheckError


@dataclass(frozen=True)
class Budget:
    seconds: float = 20.0
    """Of the wall clock. A topology of 262,144 memory blocks takes under 2 s."""
    memory: int = 400 << 20
    """Bytes more than at the start, of each process. drgn's mapping of a vmlinux does not count."""

    KERNEL = 0.75
    """Share of the time for reading the kernel's memory: the headers are judged in what is left."""
    RECORDS = 0.2
    """Share of the time for all logs and sos reports together."""


DEFAULT = Budget()


class OverBudget(VmcheckError):
    """The examination wanted more than its budget."""


@contextlib.contextmanager
def within(budget: Budget, name: str) -> Iterator[None]:
    """Raises OverBudget in the block where it takes more than ``budget``; ``name`` is the dump's."""
    if threading.current_thread() is not threading.main_thread():
        # Both limits are the process's.
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    try:
        with _memory_limit(data_size() + budget.memory), time_limit(budget.seconds, f"{name}: the check"):
            yield
    except MemoryError:
        resource.setrlimit(resource.RLIMIT_DATA, before)
        raise OverBudget(
            f"{name}: the check wants more than {budget.memory >> 20} MiB of memory (--memory-limit)"
        ) from None


@contextlib.contextmanager
def _memory_limit(most: int) -> Iterator[None]:
    """At most ``most`` bytes of data: RLIMIT_DATA, so that an allocation beyond is a MemoryError."""
    before, hard = resource.getrlimit(resource.RLIMIT_DATA)
    for each in (before, hard):
        most = most if each == resource.RLIM_INFINITY else min(most, each)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, hard))


@contextlib.contextmanager
def time_limit(seconds: float, what: str) -> Iterator[None]:
    """Raises OverBudget in the block after ``seconds`` of the wall clock, and each second from then on.

    By SIGALRM, so only in a main thread. Blocks may stand in each other.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    began = time.monotonic()
    outer, _ = signal.getitimer(signal.ITIMER_REAL)
    shorter = seconds if not outer else min(seconds, outer)

    def over(_signal: int, _frame: FrameType | None) -> None:
        raise OverBudget(f"{what} takes more than {max(seconds, 0):.3g} seconds (--time-limit)")

    before = signal.signal(signal.SIGALRM, over)
    # Again each second: a block may take the first one for its own failure.
    signal.setitimer(signal.ITIMER_REAL, max(shorter, 1e-6), 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if outer:
            signal.setitimer(signal.ITIMER_REAL, max(outer - (time.monotonic() - began), 1e-6), 1.0)


def data_size() -> int:
    """Bytes that RLIMIT_DATA counts now."""
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123
        return int(file.read().split()[5]) * resource.getpagesize()
