# SPDX-License-Identifier: LGPL-2.1-or-later
"""What watch makes of events and looks. A clock and a kernel are given to it; the lab has real ones."""

from __future__ import annotations

import errno
import itertools
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests import reports
from vmcheck.check import Report
from vmcheck.operations import watch
from vmcheck.operations.examine import in_child
from vmcheck.operations.watch import (
    ERROR,
    INFO,
    NOTICE,
    WARNING,
    Event,
    Look,
    State,
    Uevents,
    parse_uevent,
    textfile,
)


def test_a_look_may_have_the_kernel_read_by_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that was shut in could not start its reader: each was "Operation not permitted"."""

    def preflight() -> Report:
        assert in_child(lambda: 7) == 7
        return reports.WHOLE

    monkeypatch.setattr("vmcheck.operations.preflight.preflight", preflight)
    look = watch.take_look()
    assert (look.status, look.missing) == (0, 0), look


WHOLE = Look(0, "COMPLETE: a crash now would leave a dump of all 319 MiB", loaded=True)
STALE = Look(1, "INCOMPLETE: 128 MiB of 639 MiB RAM would not be in a dump", 128 << 20, 0, (2,), True)
WORSE = Look(1, "INCOMPLETE: 256 MiB of 767 MiB RAM would not be in a dump", 256 << 20, 0, (2,), True)
UNKNOWN = Look(3, "could not look: only root can")
ONLINE = Event("online", "memory32")


def uevent(action: str, path: str, subsystem: str) -> bytes:
    """As kobject_uevent_env() sends it."""
    fields = [f"{action}@{path}", f"ACTION={action}", f"DEVPATH={path}", f"SUBSYSTEM={subsystem}", "SEQNUM=1"]
    return b"".join(field.encode() + b"\0" for field in fields)


def test_memory_and_cpus_that_come_and_go_are_events() -> None:
    assert parse_uevent(uevent("online", "/devices/system/memory/memory32", "memory")) == ONLINE
    assert parse_uevent(uevent("remove", "/devices/system/cpu/cpu2", "cpu")) == Event("remove", "cpu2")


@pytest.mark.parametrize(
    "datagram",
    [
        uevent("add", "/devices/virtual/block/loop0", "block"),
        uevent("change", "/devices/system/memory/memory32", "memory"),
        b"libudev\0\xfe\xed\xca\xfe ACTION=online\0SUBSYSTEM=memory\0",
        b"",
        b"online@/x\0ACTION=online\0no equals sign\0",
    ],
)
def test_other_uevents_are_none(datagram: bytes) -> None:
    assert parse_uevent(datagram) is None


def test_a_hostile_device_name_cannot_reach_the_terminal() -> None:
    event = parse_uevent(uevent("online", "/devices/system/memory/\x1b[31m", "memory"))
    assert event == Event("online", r"\x1b[31m")


def test_it_says_when_a_dump_became_stale_and_after_which_event() -> None:
    state = State()
    state.see(WHOLE, 100.0)
    state.see(STALE, 112.0, begun=110.0, events=[ONLINE])
    assert state.messages == [
        (INFO, f"whole: {WHOLE.answer}"),
        (WARNING, f"stale after memory32 online: {STALE.answer}"),
    ]
    assert state.stale_for(115.0) == 5.0, "from the event on, not from the look"


def test_it_says_how_long_it_was_stale_when_it_is_mended() -> None:
    state = State()
    state.see(STALE, 10.0)
    state.see(WHOLE, 52.5)
    assert state.messages[-1] == (NOTICE, f"mended, 42.5 s after it became stale: {WHOLE.answer}")
    assert (state.since, state.stale_in_all) == (None, 42.5)


def test_what_stays_the_same_is_said_once() -> None:
    state = State()
    for second in range(5):
        state.see(STALE, float(second))
    assert len(state.messages) == 1


def test_what_becomes_worse_is_said_and_stays_stale_since_the_first_event() -> None:
    state = State()
    state.see(STALE, 10.0)
    state.see(WORSE, 30.0, begun=29.0, events=[ONLINE] * 5)
    told = "stale for 20.0 s after memory32 online, memory32 online, memory32 online and 2 more events"
    assert state.messages[-1] == (WARNING, f"{told}: {WORSE.answer}")
    assert state.since == 10.0


def test_an_update_by_the_kernel_is_told_as_whole_after_the_event() -> None:
    state = State()
    state.see(WHOLE, 1.0)
    state.see(WHOLE, 3.0, begun=2.0, events=[ONLINE])
    assert state.messages[-1] == (INFO, f"whole after memory32 online: {WHOLE.answer}")


def test_a_look_that_could_not_tell_neither_begins_staleness_nor_ends_it() -> None:
    state = State()
    state.see(UNKNOWN, 1.0)
    assert state.since is None
    state.see(STALE, 2.0)
    state.see(UNKNOWN, 3.0)
    assert state.since == 2.0
    assert state.messages[-1] == (ERROR, f"not known: {UNKNOWN.answer}")


def test_the_metrics_count_the_seconds_of_all_stale_times() -> None:
    state = State()
    state.see(STALE, 10.0)
    state.see(WHOLE, 15.0)
    state.see(STALE, 20.0)
    lines = dict(
        line.split(" ") for line in textfile(state, 23.0, 1_700_000_000.0).splitlines() if line[0] != "#"
    )
    assert lines == {
        "vmcheck_status": "1",
        "vmcheck_crash_kernel_loaded": "1",
        "vmcheck_missing_bytes": str(128 << 20),
        "vmcheck_missing_cpus": "1",
        "vmcheck_phantom_bytes": "0",
        "vmcheck_stale_seconds": "3.0",
        "vmcheck_stale_seconds_total": "8.0",
        "vmcheck_last_check_timestamp_seconds": "1700000000.0",
    }


class _End(Exception):
    pass


class _Events:
    """Events at given seconds of a clock that only moves while it is waited on."""

    def __init__(self, *at: float) -> None:
        self.now = 0.0
        self.waits: list[float] = []
        self._at = list(at)

    def clock(self) -> float:
        return self.now

    def wait(self, seconds: float | None) -> bool:
        assert seconds is not None
        self.waits.append(seconds)
        if self._at and self._at[0] <= self.now + seconds:
            self.now = max(self.now, self._at[0])
            return True
        self.now += seconds
        return False

    def take(self) -> Iterator[Event]:
        while self._at and self._at[0] <= self.now:
            self._at.pop(0)
            yield ONLINE


def looks_taken(events: _Events, looks: list[Look]) -> list[float]:
    """When watch looked, until ``looks`` are used up."""
    taken: list[float] = []

    def look() -> Look:
        if len(taken) == len(looks):
            raise _End
        taken.append(events.now)
        return looks[len(taken) - 1]

    with pytest.raises(_End):
        watch.watch(events, lambda state: None, look, 3600.0, events.clock)  # type: ignore[arg-type]
    return taken


def test_a_burst_of_events_is_one_look_after_it() -> None:
    events = _Events(*(100.0 + 0.25 * n for n in range(8)))
    assert looks_taken(events, [WHOLE, WHOLE]) == [0.0, 102.75]


def test_a_burst_that_does_not_end_is_looked_at_all_the_same() -> None:
    events = _Events(*(100.0 + 0.5 * n for n in range(200)))
    assert looks_taken(events, [WHOLE, WHOLE]) == [0.0, 110.0]


def test_what_is_stale_is_looked_at_less_and_less_often_and_what_is_whole_every_hour() -> None:
    stale = looks_taken(_Events(), [STALE] * 8)
    assert [b - a for a, b in itertools.pairwise(stale)] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert looks_taken(_Events(), [WHOLE] * 3) == [0.0, 3600.0, 7200.0]


def test_waiting_needs_neither_numpy_nor_drgn() -> None:
    code = "import sys, vmcheck.operations.watch; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    assert "vmcheck.operations.watch" in modules
    assert not {"numpy", "drgn", "msgspec"} & set(modules)


class _Netlink:
    """A netlink socket that gives what it is told to."""

    def __init__(self, *given: Any) -> None:
        self._given = list(given)

    def recvfrom(self, size: int) -> tuple[bytes, tuple[int, int]]:
        if not self._given:
            raise BlockingIOError
        given = self._given.pop(0)
        if isinstance(given, OSError):
            raise given
        return given  # type: ignore[no-any-return]


def listening(monkeypatch: pytest.MonkeyPatch, *given: Any) -> list[Event]:
    events = Uevents.__new__(Uevents)
    monkeypatch.setattr(events, "_socket", _Netlink(*given), raising=False)
    return list(events.take())


def test_only_the_kernel_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    datagram = uevent("online", "/devices/system/memory/memory32", "memory")
    assert listening(monkeypatch, (datagram, (4242, 1)), (datagram, (0, 1))) == [ONLINE]


def test_events_that_were_dropped_are_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(listening(monkeypatch, OSError(errno.ENOBUFS, "no buffer"))) == 1


def test_the_kernels_uevents_can_be_listened_to_without_root() -> None:
    if not hasattr(socket, "AF_NETLINK"):
        pytest.skip("not Linux")
    assert Uevents().fileno() >= 0
