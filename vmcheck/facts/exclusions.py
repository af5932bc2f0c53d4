# SPDX-License-Identifier: LGPL-2.1-or-later
"""Memory that a healthy header leaves out, each range with its reason."""

from __future__ import annotations

from dataclasses import dataclass

from vmcheck.facts.ranges import RangeSet

LOW_MEMORY = RangeSet([(0, 1 << 20)])
"""x86 crash kernels use the first MiB themselves: elf_header_exclude_ranges() drops it."""

LOW_MEMORY_REASON = "the first MiB, which the crash kernel itself uses"
CRASH_KERNEL_REASON = "reserved for the crash kernel (crashkernel=)"


@dataclass(frozen=True)
class Exclusion:
    """System RAM that is rightly absent."""

    reason: str
    ranges: RangeSet
