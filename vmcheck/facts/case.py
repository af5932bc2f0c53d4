# SPDX-License-Identifier: LGPL-2.1-or-later
"""A dump and its kernel together: memory compared with memory, notes with notes, each worked out once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce

from vmcheck.facts.body import NOT_LOOKED_AT, Body
from vmcheck.facts.header import DumpHeader, Producer
from vmcheck.facts.ranges import EMPTY, RangeSet
from vmcheck.facts.topology import CrashImage, NotKnown, SavedNote, Topology, Unknown, known

MACHINE_ADDRESSES = "a Xen host's headers have machine addresses, and its kernel's are pseudo-physical"
"""Why the two cannot be compared."""


@dataclass(frozen=True)
class Phantom:
    """Memory that is described and that the kernel did not have."""

    ranges: RangeSet
    no_section: bool
    """No section is present anywhere in it: mem_section, read whole, proves the removal."""


@dataclass(frozen=True)
class Case:
    """What the dump's headers claim beside what the kernel knew.

    The properties raise NotKnown where a fact that they need is unknown. Each is worked
    out when it is first asked for, and kept.
    """

    header: DumpHeader
    topology: Topology
    body: Body | Unknown = NOT_LOOKED_AT

    @property
    def forecast(self) -> bool:
        return self.header.forecast

    @cached_property
    def excluded(self) -> RangeSet:
        """All memory that a healthy header leaves out."""
        return reduce(RangeSet.__or__, (part.ranges for part in known(self.topology.excluded)), EMPTY)

    @cached_property
    def covered(self) -> RangeSet:
        """Described memory in whole pages: a page that a range only touches is in the dump."""
        return self.header.described.aligned_outward(self.header.page_size)

    @cached_property
    def undescribed(self) -> RangeSet:
        """Whole pages of online System RAM that the headers lack and should not.

        Where the resources could not be read, or not all of them, whole sections with nothing
        described in them: a finer loss is then not seen, and the crash kernel's reservation,
        which is memory present at boot, looks the same as a loss.
        """
        if self.header.producer is Producer.XEN:
            raise NotKnown(MACHINE_ADDRESSES)
        topology = self.topology
        missing = EMPTY
        resources = topology.resources
        unknown = isinstance(topology.sections, Unknown)
        if isinstance(resources, Unknown) or not (resources.account.complete or unknown):
            sections = known(topology.sections)
            missing = sections.account.ram - self.header.described.aligned_outward(sections.size)
            missing -= known(sections.early) if isinstance(topology.excluded, Unknown) else self.excluded
        if not isinstance(resources, Unknown):
            ram = known(topology.system_ram) - self.excluded
            missing |= ram.aligned_inward(self.header.page_size) - self.covered
        return missing

    @cached_property
    def phantom(self) -> Phantom:
        """What the headers describe and no account has: memory that was removed.

        Only an account that was read to its end proves an absence.
        """
        resources, sections = known(self.topology.resources), known(self.topology.sections)
        whole = sections.account.complete
        if not resources.account.complete:
            # A resource may be among those that could not be read; a section that is absent is proof.
            return Phantom(self.covered - sections.present if whole else EMPTY, no_section=whole)
        # A damaged tree ends early and looks whole: where a section is online, nothing was removed.
        gone = self.covered - resources.account.ram.aligned_outward(self.header.page_size)
        gone -= sections.account.ram
        return Phantom(gone, no_section=whole and not gone & sections.present)

    @cached_property
    def missing(self) -> RangeSet:
        """What no header describes, and what a cut file does not hold after all. Never raises."""
        try:
            return self.undescribed | self.header.cut
        except NotKnown:
            return self.header.cut

    @cached_property
    def written_since_hot_add(self) -> bool:
        """Whether memory added after boot is described: elfcorehdr was written since. Never raises."""
        sections = self.topology.sections
        if isinstance(sections, Unknown) or isinstance(sections.early, Unknown):
            return False
        return bool(self.covered & (sections.account.ram - sections.early))

    @cached_property
    def wants_loss(self) -> bool:
        """Whether the tasks and the missing pages are worth a look in the kernel. Never raises."""
        return bool(self.missing) or self._lacks_registers or self._user_space_kept_up

    @property
    def _lacks_registers(self) -> bool:
        """Whether an online CPU's registers are not in the notes, or were never saved."""
        try:
            saved, online = known(self.topology.saved_notes), known(self.topology.online_cpus)
            return bool(self.notes.without) or any(saved.get(cpu) == SavedNote(b"") for cpu in online)
        except NotKnown:
            return False

    @property
    def _user_space_kept_up(self) -> bool:
        """Whether hot-added memory is described, and not by the kernel: the tasks may show who reloaded."""
        image = self.topology.crash_image
        if self.header.producer is Producer.HYPERVISOR or not isinstance(image, CrashImage):
            return False
        return not image.hotplug_support and self.written_since_hot_add

    @cached_property
    def unseen(self) -> str | None:
        """Why missing memory could have gone unseen; None where every account is whole."""
        topology = self.topology
        if isinstance(topology.resources, Unknown):
            return topology.resources.why
        if topology.disputed - self.covered:
            return "mem_section has memory online where iomem_resource has none, and no header describes it"
        for account in (topology.resources.account, known(topology.sections).account):
            if not account.complete:
                return f"{account.structure} could not be read to its end: {account.unread[0]}"
        return None

    @cached_property
    def notes(self) -> NoteMap:
        """The file's NT_PRSTATUS notes matched with the CPUs' crash_notes, byte for byte.

        Position says nothing: empty notes vanish from /proc/vmcore. Notes that are equal to
        the byte, which only CPUs that never ran can have, keep the order of the CPUs.
        """
        saved = known(self.topology.saved_notes)
        waiting: dict[bytes, list[int]] = {}
        for note in reversed(self.header.cpu_notes):
            waiting.setdefault(note.descriptor, []).append(note.position)
        cpu_of: dict[int, int] = {}
        without = []
        for cpu, registers in sorted(saved.items(), key=lambda item: item[0]):
            if isinstance(registers, Unknown) or not registers.descriptor:
                continue
            if positions := waiting.get(registers.descriptor):
                cpu_of[positions.pop()] = cpu
            else:
                without.append(cpu)
        unclaimed = sorted(position for positions in waiting.values() for position in positions)
        changed = _changed_notes(unclaimed, without, self.header, saved)
        return NoteMap(
            cpu_of | changed,
            tuple(position for position in unclaimed if position not in changed),
            tuple(cpu for cpu in without if cpu not in changed.values()),
            tuple(sorted(cpu for cpu, note in saved.items() if isinstance(note, Unknown))),
            changed,
        )


@dataclass(frozen=True)
class NoteMap:
    """Whose each note is."""

    cpu_of: Mapping[int, int]
    """CPU number by position in the file."""
    unclaimed: tuple[int, ...]
    """Positions of notes that equal no CPU's crash_notes."""
    without: tuple[int, ...]
    """CPUs that saved their registers and have no note in the file."""
    unread: tuple[int, ...]
    """CPUs whose crash_notes could not be read."""
    changed: Mapping[int, int] = field(default_factory=dict)
    """Of ``cpu_of``, the notes that nearly equal their CPU's crash_notes: one of the two was changed."""


FEW_BYTES = 8
"""Two CPUs that stop in the same function differ in more."""


def _changed_notes(
    unclaimed: Sequence[int],
    without: Sequence[int],
    header: DumpHeader,
    saved: Mapping[int, SavedNote | Unknown],
) -> dict[int, int]:
    """CPU by position, where a note is one CPU's but for a few bytes, or for some that are zeros in it."""
    found: dict[int, int] = {}
    for position in unclaimed:
        note = header.cpu_notes[position].descriptor
        near = [cpu for cpu in without if cpu not in found.values() and _nearly(note, saved[cpu])]
        if len(near) == 1:
            found[position] = near[0]
    return found


def _nearly(note: bytes, saved: SavedNote | Unknown) -> bool:
    if isinstance(saved, Unknown) or len(note) != len(saved.descriptor):
        return False
    other = [ours for ours, theirs in zip(note, saved.descriptor, strict=True) if ours != theirs]
    return len(other) <= FEW_BYTES or (any(note) and not any(other))
