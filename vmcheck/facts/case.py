# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a whole dump would hold: the two witnesses compared, memory with memory, note with note."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

from vmcheck.header import DumpHeader
from vmcheck.ranges import EMPTY, RangeSet
from vmcheck.topology import Topology, Unknown, known


def excluded(topology: Topology) -> RangeSet:
    """All that a healthy header leaves out."""
    return reduce(RangeSet.__or__, (part.ranges for part in known(topology.excluded)), EMPTY)


def covered(header: DumpHeader) -> RangeSet:
    """Described memory in whole pages: a page that a range only touches is in the dump."""
    return header.described.aligned_outward(header.page_size)


def undescribed_ram(header: DumpHeader, topology: Topology) -> RangeSet:
    """Whole pages of online System RAM that the headers lack and should not.

    Where the resources could not be read, or not all of them, whole sections with nothing
    described in them: a finer loss is then not seen, and the crash kernel's reservation,
    which lies in memory present at boot, cannot be told from a loss.
    """
    lost = EMPTY
    resources = topology.resources
    unknown = isinstance(topology.sections, Unknown)
    if isinstance(resources, Unknown) or not (resources.account.complete or unknown):
        sections = known(topology.sections)
        lost = sections.account.ram - header.described.aligned_outward(sections.size)
        lost -= sections.early if isinstance(topology.excluded, Unknown) else excluded(topology)
    if not isinstance(resources, Unknown):
        ram = known(topology.system_ram) - excluded(topology)
        lost |= ram.aligned_inward(header.page_size) - covered(header)
    return lost


def written_since_hot_add(header: DumpHeader, topology: Topology) -> bool:
    """Whether memory that came after boot is described: elfcorehdr was written, or written again, since."""
    sections = topology.sections
    return not isinstance(sections, Unknown) and bool(
        covered(header) & (sections.account.ram - sections.early)
    )


def unseen(topology: Topology) -> str | None:
    """Why a loss of memory could have gone unseen; None where every account is whole."""
    if isinstance(topology.resources, Unknown):
        return topology.resources.why
    for account in (topology.resources.account, known(topology.sections).account):
        if not account.complete:
            return f"{account.structure} could not be read to its end: {account.unread[0]}"
    return None


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


def map_notes(header: DumpHeader, topology: Topology) -> NoteMap:
    """Match the file's NT_PRSTATUS notes with the CPUs' crash_notes, byte for byte.

    Position says nothing: empty notes vanish from /proc/vmcore. Notes that are equal to
    the byte, which only CPUs that never ran can have, keep the order of the CPUs.
    """
    saved = known(topology.saved_notes)
    waiting: dict[bytes, list[int]] = {}
    for note in header.cpu_notes:
        waiting.setdefault(note.descriptor, []).append(note.position)
    cpu_of: dict[int, int] = {}
    without = []
    for cpu, registers in sorted(saved.items(), key=lambda item: item[0]):
        if isinstance(registers, Unknown) or not registers.descriptor:
            continue
        if positions := waiting.get(registers.descriptor):
            cpu_of[positions.pop(0)] = cpu
        else:
            without.append(cpu)
    return NoteMap(
        cpu_of,
        tuple(sorted(position for positions in waiting.values() for position in positions)),
        tuple(without),
        tuple(sorted(cpu for cpu, note in saved.items() if isinstance(note, Unknown))),
    )
