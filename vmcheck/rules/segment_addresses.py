# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from vmcheck.findings import Finding, Severity
from vmcheck.header import Producer
from vmcheck.ranges import RangeSet
from vmcheck.rules import Case, Inapplicable, rule
from vmcheck.rules.applies import needs_segments
from vmcheck.topology import known

START_KERNEL_MAP = 0xFFFFFFFF80000000
"""x86_64: arch/x86/include/asm/page_64_types.h."""
NO_ADDRESS = 0xFFFFFFFFFFFFFFFF


@rule
def segment_addresses(case: Case) -> Iterator[Finding]:
    """A segment's virtual address contradicts the kernel's own memory layout.

    p_vaddr must be p_paddr in the direct map, or for the kernel's text in the kernel image
    (__START_KERNEL_map less phys_base). kexec-tools guesses the direct map's base from
    /proc/kcore and has guessed wrong before. Tools that translate by segments, gdb first
    of all, then read the wrong memory; those that walk page tables do not.
    """
    segments = needs_segments(case)
    if case.header.producer is Producer.HYPERVISOR:
        raise Inapplicable("a hypervisor gives physical addresses only")
    if case.header.machine != "x86_64":
        raise Inapplicable(f"the layout of {case.header.machine} is not known to this rule")
    page_offset = known(case.topology.page_offset)
    with np.errstate(over="ignore"):
        offsets = segments.p_vaddr - segments.p_paddr
    right = (offsets == np.uint64(page_offset)) | (segments.p_vaddr == np.uint64(NO_ADDRESS))
    evidence = [f"the direct map begins at {page_offset:#x} (page_offset_base)"]
    phys_base = case.header.vmcoreinfo.get("NUMBER(phys_base)", "")
    if re.fullmatch("-?[0-9]{1,19}", phys_base):
        image = (START_KERNEL_MAP - int(phys_base)) % (1 << 64)
        right |= offsets == np.uint64(image)
        evidence.append(f"the kernel image is mapped at {START_KERNEL_MAP:#x}, phys_base {phys_base}")
    wrong = np.flatnonzero(~right)
    if len(wrong):
        first = list(segments)[int(wrong[0])]
        evidence.append(f"p_vaddr {first.p_vaddr:#x} for p_paddr {first.p_paddr:#x}")
        start = segments.p_paddr[wrong].astype(np.int64)
        yield Finding(
            Severity.WRONG,
            f"{len(wrong)} of {len(segments)} segments have a virtual address outside the kernel's layout",
            ranges=RangeSet.from_arrays(start, start + segments.p_memsz[wrong].astype(np.int64)),
            evidence=tuple(evidence),
        )
