# SPDX-License-Identifier: LGPL-2.1-or-later
"""Why a dump is incomplete, since when, what that costs and what to do: the value that renderers show.

Every text here may hold words of the dump and is already :func:`~vmcheck.errors.plain`.
Sentences have no full stop.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from vmcheck.facts.topology import Loss, Tasks, Unknown


class Certainty(str, enum.Enum):
    """How well an answer is founded. A likely answer is never shown without this word."""

    CERTAIN = "certain"
    """It follows from what the dump holds; nothing else known to us could have led to it."""
    LIKELY = "likely"
    """The evidence points there, and something else remains possible."""
    UNKNOWN = "unknown"
    """Could not tell; ``Conclusion.text`` says what is open and ``evidence`` why."""


class Name(str, enum.Enum):
    """A name that users type and reports hold: each is stable and has one definition."""

    # A member serves wherever its text does: printed, and as a key.
    __str__ = str.__str__
    __hash__ = str.__hash__


class Regime(Name):
    """Which mechanism was responsible for keeping elfcorehdr up to date."""

    IN_KERNEL_FILE_LOAD = "in-kernel-file-load"
    IN_KERNEL_KEXEC_LOAD = "in-kernel-kexec-load"
    DEBIAN_TRY_RELOAD = "debian-try-reload"
    RHEL_THROTTLED_RELOAD = "rhel-throttled-reload"
    RHEL7_PER_EVENT_RELOAD = "rhel7-per-event-reload"
    SUSE_RELOAD = "suse-reload"
    USER_SPACE_RELOAD = "user-space-reload"
    NO_UPDATE = "no-update"
    CAPTURE_KERNEL = "capture-kernel"
    HYPERVISOR = "hypervisor"
    UNKNOWN = "unknown-regime"


class Cause(Name):
    """Why a dump is as it is."""

    ADDED_AFTER_LOAD = "added-after-load"
    LOADED_WITHOUT_HOTPLUG = "loaded-without-hotplug"
    RELOAD_WINDOW = "reload-window"
    KERNEL_UPDATE_FAILED = "kernel-update-failed"
    KERNEL_UPDATE_SKIPPED = "kernel-update-skipped"
    PHANTOM_AFTER_REMOVE = "phantom-after-remove"
    REMOVED_AFTER_LOAD = "removed-after-load"
    DRIVER_MANAGED_POLICY = "driver-managed-policy"
    HEADER_LIMITS = "header-limits"
    NO_CRASH_KERNEL = "no-crash-kernel"
    CPU_NEVER_ANSWERED = "cpu-never-answered"
    CAPTURE_OUT_OF_SPACE = "capture-out-of-space"
    FILE_CUT_SHORT = "file-cut-short"
    MAKEDUMPFILE_TOO_OLD = "makedumpfile-too-old"
    STILL_BEING_WRITTEN = "still-being-written"
    PART_NOT_GIVEN = "part-not-given"
    INTERRUPTED_CAPTURE = "interrupted-capture"
    DAMAGED_DUMP = "damaged-dump"
    DUMPED_IN_PART = "dumped-in-part"
    UNKNOWN = "unknown-cause"


@dataclass(frozen=True)
class Conclusion:
    """One answer with what it rests on."""

    name: str
    """A member of :class:`Regime` or :class:`Cause`, for ``vmcheck explain NAME``."""
    text: str
    """The answer in one sentence."""
    certainty: Certainty
    evidence: tuple[str, ...] = ()
    """What it rests on, each a line, the strongest first."""
    rules: tuple[str, ...] = ()
    """The rules that found what it accounts for. Empty for a regime."""


@dataclass(frozen=True)
class Event:
    """One moment of the time line."""

    text: str
    seconds: float | None = None
    """Since boot, by the kernel log's clock. None: its time is not recorded."""
    not_before: float | None = None
    not_after: float | None = None
    """Where ``seconds`` is None: the bounds that follow from what the header does and does not describe."""


@dataclass(frozen=True)
class Timeline:
    """From boot to crash, in order; an event without a time stands where its bounds put it."""

    events: tuple[Event, ...]
    boot: float | None = None
    """Seconds since the epoch: CRASHTIME less the log's last stamp, good to a second or two
    unless the machine slept. ``boot + event.seconds`` is an event's wall clock."""
    remarks: tuple[str, ...] = ()
    """What the line cannot show, such as a log that begins late."""


class Use(str, enum.Enum):
    """What an analyst gets from a command on this dump."""

    FAILS = "fails"
    MISLEADS = "misleads"
    """It answers, and the answer is wrong."""
    PARTIAL = "partial"
    """It answers, with something left out that it does not name."""
    SAFE = "safe"


@dataclass(frozen=True)
class Effect:
    """What the loss does to one usual command."""

    command: str
    """As it is typed: ``bt``, ``prog.crashed_thread().stack_trace()``."""
    tool: str
    """``crash`` or ``drgn``."""
    use: Use
    certainty: Certainty
    why: str


@dataclass(frozen=True)
class Impact:
    """What was lost, in the kernel's terms."""

    headline: str
    """The one sentence to read."""
    facts: tuple[str, ...]
    """The next sentences, gravest first: tasks, kernel data, per-CPU areas, modules, what is unknown."""
    effects: tuple[Effect, ...]
    """Failing and misleading commands first."""
    loss: Loss | Unknown | None
    """The numbers: pages by node, zone and kind; modules; per-CPU areas. None: no memory is lost."""
    tasks: Tasks | Unknown
    """``tasks.crashed`` and ``tasks.lost`` are the ones to show."""
    recoverable_cpus: tuple[int, ...] = ()
    """CPUs without a note that have their registers in the dump's memory, in crash_notes."""
    lost_cpus: tuple[int, ...] = ()
    """CPUs that have their registers nowhere."""


@dataclass(frozen=True)
class Step:
    """One thing to do."""

    text: str
    commands: tuple[str, ...] = ()
    """To be copied as they are, as root on the machine that crashed unless the text says otherwise."""


@dataclass(frozen=True)
class Comparison:
    """What a file beside the dump says, held against the dump. Never silently preferred."""

    witness: str
    """The file's name as given."""
    kind: str
    """``capture kernel's log``, ``kernel log``, ``topology``, ``sos report``."""
    agrees: bool | None
    """None: the witness was refused, or has nothing to compare; ``text`` says why."""
    text: str


@dataclass(frozen=True)
class Diagnosis:
    """Regime, causes, time line, impact and remedy."""

    regime: Conclusion
    """Which mechanism was to keep elfcorehdr fresh. Known for healthy dumps too."""
    causes: tuple[Conclusion, ...] = ()
    """Worst first. Empty where nothing was found."""
    timeline: Timeline | None = None
    """None where nothing was found."""
    impact: Impact | None = None
    """None where neither memory nor registers are lost."""
    next_dump: tuple[Step, ...] = ()
    """So that the next dump is whole, in the order to do it."""
    this_dump: tuple[Step, ...] = ()
    """What can still be done with this one."""
    witnesses: tuple[Comparison, ...] = ()
