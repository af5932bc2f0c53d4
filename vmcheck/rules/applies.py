# SPDX-License-Identifier: LGPL-2.1-or-later
"""When a question does not arise, and why."""

from __future__ import annotations

from vmcheck.header import Producer
from vmcheck.rules import Case, Inapplicable


def needs_crash_notes(case: Case) -> None:
    """For rules that compare the file's notes with the CPUs' crash_notes."""
    if case.header.producer is Producer.HYPERVISOR:
        raise Inapplicable("the hypervisor took the registers itself, from every virtual CPU")
    if case.header.machine == "s390x":
        raise Inapplicable("s390 saves registers by SIGP store-status, not in crash_notes")
    if case.header.header_version is not None and case.header.header_version < 4:
        raise Inapplicable(f"disk_dump_header version {case.header.header_version} carries no notes")


def needs_segments(case: Case) -> None:
    """For rules about program headers."""
    if not len(case.header.segments):
        raise Inapplicable("a kdump-compressed file has no program headers")
