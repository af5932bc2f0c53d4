# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a kernel knew of its memory and CPUs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from vmcheck.exclusions import Exclusion
from vmcheck.header import DumpHeader
from vmcheck.ranges import RangeSet

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


@dataclass(frozen=True)
class Sections:
    """``mem_section``: memory in units of ``size`` bytes (SECTION_SIZE_BITS)."""

    size: int
    account: MemoryAccount
    """SECTION_IS_ONLINE. Whole sections: holes inside one are not told."""
    present: RangeSet
    """SECTION_MARKED_PRESENT: has a memory map; includes offline and device memory."""
    early: RangeSet
    """SECTION_IS_EARLY: there since boot. An online section without it was hot-added."""


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
    faults: tuple[Fault, ...] = ()
    """Every page that was asked for and is not in the dump, in the order met."""
    remarks: tuple[str, ...] = ()
    """What the reader of this topology should know, such as a fall-back that was taken."""

    @property
    def system_ram(self) -> RangeSet | Unknown:
        """System RAM resources that are online: memory added and never onlined is no loss.

        Online is told by the sections, or by memory blocks where those could not be read.
        """
        if isinstance(self.resources, Unknown):
            return self.resources
        if isinstance(self.sections, Unknown) and isinstance(self.blocks, Unknown):
            return self.sections
        online = [fact.account.ram for fact in (self.sections, self.blocks) if not isinstance(fact, Unknown)]
        return self.resources.account.ram & online[0]


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
