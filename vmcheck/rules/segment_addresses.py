# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.header import Producer
from vmcheck.facts.ranges import RangeSet
from vmcheck.facts.topology import known
from vmcheck.rules import Inapplicable, rule
from vmcheck.rules.applies import needs_segments

NO_ADDRESS = 0xFFFFFFFFFFFFFFFF


@rule
def segment_addresses(case: Case) -> Iterator[Finding]:
    """A segment's virtual address contradicts the kernel's own memory layout.

    What it means: p_vaddr must be p_paddr in the direct map or, for the kernel's text, in the kernel
    image (__START_KERNEL_map less phys_base). kexec-tools guesses the direct map's base from
    /proc/kcore, and the guess can be wrong.

    Why it matters: tools that translate addresses by segments, such as gdb, read the wrong memory.
    Those that walk the page tables do not.

    What to do: use crash or drgn. Update kexec-tools, or load the crash kernel with ``kexec -s``.

    How it is decided: each p_vaddr is compared with page_offset_base in the dump's memory and with
    phys_base in VMCOREINFO.
    """
    segments = needs_segments(case)
    if case.header.producer is Producer.HYPERVISOR:
        raise Inapplicable("a hypervisor gives physical addresses only")
    image_base = case.header.arch.image_base
    if image_base is None:
        raise Inapplicable(f"the layout of {case.header.machine} is not known to this rule")
    page_offset = known(case.topology.page_offset)
    with np.errstate(over="ignore"):
        offsets = segments.p_vaddr - segments.p_paddr
    right = (offsets == np.uint64(page_offset)) | (segments.p_vaddr == np.uint64(NO_ADDRESS))
    evidence = [f"the direct map begins at {page_offset:#x} (page_offset_base)"]
    phys_base = case.header.vmcoreinfo.get("NUMBER(phys_base)", "")
    if re.fullmatch("-?[0-9]{1,19}", phys_base):
        image = (image_base - int(phys_base)) % (1 << 64)
        right |= offsets == np.uint64(image)
        evidence.append(f"the kernel image is mapped at {image_base:#x}, phys_base {phys_base}")
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
