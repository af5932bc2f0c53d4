# SPDX-License-Identifier: LGPL-2.1-or-later
"""When a question does not arise, and why."""

from __future__ import annotations

from vmcheck.facts.case import Case
from vmcheck.facts.header import Format, Producer, Segments
from vmcheck.facts.ranges import ADDRESS_LIMIT
from vmcheck.facts.topology import NotKnown, Unknown, known
from vmcheck.rules import Inapplicable

NO_CRASH_NOTES = {
    Producer.HYPERVISOR: "the hypervisor took the registers itself, from every virtual CPU",
    Producer.KCORE: "the kernel was running: no CPU saved its registers",
    Producer.XEN: "Xen saved the registers of the physical CPUs, and no CPU of the kernel saved its own",
}
"""Why nothing is in the CPUs' crash_notes, by who made the dump."""


def registers_saved(case: Case) -> bool:
    """Whether a CPU has its registers in crash_notes, as crash_save_cpu() leaves them. Raises NotKnown."""
    saved = known(case.topology.saved_notes)
    return any(not isinstance(note, Unknown) and note.descriptor for note in saved.values())


def needs_crash_notes(case: Case) -> None:
    """For rules that compare the file's notes with the CPUs' crash_notes."""
    if why := NO_CRASH_NOTES.get(case.header.producer):
        # The notes' names alone do not switch a rule off: the kernel's memory has to agree.
        if case.header.producer is Producer.HYPERVISOR and "CRASHTIME" in case.header.vmcoreinfo:
            raise Inapplicable("the capture kernel was running: see notes-of-capture-kernel")
        if not registers_saved(case):
            raise Inapplicable(why)
    if case.header.arch.capture_kernel_writes_header:
        raise Inapplicable(f"{case.header.machine} saves registers by the machine itself, not in crash_notes")
    if case.header.header_version is not None and case.header.header_version < 4:
        # Not inapplicable: the version is one number of a file that may be damaged.
        raise NotKnown(f"disk_dump_header version {case.header.header_version} carries no notes")


def needs_file(case: Case) -> None:
    """For rules about how a dump was written."""
    if case.forecast:
        raise Inapplicable("the kernel has not crashed: there is no dump yet")


def needs_page_table(case: Case) -> None:
    """For rules about the table of page_desc."""
    if case.header.format is not Format.KDUMP:
        raise Inapplicable("an ELF dump has no table of pages: nothing in it says whether a page is right")


def needs_segments(case: Case) -> Segments:
    """For rules about program headers: those that describe physical memory."""
    if not len(case.header.segments):
        raise Inapplicable("a kdump-compressed file has no program headers")
    return physical(case.header.segments)


def physical(segments: Segments) -> Segments:
    """/proc/kcore says p_paddr = -1 of what is only virtual (fs/proc/kcore.c)."""
    kept = segments.p_paddr <= ADDRESS_LIMIT
    return Segments(*(column[kept] for column in vars(segments).values()))
