# SPDX-License-Identifier: LGPL-2.1-or-later
"""A healthy dump of a small kernel, to be spoilt in one place by each test of a rule."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from tests.builders import DIRECT_MAP, GiB, MiB
from vmcheck.facts.case import Case
from vmcheck.facts.exclusions import LOW_MEMORY, Exclusion
from vmcheck.facts.findings import Finding, Outcome, State
from vmcheck.facts.header import CpuNote, DumpHeader, Format, Producer, Segment, Segments
from vmcheck.facts.ranges import EMPTY, RangeSet
from vmcheck.facts.topology import (
    Blocks,
    KernelData,
    MemoryAccount,
    Resources,
    SavedNote,
    Sections,
    SlabSample,
    Topology,
    Unknown,
)
from vmcheck.rules import rules

SECTION = 128 * MiB
RAM = RangeSet([(0, 1 * GiB)])
CRASH_KERNEL = RangeSet([(256 * MiB, 512 * MiB)])
HEALTHY = RAM - LOW_MEMORY - CRASH_KERNEL
"""What elfcorehdr describes of RAM."""
PAGE_OFFSET = DIRECT_MAP[64]
RELEASE, BUILD_ID = "6.1.0-test", "abcd"
VMCOREINFO = f"OSRELEASE={RELEASE}\nBUILD-ID={BUILD_ID}\nPAGESIZE=4096\nNUMBER(phys_base)=0\nCRASHTIME=1\n"


def registers(cpu: int) -> bytes:
    """What crash_save_cpu() would write: no two CPUs' alike in more than a few bytes."""
    return f"elf_prstatus of CPU {cpu}: ".encode() + bytes((7 * cpu + 11 * n) % 250 + 1 for n in range(64))


def notes(*cpus: int) -> tuple[CpuNote, ...]:
    """The file's NT_PRSTATUS notes, holding these CPUs' registers in this order."""
    return tuple(CpuNote(position, 100 + cpu, registers(cpu)) for position, cpu in enumerate(cpus))


def saved(*cpus: int) -> dict[int, SavedNote | Unknown]:
    """crash_notes of CPUs that saved their registers."""
    return {cpu: SavedNote(registers(cpu)) for cpu in cpus}


def segments(memory: RangeSet) -> Segments:
    """A PT_LOAD for each range, as the direct map has it, stored from 4096 on without gaps."""
    made, offset = [], 4096
    for start, end in memory:
        made.append(Segment(offset, start + PAGE_OFFSET, start, end - start, end - start))
        offset += end - start
    return Segments.of(made)


def dump(described: RangeSet = HEALTHY) -> DumpHeader:
    """A raw /proc/vmcore of two CPUs."""
    return DumpHeader(
        path="vmcore",
        format=Format.ELF,
        producer=Producer.KDUMP,
        machine="x86_64",
        bits=64,
        byteorder="little",
        page_size=4096,
        described=described,
        stored=described,
        file_size=4096 + described.size,
        expected_size=4096 + described.size,
        segments=segments(described),
        cpu_notes=notes(0, 1),
        vmcoreinfo_notes=(VMCOREINFO.encode(),),
    )


def sections(present: RangeSet, early: RangeSet, online: RangeSet) -> Sections:
    return Sections(SECTION, MemoryAccount("mem_section", online), present, early)


def resources(ram: RangeSet) -> Resources:
    return Resources(MemoryAccount("iomem_resource", ram), EMPTY)


def blocks(online: RangeSet, offline: RangeSet = EMPTY) -> Blocks:
    return Blocks(SECTION, MemoryAccount("memory blocks", online), offline)


def kernel(ram: RangeSet = RAM, hot_added: RangeSet = EMPTY, offline: RangeSet = EMPTY) -> Topology:
    """A kernel that booted with ``ram``, was given ``hot_added``, and left ``offline`` of it offline."""
    all_ram = ram | hot_added
    present, early = (memory.aligned_outward(SECTION) for memory in (all_ram, ram))
    online = present - offline
    return Topology(
        source="a test",
        release=RELEASE,
        build_id=BUILD_ID,
        symbols_build_id=None,
        sections=sections(present, early, online),
        resources=resources(all_ram),
        blocks=blocks(online, present - online),
        excluded=(Exclusion("low memory", LOW_MEMORY), Exclusion("crash kernel", CRASH_KERNEL)),
        possible_cpus=frozenset(range(4)),
        present_cpus=frozenset(range(2)),
        online_cpus=frozenset(range(2)),
        saved_notes=saved(0, 1),
        crash_image=None,
        page_offset=PAGE_OFFSET,
        filtered_slab=SlabSample(0, EMPTY),
        kernel_data=KernelData(),
    )


DUMP, KERNEL = dump(), kernel()
COMPRESSED = replace(DUMP, format=Format.KDUMP, segments=Segments.of(()), header_version=6, dump_level=31)
FROM_QEMU = replace(DUMP, producer=Producer.HYPERVISOR)
UNREAD = Unknown("crash_notes: lost")


Account = TypeVar("Account", Sections, Resources, Blocks)


def cut_short(fact: Account) -> Account:
    """The same from a walk that had to stop."""
    return replace(fact, account=replace(fact.account, unread=("the rest is lost",)))


def outcome(rule: str, header: DumpHeader = DUMP, topology: Topology = KERNEL) -> Outcome:
    return rules()[rule].outcome(Case(header, topology))


def findings(rule: str, header: DumpHeader = DUMP, topology: Topology = KERNEL) -> list[Finding]:
    return list(outcome(rule, header, topology).findings)


def clean(rule: str) -> Outcome:
    return Outcome(rule, State.CLEAN)


def skipped(rule: str, why: str) -> Outcome:
    return Outcome(rule, State.SKIPPED, why=why)


def inapplicable(rule: str, why: str) -> Outcome:
    return Outcome(rule, State.INAPPLICABLE, why=why)
