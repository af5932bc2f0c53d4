# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a kernel knew of its memory and CPUs."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple, TypeVar

from vmcheck.facts.exclusions import Exclusion
from vmcheck.facts.header import DumpHeader
from vmcheck.facts.ranges import EMPTY, RangeSet

T = TypeVar("T")


@dataclass(frozen=True)
class Unknown:
    """A fact that could not be read, and why."""

    why: str


class NotKnown(Exception):
    """A rule needs a fact that is :class:`Unknown`."""


def known(fact: T | Unknown) -> T:
    """``fact``, or :class:`NotKnown` where it is Unknown, which skips the rule that asked."""
    if isinstance(fact, Unknown):
        raise NotKnown(fact.why)
    return fact


@dataclass(frozen=True)
class Fault:
    """Memory that a walk needed and the dump does not hold."""

    structure: str
    """What was being read: ``iomem_resource``, ``crash_notes``..."""
    address: int
    """Physical."""
    why: str


@dataclass(frozen=True)
class MemoryAccount:
    """One kernel structure's account of which memory is RAM in use."""

    structure: str
    """``mem_section``, ``iomem_resource`` or ``memory blocks``."""
    ram: RangeSet
    unread: tuple[str, ...] = ()
    """Where the walk had to stop and why. Empty when the account is whole."""

    @property
    def complete(self) -> bool:
        return not self.unread


class EarlyBy(str, enum.Enum):
    """What shows which sections were there at boot."""

    FLAG = "SECTION_IS_EARLY"
    """Since Linux kernel commit 326e1b8f83a4 (in v5.3)."""
    FIRMWARE = "the firmware's memory map"
    """e820: a section with none of its RAM was added later."""

    @property
    def early(self) -> str:
        """What sections that were there at boot are seen by."""
        if self is EarlyBy.FLAG:
            return "have SECTION_IS_EARLY"
        return "have RAM of the firmware's memory map at boot"

    @property
    def hot_added(self) -> str:
        """What sections that were added after boot are seen by."""
        if self is EarlyBy.FLAG:
            return "lack SECTION_IS_EARLY"
        return "have no RAM of the firmware's memory map at boot"


@dataclass(frozen=True)
class Sections:
    """``mem_section``: memory in units of ``size`` bytes (SECTION_SIZE_BITS)."""

    size: int
    account: MemoryAccount
    """SECTION_IS_ONLINE. Whole sections: holes inside one are not seen."""
    present: RangeSet
    """SECTION_MARKED_PRESENT: has a memory map; includes offline and device memory."""
    early: RangeSet | Unknown
    """There since boot. An online section that is not among them was hot-added."""
    early_by: EarlyBy = EarlyBy.FLAG


@dataclass(frozen=True)
class Resources:
    """``iomem_resource``: what /proc/iomem prints."""

    account: MemoryAccount
    """IORESOURCE_SYSTEM_RAM and IORESOURCE_BUSY, at any depth: online or not."""
    driver_managed: RangeSet
    """System RAM of a driver: "System RAM (kmem)", "System RAM (virtio_mem)"."""


@dataclass(frozen=True)
class Blocks:
    """Memory blocks: what /sys/devices/system/memory lists."""

    size: int
    account: MemoryAccount
    """Blocks in state MEM_ONLINE."""
    offline: RangeSet
    """Blocks in any other state."""


@dataclass(frozen=True)
class SavedNote:
    """A CPU's ``crash_notes``: what crash_save_cpu() wrote there, whether or not the dump has it."""

    descriptor: bytes
    """``struct elf_prstatus``; empty where the CPU never saved."""


@dataclass(frozen=True)
class CrashImage:
    """``kexec_crash_image``: the loaded crash kernel. A member that this kernel lacks is None."""

    segments: tuple[tuple[int, int, int], ...]
    """(mem, memsz, bufsz) of each: physical address, bytes reserved, bytes given by user space."""
    file_mode: bool | None
    """kexec_file_load, where the kernel builds elfcorehdr; else kexec_load, where kexec-tools does."""
    hotplug_support: bool | None
    """The kernel itself rewrites elfcorehdr on hotplug; None: this kernel cannot."""
    elfcorehdr_index: int | None
    elfcorehdr_updated: bool | None
    """The kernel tried at least once. Not a proof that it succeeded."""


@dataclass(frozen=True)
class SlabSample:
    """A sample of the pages that are described and not stored, judged by their struct pages."""

    pages: int
    """How many were looked at."""
    slab: RangeSet
    """Those among them that head a slab: kernel data, which no dump level excludes."""


class KernelPart(NamedTuple):
    """A part of the kernel's own memory, which every dump level keeps."""

    name: str
    """``kernel text``, ``per-CPU areas``..."""
    size: int
    """Bytes of it that were looked for, page by page."""
    filtered: RangeSet
    """Pages of it that are described and not stored, though the kernel uses them."""


@dataclass(frozen=True)
class KernelData:
    """The kernel's own memory by exact sets. Empty where the dump filters no page."""

    parts: tuple[KernelPart, ...] = ()
    unread: tuple[str, ...] = ()
    """Why a part is unknown. Empty where every page of all parts was looked for."""


class Task(NamedTuple):
    """One thread. Where its task_struct lies in missing memory, its ``struct pid`` may tell its PID."""

    pid: int | None
    name: str
    """``comm``; empty where the task_struct could not be read."""
    cpu: int | None = None
    """The CPU that was running it at the crash."""
    task_struct_lost: bool = False
    stack_pages: int = 0
    """Pages of its kernel stack; 0 where the stack could not be found."""
    lost_stack_pages: int = 0
    """How many of them lie in missing memory."""


@dataclass(frozen=True)
class Tasks:
    """The threads, found by their PIDs and by the CPUs that ran them."""

    tasks: tuple[Task, ...]
    """By PID, those of unknown PID last. Idle tasks, all of PID 0, only where they were running."""
    panic_cpu: int | None = None
    """The CPU that the kernel crashed on."""
    unread: tuple[str, ...] = ()
    """Where the walk had to stop and why. Empty when every PID was seen."""
    pid_table_lost: bool = False
    """A node of the PID table, or a struct pid that it leads to, cannot be read."""

    @property
    def crashed(self) -> Task | None:
        """The task that was running where the kernel crashed."""
        return next(
            (task for task in self.tasks if task.cpu is not None and task.cpu == self.panic_cpu), None
        )

    @property
    def lost(self) -> tuple[Task, ...]:
        """Those with a task_struct or a part of their kernel stack in missing memory."""
        return tuple(task for task in self.tasks if task.task_struct_lost or task.lost_stack_pages)


class PageKind(str, enum.Enum):
    """What a page was in use for, by its struct page."""

    FREE = "free"
    SLAB = "slab"
    ANONYMOUS = "anonymous"
    """Memory of processes, and of virtual machines."""
    PAGE_CACHE = "page cache"
    PAGE_TABLE = "page table"
    HUGETLB = "hugetlb"
    RESERVED = "reserved"
    """PG_reserved: set aside at boot, or holding the memory map of its own block."""
    OFFLINE = "offline"
    """Taken away by a balloon or virtio-mem."""
    POISONED = "hardware-poisoned"
    KERNEL = "other kernel use"
    """Allocated with no mark of its own: kernel stacks, vmalloc, modules, per-CPU memory, drivers."""


class PageCount(NamedTuple):
    node: int | None
    """NUMA node."""
    zone: str | None
    """``Normal``, ``Movable``..., as /proc/zoneinfo has it."""
    kind: PageKind
    pages: int


@dataclass(frozen=True)
class LostPages:
    """What the pages of missing memory were, from struct pages that are in the dump."""

    pages: int
    """Pages of missing memory in all."""
    looked_at: int
    """Whose struct page was read. Fewer than ``pages`` where they were sampled or unread."""
    unread: int
    """Whose struct page was wanted and is not in the dump, as with memmap_on_memory."""
    counts: tuple[PageCount, ...]
    """Of those looked at, most pages first."""

    @property
    def sampled(self) -> bool:
        return self.looked_at + self.unread < self.pages

    def share(self, kind: PageKind) -> float:
        """Of the pages looked at, 0 to 1."""
        found = sum(count.pages for count in self.counts if count.kind is kind)
        return found / self.looked_at if self.looked_at else 0.0


class LostModule(NamedTuple):
    name: str
    pages: int
    lost_pages: int


@dataclass(frozen=True)
class Modules:
    """The loaded kernel modules."""

    count: int
    lost: tuple[LostModule, ...]
    """Those with memory that is missing."""
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loss:
    """What lay in missing memory: what no header describes, and what a file that was cut off lacks."""

    memory: RangeSet
    pages: LostPages | Unknown
    modules: Modules | Unknown
    per_cpu_areas: frozenset[int] | Unknown
    """CPUs with their static per-CPU area there: their runqueue, current task, crash_notes."""
    memmap: RangeSet | Unknown
    """Hot-added memory that has its struct pages there."""


@dataclass(frozen=True)
class Topology:
    """A kernel's memory and CPUs, and how its elfcorehdr was kept fresh."""

    source: str
    """Which kernel was asked and how."""
    release: str | Unknown
    build_id: str | Unknown
    symbols_build_id: str | None
    """Of the vmlinux or symbol file that the user gave."""
    sections: Sections | Unknown
    resources: Resources | Unknown
    blocks: Blocks | Unknown
    excluded: tuple[Exclusion, ...] | Unknown
    """What a healthy header leaves out."""
    possible_cpus: frozenset[int] | Unknown
    present_cpus: frozenset[int] | Unknown
    online_cpus: frozenset[int] | Unknown
    """At the crash, as far as the crash path left the mask alone."""
    saved_notes: Mapping[int, SavedNote | Unknown] | Unknown
    """``crash_notes`` of each possible CPU."""
    crash_image: CrashImage | Unknown | None
    """None: no crash kernel was loaded."""
    log: str | Unknown = Unknown("the kernel log was not read")
    page_offset: int | Unknown = Unknown("the direct map's base was not read")
    """Virtual address of physical address 0 in the direct map."""
    filtered_slab: SlabSample | Unknown = Unknown("struct pages were not read")
    kernel_data: KernelData | Unknown = Unknown("the kernel's own memory was not looked for")
    """Kernel text, data, per-CPU areas and struct pages: which of their pages are filtered."""
    banner: str | Unknown = Unknown("linux_banner was not read")
    """``Linux version 6.1.0-56-amd64 (...) #1 SMP ...``, as the log begins; it names the distribution."""
    boot_id: str | Unknown = Unknown("sysctl_bootid was not read")
    """As /proc/sys/kernel/random/boot_id prints it; nothing generates it before the first reader."""
    crash_hotplug: bool | Unknown = Unknown("the kernel's symbols were not read")
    """The kernel has CONFIG_CRASH_HOTPLUG: it can rewrite elfcorehdr, whether or not it was asked to."""
    nodes: Mapping[int, RangeSet] | Unknown = Unknown("NUMA nodes were not read")
    """Memory of each NUMA node by its number, online or not; whole blocks or sections."""
    crash_reserved: int | None = None
    """Bytes set aside for a crash kernel (crashkernel=). None: only asked of a running kernel."""
    tasks: Tasks | Unknown = Unknown("nothing is missing, so the tasks were not read")
    loss: Loss | Unknown | None = None
    """None: no memory is missing, or it is not known."""
    faults: tuple[Fault, ...] = ()
    """Every page that was asked for and is not in the dump, in the order met."""
    remarks: tuple[str, ...] = ()
    """What the reader of this topology should know, such as a fall-back that was taken."""

    @property
    def system_ram(self) -> RangeSet | Unknown:
        """System RAM resources that are online: memory added and never onlined is no loss.

        Memory is online where the sections or the memory blocks say so: each may be damaged.
        """
        if isinstance(self.resources, Unknown):
            return self.resources
        if isinstance(self.sections, Unknown) and isinstance(self.blocks, Unknown):
            return self.sections
        online = (fact.account.ram for fact in (self.sections, self.blocks) if not isinstance(fact, Unknown))
        return self.resources.account.ram & reduce(RangeSet.__or__, online)

    @property
    def disputed(self) -> RangeSet:
        """Memory that mem_section has online where no System RAM resource is, though all were read.

        In whole sections. A resource tree that a damaged pointer cuts short looks whole.
        """
        if isinstance(self.resources, Unknown) or isinstance(self.sections, Unknown):
            return EMPTY
        if not self.resources.account.complete:
            return EMPTY
        return self.sections.account.ram - self.resources.account.ram.aligned_outward(self.sections.size)


def from_vmcoreinfo(header: DumpHeader, key: str) -> str | Unknown:
    """An item that needs no reading of memory."""
    return header.vmcoreinfo.get(key) or Unknown(f"VMCOREINFO has no {key}")


def nothing_known(header: DumpHeader, why: str) -> Topology:
    """The topology of a kernel that could not be asked."""
    unknown = Unknown(why)
    return Topology(
        source="no kernel could be asked",
        release=from_vmcoreinfo(header, "OSRELEASE"),
        build_id=from_vmcoreinfo(header, "BUILD-ID"),
        symbols_build_id=None,
        sections=unknown,
        resources=unknown,
        blocks=unknown,
        excluded=unknown,
        possible_cpus=unknown,
        present_cpus=unknown,
        online_cpus=unknown,
        saved_notes=unknown,
        crash_image=unknown,
        log=unknown,
        page_offset=unknown,
        filtered_slab=unknown,
    )
