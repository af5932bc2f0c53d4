# SPDX-License-Identifier: LGPL-2.1-or-later
"""When a question does not arise, and why."""

from __future__ import annotations

from vmcheck.header import Producer, Segments
from vmcheck.ranges import ADDRESS_LIMIT
from vmcheck.rules import Case, Inapplicable


def needs_crash_notes(case: Case) -> None:
    """For rules that compare the file's notes with the CPUs' crash_notes."""
    if case.header.producer is Producer.HYPERVISOR:
        raise Inapplicable("the hypervisor took the registers itself, from every virtual CPU")
    if case.header.machine == "s390x":
        raise Inapplicable("s390 saves registers by SIGP store-status, not in crash_notes")
    if case.header.header_version is not None and case.header.header_version < 4:
        raise Inapplicable(f"disk_dump_header version {case.header.header_version} carries no notes")


def needs_file(case: Case) -> None:
    """For rules about how a dump was written."""
    if case.forecast:
        raise Inapplicable("the kernel has not crashed: there is no dump yet")


def needs_segments(case: Case) -> Segments:
    """For rules about program headers: those that describe physical memory."""
    if not len(case.header.segments):
        raise Inapplicable("a kdump-compressed file has no program headers")
    return physical(case.header.segments)


def physical(segments: Segments) -> Segments:
    """/proc/kcore says p_paddr = -1 of what is only virtual (fs/proc/kcore.c)."""
    kept = segments.p_paddr <= ADDRESS_LIMIT
    return Segments(*(column[kept] for column in vars(segments).values()))
