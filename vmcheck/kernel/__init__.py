# SPDX-License-Identifier: LGPL-2.1-or-later
"""A kernel's memory -> Topology. The only home of drgn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar
from uuid import UUID

from drgn import BadDataError, FaultError, ObjectAbsentError, OutOfBoundsError

from vmcheck.errors import VmcheckError
from vmcheck.expected import map_notes, undescribed_ram, written_since_hot_add
from vmcheck.header import DumpHeader, Producer
from vmcheck.kernel import cpus, crash_image, memory, nodes, pages
from vmcheck.kernel.log import kernel_log
from vmcheck.kernel.program import Kernel, Memory, NoWayIn
from vmcheck.ranges import RangeSet
from vmcheck.topology import (
    CrashImage,
    Loss,
    NotKnown,
    SavedNote,
    Topology,
    Unknown,
    from_vmcoreinfo,
    known,
    nothing_known,
)

T = TypeVar("T")
T2 = TypeVar("T2")

# What drgn raises for memory, names, types and values that are not as they should be.
UNREADABLE = (
    FaultError,
    BadDataError,
    OutOfBoundsError,
    ObjectAbsentError,
    LookupError,
    AttributeError,
    ValueError,
    OverflowError,
    TypeError,
    RecursionError,
    MemoryError,
    VmcheckError,
)


def read_topology(
    header: DumpHeader, dump_memory: Memory, symbols: str | None = None, log: bool = True
) -> Topology:
    """What the crashed kernel in a dump's own memory knew.

    Whatever cannot be had is an Unknown that says why; nothing is raised for it. Raises
    VmcheckError for an unfit ``symbols`` file. Without ``log``, the kernel log is left alone.
    """
    try:
        kernel = Kernel(header, dump_memory, symbols)
    except NoWayIn as error:
        return nothing_known(header, str(error))

    def attempt(structure: str, read: Callable[[], T]) -> T | Unknown:
        try:
            with kernel.reading(structure):
                return read()
        except UNREADABLE as error:
            return Unknown(f"{structure}: {_reason(error)}")

    def typed(structure: str, read: Callable[[], T]) -> T | Unknown:
        if not kernel.has_types:
            return Unknown(f"{structure}: the kernel's types are not known")
        return attempt(structure, read)

    table = attempt("mem_section", lambda: memory.SectionTable(kernel))
    tree = typed("iomem_resource", lambda: memory.ResourceTree(kernel))
    listed = _then(
        table, lambda found: typed("memory blocks", lambda: memory.BlockTable(kernel, found.section_size))
    )
    possible = typed("cpu_possible_mask", lambda: cpus.mask(kernel, "possible"))
    topology = Topology(
        source=kernel.source,
        release=from_vmcoreinfo(header, "OSRELEASE"),
        build_id=from_vmcoreinfo(header, "BUILD-ID"),
        symbols_build_id=kernel.symbols_build_id,
        sections=_then(table, lambda found: attempt("mem_section", lambda: memory.sections(found))),
        resources=_then(tree, lambda found: attempt("iomem_resource", lambda: memory.resources(found))),
        blocks=_then(listed, lambda found: attempt("memory blocks", lambda: memory.blocks(found))),
        excluded=_then(tree, lambda found: attempt("crashk_res", lambda: memory.excluded(kernel, found))),
        possible_cpus=possible,
        present_cpus=typed("cpu_present_mask", lambda: cpus.mask(kernel, "present")),
        online_cpus=typed("cpu_online_mask", lambda: cpus.mask(kernel, "online")),
        saved_notes=_then(
            possible, lambda found: attempt("crash_notes", lambda: cpus.saved_notes(kernel, found))
        ),
        crash_image=typed("kexec_crash_image", lambda: crash_image.crash_image(kernel)),
        log=attempt("printk ring buffer", lambda: kernel_log(kernel)) if log else Unknown("left out"),
        page_offset=typed("page_offset_base", lambda: int(kernel.prog["page_offset_base"])),
        filtered_slab=_then(
            table, lambda found: attempt("struct page", lambda: pages.filtered_slab(kernel, found))
        ),
        banner=attempt("linux_banner", lambda: _banner(kernel)),
        boot_id=attempt("sysctl_bootid", lambda: _boot_id(kernel)) if log else Unknown("left out"),
        crash_hotplug=typed("struct kimage", lambda: _has_crash_hotplug(kernel)),
        nodes=_then(table, lambda found: attempt("NUMA nodes", lambda: nodes.nodes(kernel, found, listed))),
        faults=tuple(kernel.faults),
        remarks=tuple(kernel.remarks),
    )
    missing = _missing_memory(header, topology)
    if not (missing or _lacks_registers(header, topology) or _user_space_kept_up(header, topology)):
        return topology
    # Here, for most dumps lack nothing and their check need not import these.
    from vmcheck.kernel import impact, tasks

    # Faults from here on are the loss itself, which is told as such.
    running = topology.online_cpus
    walked = _then(running, lambda cpus: typed("tasks", lambda: tasks.read_tasks(kernel, missing, cpus)))
    sections = topology.sections
    loss: Loss | Unknown | None = None
    if isinstance(table, Unknown) or isinstance(sections, Unknown):
        loss = Unknown("mem_section could not be read") if missing else None
    elif missing:
        loss = Loss(
            missing,
            pages=attempt("struct page", lambda: impact.lost_pages(kernel, table, missing)),
            modules=typed("modules", lambda: impact.modules(kernel, missing)),
            per_cpu_areas=_then(
                possible,
                lambda cpus: typed("per-CPU areas", lambda: impact.per_cpu_areas(kernel, missing, cpus)),
            ),
            memmap=attempt("vmemmap", lambda: impact.memmap(kernel, table, sections, missing)),
        )
    return replace(topology, tasks=walked, loss=loss)


def _missing_memory(header: DumpHeader, topology: Topology) -> RangeSet:
    """What no header describes, and what a truncated or incomplete file does not hold after all."""
    try:
        return undescribed_ram(header, topology) | header.cut
    except NotKnown:
        return header.cut


def _lacks_registers(header: DumpHeader, topology: Topology) -> bool:
    """Whether an online CPU's registers are not in the notes, or were never saved."""
    try:
        saved, online = known(topology.saved_notes), known(topology.online_cpus)
        return bool(map_notes(header, topology).without) or any(
            saved.get(cpu) == SavedNote(b"") for cpu in online
        )
    except NotKnown:
        return False


def _user_space_kept_up(header: DumpHeader, topology: Topology) -> bool:
    """Whether hot-added memory is described, and not by the kernel: the tasks may tell who loaded anew."""
    image = topology.crash_image
    if header.producer is Producer.HYPERVISOR or not isinstance(image, CrashImage) or image.hotplug_support:
        return False
    return written_since_hot_add(header, topology)


def _banner(kernel: Kernel) -> str:
    text = bytes(kernel.prog["linux_banner"].string_())
    return text.decode("utf-8", "backslashreplace").strip()


def _boot_id(kernel: Kernel) -> str | Unknown:
    """/proc/sys/kernel/random/boot_id is generated when it is first read; systemd always does."""
    value = bytes(kernel.prog["sysctl_bootid"].value_())
    return str(UUID(bytes=value)) if any(value) else Unknown("sysctl_bootid was never generated")


def _has_crash_hotplug(kernel: Kernel) -> bool:
    """elfcorehdr_updated is CONFIG_CRASH_HOTPLUG's."""
    return bool(kernel.prog.type("struct kimage").has_member("elfcorehdr_updated"))


def _then(fact: T | Unknown, use: Callable[[T], T2 | Unknown]) -> T2 | Unknown:
    return fact if isinstance(fact, Unknown) else use(fact)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
