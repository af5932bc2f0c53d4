# SPDX-License-Identifier: LGPL-2.1-or-later
"""A kernel's memory -> Topology. The only home of drgn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar
from uuid import UUID

from drgn import BadDataError, FaultError, ObjectAbsentError, OutOfBoundsError

from vmcheck.errors import VmcheckError
from vmcheck.facts.body import PageUse
from vmcheck.facts.header import DumpHeader
from vmcheck.facts.ranges import RangeSet
from vmcheck.facts.topology import (
    Loss,
    Topology,
    Unknown,
    from_vmcoreinfo,
)
from vmcheck.kernel import cpus, crash_image, kernel_data, memory, nodes, pages, shapes
from vmcheck.kernel.log import kernel_log
from vmcheck.kernel.program import Kernel, Memory

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
    ArithmeticError,
    TypeError,
    RecursionError,
    # An integer that is wider than drgn reads.
    NotImplementedError,
    MemoryError,
    VmcheckError,
)


class Reading:
    """One kernel's memory, open to be read: what it had, then, where something is missing, what that was.

    Whatever cannot be read is an Unknown that says why; nothing is raised for it.
    """

    def __init__(self, header: DumpHeader, dump_memory: Memory, symbols: str | None = None) -> None:
        """Raises NoWayIn where the kernel cannot be asked, VmcheckError for an unfit ``symbols`` file."""
        self._kernel = Kernel(header, dump_memory, symbols)
        self._table = self._attempt("mem_section", lambda: memory.SectionTable(self._kernel))

    def _attempt(self, structure: str, read: Callable[[], T]) -> T | Unknown:
        try:
            with self._kernel.reading(structure):
                return read()
        except UNREADABLE as error:
            return Unknown(f"{structure}: {_reason(error)}")

    def _typed(self, structure: str, read: Callable[[], T]) -> T | Unknown:
        if not self._kernel.has_types:
            return Unknown(f"{structure}: the kernel's types are not known")
        return self._attempt(structure, read)

    def topology(self, log: bool = True) -> Topology:
        """What the kernel knew. Without ``log``, the kernel log and the boot's identity are left alone."""
        kernel, table, attempt, typed = self._kernel, self._table, self._attempt, self._typed
        tree = typed("iomem_resource", lambda: memory.ResourceTree(kernel))
        listed = _then(
            table, lambda found: typed("memory blocks", lambda: memory.BlockTable(kernel, found.section_size))
        )
        possible = typed("cpu_possible_mask", lambda: cpus.mask(kernel, "possible"))
        topology = Topology(
            source=kernel.source,
            release=from_vmcoreinfo(kernel.header, "OSRELEASE"),
            build_id=kernel.build_id() or Unknown("VMCOREINFO has no BUILD-ID, nor has the kernel"),
            symbols_build_id=kernel.symbols_build_id,
            sections=_then(
                table, lambda found: attempt("mem_section", lambda: memory.sections(found, listed))
            ),
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
            page_offset=typed("page_offset_base", lambda: _address(kernel, "page_offset_base")),
            filtered_slab=_then(
                table, lambda found: attempt("struct page", lambda: pages.filtered_slab(kernel, found))
            ),
            banner=attempt("linux_banner", lambda: _banner(kernel)),
            boot_id=attempt("sysctl_bootid", lambda: _boot_id(kernel)) if log else Unknown("left out"),
            crash_hotplug=typed("struct kimage", lambda: _has_crash_hotplug(kernel)),
            nodes=_then(
                table, lambda found: attempt("NUMA nodes", lambda: nodes.nodes(kernel, found, listed))
            ),
        )
        data = _then(
            table,
            lambda sections: _then(
                tree,
                lambda resources: attempt(
                    "kernel memory", lambda: kernel_data.kernel_data(kernel, resources, sections, topology)
                ),
            ),
        )
        return replace(topology, kernel_data=data, faults=tuple(kernel.faults), remarks=tuple(kernel.remarks))

    def uses(self, topology: Topology, damaged: RangeSet) -> tuple[PageUse, ...]:
        """What the kernel used ``damaged`` pages for: its own memory by exact sets, others by struct page."""
        from vmcheck.kernel import impact

        kernel, table = self._kernel, self._table
        if isinstance(table, Unknown):
            return ()
        tree = self._typed("iomem_resource", lambda: memory.ResourceTree(kernel))
        parts = _then(
            tree,
            lambda found: self._attempt(
                "kernel memory", lambda: kernel_data.kernel_parts(kernel, found, table, topology)[0]
            ),
        )
        page, uses, rest = kernel.header.page_size, list[PageUse](), damaged
        for name, ranges in ({} if isinstance(parts, Unknown) else parts).items():
            if ours := ranges & rest:
                uses.append(PageUse(name, ours.size // page))
                rest -= ours
        others = self._attempt("struct page", lambda: impact.lost_pages(kernel, table, rest))
        looked_at = 0
        if rest and not isinstance(others, Unknown):
            looked_at = others.looked_at
            for kind in dict.fromkeys(count.kind for count in others.counts):
                number = sum(count.pages for count in others.counts if count.kind is kind)
                uses.append(PageUse(kind.value, number))
        if unknown := rest.size // page - looked_at:
            uses.append(PageUse("not known", unknown))
        return tuple(uses)

    def loss(self, topology: Topology, missing: RangeSet) -> Topology:
        """``topology`` with the kernel's tasks, and with what ``missing`` memory was where there is some."""
        from vmcheck.kernel import impact, task_list, tasks

        kernel, table, attempt, typed = self._kernel, self._table, self._attempt, self._typed
        if kernel.by_shape:
            walked = attempt("tasks", lambda: task_list.read_task_list(kernel))
        else:
            walked = _then(
                topology.online_cpus,
                lambda cpus: typed("tasks", lambda: tasks.read_tasks(kernel, missing, cpus)),
            )
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
                    topology.possible_cpus,
                    lambda cpus: typed("per-CPU areas", lambda: impact.per_cpu_areas(kernel, missing, cpus)),
                ),
                memmap=attempt("vmemmap", lambda: impact.memmap(kernel, table, sections, missing)),
            )
        return replace(topology, tasks=walked, loss=loss)


def _address(kernel: Kernel, variable: str) -> int:
    value = int(kernel.prog[variable])
    if not 0 <= value < 1 << kernel.header.bits:
        raise ValueError(f"{value:#x} is no address")
    return value


def _banner(kernel: Kernel) -> str:
    text = bytes(kernel.prog["linux_banner"].string_())
    return text.decode("utf-8", "backslashreplace").strip()


def _boot_id(kernel: Kernel) -> str | Unknown:
    """/proc/sys/kernel/random/boot_id is generated when it is first read; systemd always does."""
    value = bytes(kernel.prog["sysctl_bootid"].value_())
    return str(UUID(bytes=value)) if any(value) else Unknown("sysctl_bootid was never generated")


def _has_crash_hotplug(kernel: Kernel) -> bool:
    """elfcorehdr_updated is CONFIG_CRASH_HOTPLUG's."""
    if kernel.by_shape:
        return shapes.has_crash_hotplug(kernel)
    return bool(kernel.prog.type("struct kimage").has_member("elfcorehdr_updated"))


def _then(fact: T | Unknown, use: Callable[[T], T2 | Unknown]) -> T2 | Unknown:
    return fact if isinstance(fact, Unknown) else use(fact)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
