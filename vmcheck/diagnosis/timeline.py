# SPDX-License-Identifier: LGPL-2.1-or-later
"""From boot to crash on one line, as the kernel log and CRASHTIME tell it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from vmcheck.errors import plain
from vmcheck.facts.case import Case
from vmcheck.facts.diagnosis import Event, Timeline
from vmcheck.facts.quantities import cpu_list
from vmcheck.facts.topology import CrashImage, NotKnown, Topology

MAX_EVENTS = 200
"""More are of no use to a reader; the first and the last are kept."""
_STAMP = r"^\[ *(\d{1,10}\.\d{6})\] "
_TOLD = re.compile(
    _STAMP + "((?:smpboot: |CPU|ACPI: CPU|psci: CPU|IRQ|Built |Offlined |pseries-hotplug-mem: |crash hp: |"
    "sysrq: |Kernel panic|BUG|Oops|general protection|watchdog: |Run /|Linux version).*)$",
    re.MULTILINE,
)
"""The lines that are looked at: a log may have a million."""

_EVENTS = [
    # arch/x86/kernel/smpboot.c and arch/x86/kernel/cpu/topology.c: what was there at boot.
    (re.compile(r"smpboot: Allowing \d+ CPUs, \d+ hotplug CPUs|CPU topo: Allowing \d+ present CPUs.*"), None),
    (re.compile(r"(?:ACPI: )?CPU(\d+) has been hot-added"), "CPU {} was added"),
    (re.compile(r"smpboot: Booting Node +\d+ Processor (\d+) .*"), "CPU {} was brought up"),
    (re.compile(r"CPU(\d+): Booted secondary processor.*"), "CPU {} was brought up"),
    (re.compile(r"(?:smpboot|psci|IRQ.*): CPU ?(\d+) (?:is now offline|killed).*"), "CPU {} went offline"),
    # mm/page_alloc.c: build_all_zonelists(), at boot and when a node or zone gets its first memory.
    (re.compile(r"Built \d+ zonelists, mobility grouping .*"), "memory was onlined in a zone that had none"),
    (re.compile(r"Offlined Pages .*"), "memory went offline: {0}"),
    (re.compile(r"pseries-hotplug-mem: (?:Attempting to|Memory) hot-.*"), None),
    (re.compile(r"crash hp: .*"), None),
    (re.compile(r"sysrq: Trigger a crash"), "sysrq triggered the crash"),
    (re.compile(r"Kernel panic - not syncing.*"), None),
    (re.compile(r"(?:BUG|Oops|general protection fault|watchdog: BUG).*"), None),
]


class _Line(NamedTuple):
    seconds: float
    text: str


def log_lines(topology: Topology, beginning: str) -> list[str]:
    """Lines of the kernel log that begin so, time stamps left out."""
    return [line.text for line in _lines(topology) if line.text.startswith(beginning)]


def _lines(topology: Topology) -> Iterator[_Line]:
    if isinstance(topology.log, str):
        for seconds, text in _TOLD.findall(topology.log):
            yield _Line(float(seconds), text)


def _span(topology: Topology) -> tuple[float, float] | None:
    """The times of the log's first and last line; None where no line has one."""
    if not isinstance(topology.log, str):
        return None
    stamps = re.findall(_STAMP, topology.log[:4096], re.M) + re.findall(_STAMP, topology.log[-4096:], re.M)
    return (float(stamps[0]), float(stamps[-1])) if stamps else None


def timeline(case: Case) -> Timeline:
    """Boot, hotplug, the header's last writing as far as it can be bounded, and the crash."""
    lines, span = list(_lines(case.topology)), _span(case.topology)
    events, remarks = [], []
    if span is None:
        remarks.append("the kernel log could not be read, so nothing of this has a time")
    elif span[0] > 0 and not any(line.text.startswith("Linux version") for line in lines[:1]):
        remarks.append(f"the kernel log begins {span[0]:.0f} s after boot")
    boot_done = _boot_done(lines)
    for line in lines:
        if (event := _event(line, boot_done)) is not None:
            events.append(event)
    if (written := _written(case)) is not None:
        events.append(written)
    events.sort(key=_place)
    if len(events) > MAX_EVENTS:
        remarks.append(f"{len(events) - MAX_EVENTS} events in the middle are left out")
        events = events[: MAX_EVENTS // 2] + events[-MAX_EVENTS // 2 :]
    if case.header.arch.x86:
        remarks.append("x86 kernels log no time for memory that is added")
    return Timeline((Event("boot", 0.0), *events, *_crash(span)), _boot(case, span), tuple(remarks))


def _boot_done(lines: Iterable[_Line]) -> float:
    """When init was started: what CPUs do before that is no hotplug."""
    return next((line.seconds for line in lines if line.text.startswith("Run /")), 0.0)


def _event(line: _Line, boot_done: float) -> Event | None:
    for pattern, text in _EVENTS:
        if match := pattern.fullmatch(line.text):
            at_boot = line.seconds < boot_done or line.seconds == 0
            if at_boot and text is not None:
                return None
            shown = line.text if text is None else text.format(*(match.groups() or (match[0],)))
            return Event(plain(shown), line.seconds)
    return None


def _place(event: Event) -> tuple[float, int]:
    """A place on the line: bounded events right after what they follow, or right before what they precede."""
    if event.seconds is not None:
        return event.seconds, 0
    if event.not_before is not None:
        return event.not_before, 1
    return event.not_after or 0.0, -1


def surely_later(case: Case) -> frozenset[int]:
    """CPUs without a note that were not there when elfcorehdr was last written.

    Those that the header's builder could not have missed, and those whose first hot-add in the
    log is later than the last one of such a CPU.
    """
    try:
        without = case.notes.without
    except NotKnown:
        return frozenset()
    first_missable = _first_missable(case)
    sure = {cpu for cpu in without if first_missable is None or cpu < first_missable}
    added = _hot_added(case.topology)
    bound = min((added[cpu][-1] for cpu in sure if cpu in added), default=None)
    if bound is not None:
        sure |= {cpu for cpu in without if cpu in added and added[cpu][0] >= bound}
    return frozenset(sure)


def _first_missable(case: Case) -> int | None:
    """The first CPU that the header's builder could have missed though it was there; None: none.

    kexec-tools looks at CPUs 0 to _SC_NPROCESSORS_CONF - 1, which older C libraries count from
    the CPUs that are present. With a gap below it, a CPU's number can be past that count. The
    kernel, where it builds the header, takes every CPU that is present or possible.
    """
    image = case.topology.crash_image
    if isinstance(image, CrashImage) and image.file_mode:
        return None
    noted = set(case.notes.cpu_of.values())
    gap = next(cpu for cpu in range(len(noted) + 1) if cpu not in noted)
    return gap + 1


def _hot_added(topology: Topology) -> dict[int, list[float]]:
    """When ACPI added each CPU, in order."""
    added: dict[int, list[float]] = {}
    for line in _lines(topology):
        if match := re.fullmatch(r"(?:ACPI: )?CPU(\d{1,9}) has been hot-added", line.text):
            added.setdefault(int(match[1]), []).append(line.seconds)
    return added


def _written(case: Case) -> Event | None:
    """When elfcorehdr was last written, bounded by what it describes.

    It names CPUs that were there, and lacks CPUs that were not; nothing else about it has a time.
    """
    added, sure = _hot_added(case.topology), surely_later(case)
    lacking = {cpu: added[cpu][-1] for cpu in sure if cpu in added}
    if not lacking:
        return None
    noted = case.notes.cpu_of.values()
    there = {cpu: added[cpu][0] for cpu in noted if cpu in added}
    before, after = min(lacking.values()), max(there.values(), default=None)
    if after is None or after >= before:
        return Event(f"elfcorehdr was last written: it lacks CPU {cpu_list(lacking)}", None, None, before)
    why = f"it names CPU {cpu_list(there)} and lacks CPU {cpu_list(lacking)}"
    return Event(f"elfcorehdr was last written: {why}", None, after, before)


def _crash(span: tuple[float, float] | None) -> Iterator[Event]:
    if span is None:
        yield Event("the kernel crashed")
    else:
        yield Event("the kernel crashed; its log ends", span[1])


def _boot(case: Case, span: tuple[float, float] | None) -> float | None:
    """The wall clock of boot: CRASHTIME is taken right after the last line, in crash_save_vmcoreinfo()."""
    text = case.header.vmcoreinfo.get("CRASHTIME", "")
    if span is None or not re.fullmatch(r"\d{1,12}", text):
        return None
    return int(text) - span[1]
