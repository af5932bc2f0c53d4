# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reports made by hand, for the tests of the renderers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vmcheck.check import Report
from vmcheck.facts.diagnosis import (
    Certainty,
    Comparison,
    Conclusion,
    Diagnosis,
    Effect,
    Event,
    Impact,
    Step,
    Timeline,
    Use,
)
from vmcheck.facts.exclusions import Exclusion
from vmcheck.facts.findings import Finding, Outcome, Severity, State
from vmcheck.facts.header import CpuNote, DumpHeader, Format, Producer
from vmcheck.facts.ranges import RangeSet
from vmcheck.facts.topology import (
    Blocks,
    CrashImage,
    Fault,
    Loss,
    LostModule,
    LostPages,
    MemoryAccount,
    Modules,
    PageCount,
    PageKind,
    Resources,
    SavedNote,
    Sections,
    Task,
    Tasks,
    Topology,
    Unknown,
)

MiB, GiB, TiB = 1 << 20, 1 << 30, 1 << 40

LOW = RangeSet([(0x1000, 0x9F000)])
BOOT = RangeSet([(0x100000, 0x1FFDA000)])
CRASH_KERNEL = RangeSet([(0xE000000, 0x1A000000)])
DIMM = RangeSet([(0x100000000, 0x108000000)])

WHOLE_HEADER = DumpHeader(
    path="/var/crash/202411230915/vmcore",
    format=Format.KDUMP,
    producer=Producer.KDUMP,
    machine="x86_64",
    bits=64,
    byteorder="little",
    page_size=4096,
    described=BOOT - CRASH_KERNEL,
    stored=RangeSet([(0x100000, 0x600000), (0x1A000000, 0x1DA00000)]),
    file_size=17101479,
    expected_size=17101479,
    cpu_notes=(CpuNote(0, 1, b""), CpuNote(1, 0, b"")),
    vmcoreinfo_notes=(b"OSRELEASE=6.1.0-56-amd64\nCRASHTIME=1732353300\n",),
    header_version=6,
    dump_level=31,
    compression="zlib",
)


def topology(
    ram: RangeSet = LOW | BOOT, online: int = 2, nodes: Mapping[int, RangeSet] | None = None
) -> Topology:
    blocks = ram.aligned_outward(128 * MiB)
    cpus = frozenset(range(online))
    return Topology(
        source="the dump's own memory, by its BTF and kallsyms",
        release="6.1.0-56-amd64",
        build_id="8f1a0c3e5b7d9f1a0c3e5b7d9f1a0c3e5b7d9f1a",
        symbols_build_id=None,
        sections=Sections(128 * MiB, MemoryAccount("mem_section", blocks), blocks, blocks),
        resources=Resources(MemoryAccount("iomem_resource", ram), RangeSet()),
        blocks=Blocks(128 * MiB, MemoryAccount("memory blocks", blocks), RangeSet()),
        excluded=(
            Exclusion("the crash kernel's reservation (crashk_res)", CRASH_KERNEL),
            Exclusion("low memory that the crash kernel uses itself", RangeSet([(0, MiB)])),
        ),
        possible_cpus=frozenset(range(online + 1)),
        present_cpus=cpus,
        online_cpus=cpus,
        saved_notes={cpu: SavedNote(b"x") for cpu in cpus},
        crash_image=CrashImage(((0x19F0000, 0x10000, 0x800),), False, None, None, None),
        nodes={0: blocks} if nodes is None else nodes,
    )


CLEAN = (
    Outcome("undescribed-ram", State.CLEAN),
    Outcome("cpu-without-note", State.CLEAN),
    Outcome("described-without-ram", State.CLEAN),
    Outcome("truncated-file", State.CLEAN),
    Outcome("segment-addresses", State.INAPPLICABLE, why="a compressed dump has no program headers"),
)


def report(
    *found: tuple[str, Finding], header: DumpHeader = WHOLE_HEADER, kernel: Topology | None = None
) -> Report:
    """Every rule of ``CLEAN`` that found nothing is clean."""
    outcomes = [
        Outcome(name, State.FOUND, tuple(finding for rule, finding in found if rule == name))
        for name in dict.fromkeys(rule for rule, _ in found)
    ]
    names = {outcome.rule for outcome in outcomes}
    rest = tuple(outcome for outcome in CLEAN if outcome.rule not in names)
    return Report(header, topology() if kernel is None else kernel, (*outcomes, *rest))


def skipping(base: Report, *rules: str, why: str) -> Report:
    skipped = tuple(Outcome(rule, State.SKIPPED, why=why) for rule in rules)
    return replace(base, outcomes=(*base.outcomes, *skipped))


WHOLE = report()

LOST_DIMM = Finding(
    Severity.LOST,
    "System RAM added after elfcorehdr was written, in no PT_LOAD segment",
    ranges=DIMM,
    evidence=(
        "mem_section: 1 section is ONLINE and not EARLY",
        "iomem_resource: System RAM [0x100000000, 0x108000000); the highest described address is 0x1ffda000",
    ),
)
LOST_CPU = Finding(
    Severity.LOST,
    "an online CPU saved its registers and no NT_PRSTATUS of the dump has them",
    cpus=(2,),
    evidence=("crash_notes of CPU 2 holds an NT_PRSTATUS of 336 bytes, pid 0",),
    recoverable=True,
)
ADDED = report(
    ("undescribed-ram", LOST_DIMM),
    ("cpu-without-note", LOST_CPU),
    kernel=topology(LOW | BOOT | DIMM, online=3),
)

PHANTOM = report(
    (
        "described-without-ram",
        Finding(
            Severity.WRONG,
            "the headers describe 128 MiB where the kernel had no RAM",
            ranges=DIMM,
            evidence=("memory blocks: none at 0x100000000",),
        ),
    ),
    header=replace(WHOLE_HEADER, described=WHOLE_HEADER.described | DIMM),
)

BLIND = skipping(
    replace(
        report(),
        topology=replace(
            topology(),
            online_cpus=Unknown("no symbol named __cpu_online_mask"),
            saved_notes=Unknown("no symbol named crash_notes"),
            resources=Resources(
                MemoryAccount(
                    "iomem_resource", BOOT | LOW, ("sibling at 0xffff888100000000: page not stored",)
                ),
                RangeSet(),
            ),
        ),
    ),
    "cpu-never-saved",
    "notes-shifted",
    why="no symbol named crash_notes",
)

LOSS = Loss(
    DIMM,
    pages=LostPages(
        32768,
        32768,
        0,
        (
            PageCount(1, "Normal", PageKind.FREE, 31364),
            PageCount(1, "Normal", PageKind.SLAB, 1204),
            PageCount(1, "Movable", PageKind.ANONYMOUS, 200),
        ),
    ),
    modules=Modules(40, ()),
    per_cpu_areas=frozenset(),
    memmap=RangeSet(),
)
TASKS = Tasks(
    (Task(263, "sh", cpu=0, stack_pages=4, lost_stack_pages=4), Task(None, "", task_struct_lost=True)),
    panic_cpu=0,
)
IMPACT = Impact(
    headline="the crashing task's stack is in missing memory, so its backtrace is cut",
    facts=("1,204 of 32,768 missing pages are slab",),
    effects=(
        Effect("bt", "crash", Use.FAILS, Certainty.CERTAIN, "the stack is missing"),
        Effect("ps", "crash", Use.PARTIAL, Certainty.LIKELY, "two task_structs are missing"),
        Effect("log", "crash", Use.SAFE, Certainty.CERTAIN, "the ring buffer is in boot memory"),
    ),
    loss=LOSS,
    tasks=TASKS,
    recoverable_cpus=(2,),
)
DIAGNOSIS = Diagnosis(
    regime=Conclusion(
        "reload-by-udev",
        "a udev rule reloads the crash kernel after each change",
        Certainty.LIKELY,
        evidence=("kexec_crash_image.file_mode is 0: the header was made by kexec-tools",),
    ),
    causes=(
        Conclusion(
            "added-after-load",
            "memory and a CPU were added after the crash kernel was loaded, and it was not loaded again",
            Certainty.CERTAIN,
            evidence=("the kernel log has no kexec_load after 41.200 s",),
            rules=("undescribed-ram", "cpu-without-note"),
        ),
    ),
    timeline=Timeline(
        (
            Event("boot", seconds=0.0),
            Event("the crash kernel was loaded", not_before=3.5, not_after=41.2),
            Event("memory [0x100000000, 0x108000000) was onlined", seconds=41.2),
            Event("CPU 2 came online", not_before=41.2),
            Event("crash", seconds=52.75),
        ),
        boot=1732353247.25,
        remarks=("the log begins at 0.000 s",),
    ),
    impact=IMPACT,
    next_dump=(Step("load the crash kernel with the kernel's own loader", ("kexec -s -p /boot/vmlinuz",)),),
    this_dump=(Step("read CPU 2's registers from crash_notes"),),
    witnesses=(Comparison("vmcore-dmesg.txt", "kernel log", True, "the same boot, to the last line"),),
)
DIAGNOSED = replace(ADDED, diagnosis=DIAGNOSIS)

MIDDLE = 256 * MiB
TWO_NODES = replace(
    DIAGNOSED,
    topology=replace(
        ADDED.topology,
        nodes={0: RangeSet([(0, MIDDLE)]), 1: RangeSet([(MIDDLE, 512 * MiB)]) | DIMM},
    ),
)
"""Memory and a CPU are missing, all of the memory on the second node."""

HOSTILE = "\x1b[2J\x1b]0;owned\x07<script>alert(1)</script>\u202egnp.exe&amp;'\"\ud800\x00"


def hostile() -> Report:
    """A dump whose every string is an attack on what prints it."""
    return Report(
        replace(
            WHOLE_HEADER,
            path=f"/var/crash/{HOSTILE.replace('/', '_')}",
            machine=HOSTILE,
            compression=HOSTILE,
            vmcoreinfo_notes=(f"OSRELEASE={HOSTILE}\n".encode("utf-8", "surrogatepass"),),
            utsname=(HOSTILE,) * 6,
        ),
        replace(
            topology(),
            source=HOSTILE,
            release=HOSTILE,
            build_id=HOSTILE,
            resources=Resources(MemoryAccount(HOSTILE, BOOT, (HOSTILE,)), RangeSet()),
            excluded=(Exclusion(HOSTILE, CRASH_KERNEL),),
            possible_cpus=Unknown(HOSTILE),
            log=HOSTILE,
            remarks=(HOSTILE,),
            faults=(Fault(HOSTILE, 0x1000, HOSTILE),),
        ),
        (
            Outcome(
                "undescribed-ram",
                State.FOUND,
                (Finding(Severity.LOST, HOSTILE, ranges=DIMM, cpus=(1,), evidence=(HOSTILE,)),),
            ),
            Outcome("cpu-without-note", State.SKIPPED, why=HOSTILE),
        ),
        replace(
            DIAGNOSIS,
            causes=(Conclusion(HOSTILE, HOSTILE, Certainty.LIKELY, (HOSTILE,)),),
            timeline=Timeline((Event(HOSTILE, seconds=1e300),), boot=1e300, remarks=(HOSTILE,)),
            impact=replace(
                IMPACT,
                headline=HOSTILE,
                facts=(HOSTILE,),
                effects=(Effect(HOSTILE, HOSTILE, Use.MISLEADS, Certainty.LIKELY, HOSTILE),),
                loss=replace(
                    LOSS,
                    pages=LostPages(1, 1, 0, (PageCount(1, HOSTILE, PageKind.SLAB, 1),)),
                    modules=Modules(1, (LostModule(HOSTILE, 2, 1),), (HOSTILE,)),
                ),
                tasks=Tasks((Task(1, HOSTILE, 0, True, 4, 4),), 0, (HOSTILE,)),
            ),
            next_dump=(Step(HOSTILE, (HOSTILE, HOSTILE)),),
            witnesses=(Comparison(HOSTILE, HOSTILE, False, HOSTILE),),
        ),
    )


def huge() -> Report:
    """32 TiB, 1,024 CPUs, 500 losses of 256 MiB and the registers of every fourth CPU lost."""
    ram = RangeSet([(0x1000, 0x9F000), (MiB, 2 * GiB), (4 * GiB, 32 * TiB + 2 * GiB)])
    losses = RangeSet([(4 * GiB + n * 64 * GiB, 4 * GiB + n * 64 * GiB + 256 * MiB) for n in range(500)])
    described = ram - losses - CRASH_KERNEL - RangeSet([(0, MiB)])
    stored = RangeSet([(start, min(start + GiB, end)) for start, end in described])
    return report(
        ("undescribed-ram", replace(LOST_DIMM, ranges=losses)),
        ("cpu-without-note", replace(LOST_CPU, cpus=tuple(range(3, 1024, 4)))),
        header=replace(WHOLE_HEADER, described=described, stored=stored, file_size=500 * GiB),
        kernel=topology(
            ram, online=1024, nodes={n: RangeSet([(n * 4 * TiB, (n + 1) * 4 * TiB)]) & ram for n in range(8)}
        ),
    )


def every() -> list[Report]:
    """One of each kind."""
    return [WHOLE, ADDED, DIAGNOSED, TWO_NODES, PHANTOM, BLIND, hostile(), huge()]
