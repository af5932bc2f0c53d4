# SPDX-License-Identifier: LGPL-2.1-or-later
"""A kernel's memory -> Topology. The only home of drgn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from drgn import FaultError

from vmcheck.errors import VmcheckError
from vmcheck.header import DumpHeader
from vmcheck.kernel import cpus, crash_image, memory, pages
from vmcheck.kernel.log import kernel_log
from vmcheck.kernel.program import Kernel, Memory
from vmcheck.topology import Topology, Unknown, from_vmcoreinfo, nothing_known

T = TypeVar("T")
T2 = TypeVar("T2")

# What drgn raises for memory, names, types and values that are not as they should be.
_UNREADABLE = (
    FaultError,
    LookupError,
    AttributeError,
    ValueError,
    OverflowError,
    TypeError,
    RecursionError,
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
    except VmcheckError as error:
        if symbols is not None:
            raise
        return nothing_known(header, str(error))

    def attempt(structure: str, read: Callable[[], T]) -> T | Unknown:
        try:
            with kernel.reading(structure):
                return read()
        except _UNREADABLE as error:
            return Unknown(f"{structure}: {_reason(error)}")

    def typed(structure: str, read: Callable[[], T]) -> T | Unknown:
        if not kernel.has_types:
            return Unknown(f"{structure}: the kernel's types are not known")
        return attempt(structure, read)

    table = attempt("mem_section", lambda: memory.SectionTable(kernel))
    tree = typed("iomem_resource", lambda: memory.ResourceTree(kernel))
    possible = typed("cpu_possible_mask", lambda: cpus.mask(kernel, "possible"))
    return Topology(
        source=kernel.source,
        release=from_vmcoreinfo(header, "OSRELEASE"),
        build_id=from_vmcoreinfo(header, "BUILD-ID"),
        symbols_build_id=kernel.symbols_build_id,
        sections=_then(table, lambda found: attempt("mem_section", lambda: memory.sections(found))),
        resources=_then(tree, lambda found: attempt("iomem_resource", lambda: memory.resources(found))),
        blocks=_then(
            table, lambda found: typed("memory blocks", lambda: memory.blocks(kernel, found.section_size))
        ),
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
        faults=tuple(kernel.faults),
        remarks=tuple(kernel.remarks),
    )


def _then(fact: T | Unknown, use: Callable[[T], T2 | Unknown]) -> T2 | Unknown:
    return fact if isinstance(fact, Unknown) else use(fact)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
