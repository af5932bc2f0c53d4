# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether a crash now would be captured whole, asked again whenever memory or a CPU comes or goes.

The process that waits imports neither numpy nor drgn: each look is taken in a child that
ends with it, so that waiting costs nothing.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from vmcheck.errors import VmcheckError, plain
from vmcheck.operations.isolation import READER, ChildDied, run_isolated

NETLINK_KOBJECT_UEVENT = 15
KERNEL_GROUP = 1
"""Multicast group of the kernel's own uevents; udev's, sent on after its rules ran, are group 2."""

SETTLE = 1.0
"""Seconds without another event before a look is taken: a DIMM of 3,840 blocks has 3,840 events."""
SETTLE_AT_MOST = 10.0
"""Seconds after the first event in which a look is taken at any rate."""
FIRST_RETRY, LAST_RETRY = 1.0, 30.0
"""Seconds between looks while something is stale: a reload announces itself by no event."""
LOOK_SECONDS = 300.0
LOOK_MEMORY = 4 << 30
EVENTS_NAMED = 3

ACTIONS = frozenset({"add", "remove", "online", "offline"})

# Priorities of syslog(3), which the journal takes from the start of a line (sd-daemon(3)).
ERROR, WARNING, NOTICE, INFO = 3, 4, 5, 6


class Event(NamedTuple):
    """A uevent about memory or a CPU."""

    action: str
    device: str
    """``memory32``, ``cpu2``."""

    def __str__(self) -> str:
        return f"{self.device} {self.action}"


class Look(NamedTuple):
    """What one preflight found. The answer is its report's first line."""

    status: int
    """Exit status of ``vmcheck preflight``."""
    answer: str
    missing: int = 0
    """Bytes of RAM that would not be in a dump."""
    phantom: int = 0
    """Bytes described that the kernel does not have."""
    cpus: tuple[int, ...] = ()
    """CPUs without registers in a dump."""
    loaded: bool = False
    """A crash kernel is; False too where that is not known."""

    @property
    def whole(self) -> bool:
        return self.status == 0

    @property
    def stale(self) -> bool:
        """Something would be lost or wrong. A look that could not tell is neither this nor whole."""
        return self.status == 1


def take_look() -> Look:
    """A preflight of this machine, in a child process. What forbids it is its answer."""
    try:
        # The preflight has a child of its own, which is shut in and reads the kernel.
        return run_isolated(_look, LOOK_SECONDS, LOOK_MEMORY, READER, shut=False)
    except ChildDied as death:
        return Look(3, f"could not look: {death}")
    except VmcheckError as error:
        return Look(3, f"could not look: {error}")
    except RuntimeError as bug:
        # The child printed its traceback. A monitor that stays is worth more than one that is gone.
        return Look(70, f"could not look, by a bug in vmcheck: {bug}")


def _look() -> Look:
    from vmcheck.operations.preflight import preflight
    from vmcheck.report import words
    from vmcheck.report.memory import Fate, memory

    report = preflight()
    return Look(
        int(report.exit_status()),
        plain(words.answer(report)),
        report.lost_memory.size,
        memory(report).size(Fate.PHANTOM),
        report.lost_cpus,
        report.topology.crash_image is not None,
    )


def parse_uevent(datagram: bytes) -> Event | None:
    """The event, if it is one after which elfcorehdr may be stale, or true again."""
    first, *lines = datagram.split(b"\0")
    fields = dict(each.split(b"=", 1) for each in lines if b"=" in each)
    if fields.get(b"SUBSYSTEM") not in (b"memory", b"cpu") or b"@" not in first:
        return None
    action = fields.get(b"ACTION", b"").decode("ascii", "backslashreplace")
    device = fields.get(b"DEVPATH", b"").rsplit(b"/", 1)[-1].decode("ascii", "backslashreplace")
    return Event(action, plain(device)[:64]) if action in ACTIONS else None


class Uevents:
    """The kernel's uevents about memory and CPUs."""

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT
            )
            self._socket.bind((0, KERNEL_GROUP))
        except OSError as error:
            raise VmcheckError(f"the kernel's uevents cannot be listened to: {error.strerror}") from None
        self._socket.setblocking(False)

    def wait(self, seconds: float | None) -> bool:
        """Whether an event, of whatever kind, came within the time."""
        return bool(select.select([self._socket], [], [], seconds)[0])

    def take(self) -> Iterator[Event]:
        """The events that are there."""
        while True:
            try:
                datagram, sender = self._socket.recvfrom(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                # More came than the socket holds. Some will have been ours.
                yield Event("change", "more events than could be held:")
                continue
            # Only the kernel has port 0; any process may send.
            if sender[0] == 0 and (event := parse_uevent(datagram)):
                yield event

    def fileno(self) -> int:
        return self._socket.fileno()


@dataclass
class State:
    """What was seen so far, and how long it has been so. Knows no clock."""

    look: Look | None = None
    since: float | None = None
    """When what is stale became so; None while all is whole."""
    stale_in_all: float = 0.0
    """Seconds, of what was mended."""
    messages: list[tuple[int, str]] = field(default_factory=list)

    def see(self, look: Look, now: float, begun: float | None = None, events: Sequence[Event] = ()) -> None:
        """Take in a look at ``now``; ``begun`` is when the first of ``events`` before it came."""
        before, self.look = self.look, look
        after = f" after {_named(events)}" if events else ""
        changed = before is None or look.answer != before.answer
        if look.stale:
            if self.since is None:
                self.since = now if begun is None else begun
                self._say(WARNING, f"stale{after}: {look.answer}")
            elif changed:
                self._say(WARNING, f"stale for {now - self.since:.1f} s{after}: {look.answer}")
        elif not look.whole:
            if changed:
                self._say(ERROR, f"not known{after}: {look.answer}")
        elif self.since is not None:
            self.stale_in_all += now - self.since
            self._say(NOTICE, f"mended, {now - self.since:.1f} s after it became stale{after}: {look.answer}")
            self.since = None
        elif changed or events:
            self._say(INFO, f"whole{after}: {look.answer}")

    def stale_for(self, now: float) -> float:
        return 0.0 if self.since is None else now - self.since

    def _say(self, priority: int, text: str) -> None:
        self.messages.append((priority, text))


def _named(events: Sequence[Event]) -> str:
    named = ", ".join(map(str, events[:EVENTS_NAMED]))
    return named + (f" and {len(events) - EVENTS_NAMED:,} more events" if len(events) > EVENTS_NAMED else "")


def textfile(state: State, now: float, wall: float) -> str:
    """For the node exporter's textfile collector. ``wall`` is ``now`` in seconds since the epoch."""
    look = state.look
    assert look is not None
    metrics: list[tuple[str, str, str, float]] = [
        (
            "status",
            "gauge",
            "Exit status of vmcheck preflight: 0 a crash now is captured whole.",
            look.status,
        ),
        ("crash_kernel_loaded", "gauge", "A crash kernel is loaded.", int(look.loaded)),
        ("missing_bytes", "gauge", "RAM that would not be in a dump.", look.missing),
        ("missing_cpus", "gauge", "CPUs without registers in a dump.", len(look.cpus)),
        ("phantom_bytes", "gauge", "Memory that a dump would describe and that is gone.", look.phantom),
        ("stale_seconds", "gauge", "For how long that has been so.", round(state.stale_for(now), 3)),
        (
            "stale_seconds_total",
            "counter",
            "Seconds in which a crash would not have been captured whole.",
            round(state.stale_in_all + state.stale_for(now), 3),
        ),
        ("last_check_timestamp_seconds", "gauge", "When that was last looked at.", round(wall, 3)),
    ]
    return "".join(
        f"# HELP vmcheck_{name} {text}\n# TYPE vmcheck_{name} {kind}\nvmcheck_{name} {value}\n"
        for name, kind, text, value in metrics
    )


def watch(
    events: Uevents,
    report: Callable[[State], None],
    look: Callable[[], Look] = take_look,
    every: float = 3600.0,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Look now, after each burst of events, while something is stale, and every ``every`` seconds.

    ``report`` is called after each look. Does not return.
    """
    state = State()
    retry = 0.0
    seen: list[Event] = []
    begun: float | None = None
    while True:
        state.see(look(), clock(), begun, seen)
        report(state)
        state.messages.clear()
        # What came while the look was taken may or may not be in it.
        seen, begun = list(events.take()), None
        if seen:
            begun = clock()
        retry = 0.0 if state.since is None else min(2 * retry or FIRST_RETRY, LAST_RETRY)
        deadline = clock() + (every if state.since is None else retry)
        while not seen and events.wait(max(0.0, deadline - clock())):
            seen = list(events.take())
            begun = clock() if seen else None
        if begun is not None:
            retry = 0.0
            _settle(events, seen, begun, clock)


def _settle(events: Uevents, seen: list[Event], begun: float, clock: Callable[[], float]) -> None:
    """Wait for the end of a burst."""
    quiet = clock() + SETTLE
    while (left := min(quiet, begun + SETTLE_AT_MOST) - clock()) > 0:
        if events.wait(left):
            more = list(events.take())
            seen += more
            quiet = clock() + SETTLE if more else quiet
