# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from dataclasses import replace

import pytest

from tests.builders import MiB
from tests.rules.cases import (
    COMPRESSED,
    DUMP,
    FROM_QEMU,
    KERNEL,
    PAGE_OFFSET,
    VMCOREINFO,
    clean,
    findings,
    inapplicable,
    outcome,
    skipped,
)
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.header import DumpHeader, Segment, Segments
from vmcheck.facts.machine import named
from vmcheck.facts.ranges import RangeSet
from vmcheck.facts.topology import Unknown

IMAGE_BASE = named("x86_64").image_base or 0


RULE = "segment-addresses"
PHYS_BASE = 16 * MiB


def with_segments(*segments: tuple[int, int]) -> DumpHeader:
    """PT_LOADs of 1 MiB at (p_vaddr, p_paddr) of a kernel loaded 16 MiB above its link-time place."""
    return replace(
        DUMP,
        segments=Segments.of(Segment(4096, vaddr, paddr, 1 * MiB, 1 * MiB) for vaddr, paddr in segments),
        vmcoreinfo_notes=(VMCOREINFO.replace("phys_base)=0", f"phys_base)={PHYS_BASE}").encode(),),
    )


RIGHT = [(PAGE_OFFSET + 1 * MiB, 1 * MiB), (IMAGE_BASE, PHYS_BASE), (2**64 - 1, 4096 * MiB)]


def test_a_segment_off_the_direct_map_is_wrong() -> None:
    assert findings(RULE, with_segments(*RIGHT, (PAGE_OFFSET, 64 * MiB))) == [
        Finding(
            Severity.WRONG,
            "1 of 4 segments have a virtual address outside the kernel's layout",
            ranges=RangeSet([(64 * MiB, 65 * MiB)]),
            evidence=(
                "the direct map begins at 0xffff888000000000 (page_offset_base)",
                "the kernel image is mapped at 0xffffffff80000000, phys_base 16777216",
                "p_vaddr 0xffff888000000000 for p_paddr 0x4000000",
            ),
        )
    ]


def test_the_direct_map_and_the_kernels_text_are_clean() -> None:
    assert outcome(RULE, with_segments(*RIGHT)) == clean(RULE)


def test_a_segment_without_a_physical_address_is_clean() -> None:
    """/proc/kcore says p_paddr = -1 of what is only virtual."""
    assert outcome(RULE, with_segments(*RIGHT, (0xFFFFC90000000000, 2**64 - 1))) == clean(RULE)


@pytest.mark.parametrize("phys_base", ["--5", "²", "9" * 5000, "", "-16777216"])
def test_a_phys_base_that_is_no_number_is_left_aside(phys_base: str) -> None:
    dump = replace(DUMP, vmcoreinfo_notes=(f"NUMBER(phys_base)={phys_base}\n".encode(),))
    assert outcome(RULE, dump) == clean(RULE)


def test_an_unread_direct_map_is_skipped() -> None:
    kernel = replace(KERNEL, page_offset=Unknown("page_offset_base: lost"))
    assert outcome(RULE, DUMP, kernel) == skipped(RULE, "page_offset_base: lost")


@pytest.mark.parametrize(
    ("dump", "why"),
    [
        (COMPRESSED, "a kdump-compressed file has no program headers"),
        (FROM_QEMU, "a hypervisor gives physical addresses only"),
        (replace(DUMP, machine="aarch64"), "the layout of aarch64 is not known to this rule"),
    ],
)
def test_where_there_is_no_known_layout_there_is_no_question(dump: DumpHeader, why: str) -> None:
    assert outcome(RULE, dump) == inapplicable(RULE, why)
