# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel's own memory, by exact sets of pages: is each page stored that no dump level excludes?

Kernel text, rodata, data and bss, the static per-CPU areas, and the struct pages of online
memory. A page table on the way to them that is not stored is a Fault of the Kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise

import numpy as np
from drgn import FaultError

from vmcheck.facts.header import Format
from vmcheck.facts.ranges import EMPTY, RangeSet
from vmcheck.facts.topology import KernelData, KernelPart, NotKnown, Topology, Unknown, known
from vmcheck.kernel.memory import ResourceTree, SectionTable
from vmcheck.kernel.pages import column
from vmcheck.kernel.program import Kernel

IMAGE = (
    ("kernel text", "Kernel code", "_stext", "_etext"),
    ("kernel rodata", "Kernel rodata", "__start_rodata", "__end_rodata"),
    ("kernel data", "Kernel data", "_sdata", "_edata"),
    ("kernel bss", "Kernel bss", "__bss_start", "__bss_stop"),
)
"""What a part is called, its resource, and its symbols where no resource names it."""
FLAG_BITS = 20
"""Of page.flags that every kernel since v3.10 has; zone, node and others are above."""
NONZERO_VARIABLES = ("idt_table", "init_task", "linux_banner")
UNIT = 2 << 20
"""Bytes of virtual memory that are first taken for one mapping."""
MAX_TRANSLATIONS = 1 << 15
"""Of virtual addresses: about half a second."""
MAX_RUNS = 1 << 12
"""Runs of filtered pages that are looked at by their struct pages."""
MEMMAP = "struct pages of online memory"
NEVER_FREED = frozenset({"kernel text", MEMMAP})
"""Parts of which the kernel frees nothing, and that have no page of zeros."""


class _Mapped:
    """Physical memory behind virtual memory, exactly, in few translations."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._left = MAX_TRANSLATIONS
        self.unread: dict[str, None] = {}
        """Why a part could not be translated, each reason once."""

    def physical(self, name: str, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Physical ``[start, end)`` of virtual ``[start, end)``, in whole pages."""
        page = self._kernel.header.page_size
        bounds = [start // page * page, *range((start // UNIT + 1) * UNIT, end, UNIT), -(-end // page) * page]
        for first, last in pairwise(bounds):
            try:
                yield from self._exact(first, last)
            except FaultError as error:
                self.unread[f"{name} cannot be translated: {error}"] = None
                if self._left <= 0:
                    return

    def _exact(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        page = self._kernel.header.page_size
        if self._left <= 0:
            raise FaultError("too many mappings to look at all", start)
        self._left -= 2
        first, entry = self._kernel.mapping(start)
        last, last_entry = self._kernel.mapping(end - page)
        if start + page >= end or entry == last_entry:
            # One entry of a page table maps both: all between them is one mapping.
            yield first, last + page
            return
        middle = (start + (end - start) // 2) // page * page
        yield from self._exact(start, middle)
        yield from self._exact(middle, end)


def kernel_data(
    kernel: Kernel, tree: ResourceTree, table: SectionTable, topology: Topology
) -> KernelData | Unknown:
    """Which pages of the kernel's own memory are described and not stored.

    makedumpfile's ELF leaves pages of zeros out, which read as zeros: there a page counts only
    where it cannot be one of zeros.
    """
    page = kernel.header.page_size
    filtered = kernel.header.filtered.aligned_inward(page)
    if not filtered:
        return KernelData()
    parts, unread = kernel_parts(kernel, tree, table, topology)
    nonzero = _nonzero(kernel) if kernel.header.format is Format.ELF else None
    found = []
    for name, ranges in parts.items():
        gone = ranges & filtered
        if nonzero is not None and name not in NEVER_FREED:
            gone &= nonzero
        if name == "kernel bss":
            gone -= _decrypted(kernel, ranges)
        if gone and name not in NEVER_FREED:
            reserved, unknown = _reserved(kernel, table, gone)
            if unknown:
                unread[f"{name}: whether {unknown.size // page} filtered pages were freed is unknown"] = None
            gone = reserved
        found.append(KernelPart(name, ranges.size, gone))
    return KernelData(tuple(found), tuple(unread))


def kernel_parts(
    kernel: Kernel, tree: ResourceTree, table: SectionTable, topology: Topology
) -> tuple[dict[str, RangeSet], dict[str, None]]:
    """The kernel's own memory by name, and why a part of it is unknown, each reason once."""
    page = kernel.header.page_size
    mapped = _Mapped(kernel)
    unread: dict[str, None] = {}
    parts = dict[str, RangeSet]()
    for name, resource, first, last in IMAGE:
        start, end = (kernel.symbols.address(each) if kernel.symbols else None for each in (first, last))
        if ranges := tree.named(resource):
            parts[name] = ranges.aligned_outward(page)
        elif start is not None and end is not None and start < end:
            parts[name] = RangeSet(mapped.physical(name, start, end))
        elif name == "kernel text":
            unread["neither a resource nor symbols name the kernel's text"] = None
    with suppress(NotKnown):
        parts["per-CPU areas"] = _per_cpu_areas(kernel, mapped, known(topology.possible_cpus))
    with suppress(NotKnown):
        parts[MEMMAP] = _memmap(kernel, table, mapped, known(topology.system_ram))
    unread.update(mapped.unread)
    return parts, unread


def _per_cpu_areas(kernel: Kernel, mapped: _Mapped, cpus: frozenset[int]) -> RangeSet:
    """The static per-CPU variables of each possible CPU."""
    start, end = (
        kernel.symbols.address(name) if kernel.symbols else None
        for name in ("__per_cpu_start", "__per_cpu_end")
    )
    if start is None or end is None or not start < end <= start + UNIT:
        # A kernel for one CPU has none.
        return EMPTY
    offsets = kernel.prog["__per_cpu_offset"]
    top = 1 << kernel.header.bits
    return RangeSet(
        piece
        for cpu in sorted(cpus)
        for piece in mapped.physical(
            f"the per-CPU area of CPU {cpu}",
            (start + int(offsets[cpu])) % top,
            (start + int(offsets[cpu])) % top + end - start,
        )
    )


def _memmap(kernel: Kernel, table: SectionTable, mapped: _Mapped, ram: RangeSet) -> RangeSet:
    """The pages that hold nothing but struct pages of ``ram``."""
    size, page = kernel.vmcoreinfo_number("SIZE(page)"), kernel.header.page_size
    if not 8 <= size <= 256:
        raise LookupError(f"VMCOREINFO has SIZE(page)={size}")
    virtual = []
    for start, end in ram:
        edges = [
            start,
            *range((start // table.section_size + 1) * table.section_size, end, table.section_size),
        ]
        for first, last in pairwise([*edges, end]):
            address = table.page_struct(first // page, size)
            if address is not None and table.has_memory_map(first // page):
                begin, stop = address, address + (last - first) // page * size
                virtual.append((-(-begin // page) * page, stop // page * page))
    top = 1 << kernel.header.bits
    pieces = _joined(sorted(bounds for bounds in virtual if bounds[0] < bounds[1] <= top))
    return RangeSet(piece for start, end in pieces for piece in mapped.physical("the memory map", start, end))


def _joined(pieces: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Sorted pieces, those that touch as one: with vmemmap, whole nodes."""
    begin = end = 0
    for start, stop in pieces:
        if start > end:
            if begin < end:
                yield begin, end
            begin = start
        end = max(end, stop)
    if begin < end:
        yield begin, end


def _nonzero(kernel: Kernel) -> RangeSet:
    """Pages of the kernel's variables that always hold something."""
    found, page = [], kernel.header.page_size
    for name in NONZERO_VARIABLES:
        address = kernel.symbols.address(name) if kernel.symbols else None
        if address is not None:
            with suppress(FaultError):
                place = kernel.physical(address) // page * page
                found.append((place, place + page))
    return RangeSet(found)


def _decrypted(kernel: Kernel, bss: RangeSet) -> RangeSet:
    """The part of bss that mem_encrypt_free_decrypted_mem() frees on x86 without memory encryption.

    Since Linux kernel commit b3f0907c71e0 ("x86/mm: Add .bss..decrypted section to hold shared
    variables") (in v4.20).
    """
    names = ("__bss_start", "__start_bss_decrypted_unused", "__end_bss_decrypted")
    begin, start, end = (kernel.symbols.address(name) if kernel.symbols else None for name in names)
    if begin is None or start is None or end is None or not begin <= start < end or len(bss) != 1:
        return EMPTY
    ((place, _),) = bss
    return RangeSet([(place + start - begin, place + end - begin)]) & bss


def _reserved(kernel: Kernel, table: SectionTable, pages: RangeSet) -> tuple[RangeSet, RangeSet]:
    """Those pages that are still the kernel's (PG_reserved), and those without a readable struct page.

    The kernel frees parts of its image, such as init memory, and clears PG_reserved then.
    """
    size, page = kernel.vmcoreinfo_number("SIZE(page)"), kernel.header.page_size
    bit = _reserved_bit(kernel, table, size)
    reserved, unknown = list[tuple[int, int]](), list[tuple[int, int]]()
    for start, end in pages:
        number = (end - start) // page
        address = table.page_struct(start // page, size)
        try:
            if bit is None or address is None or len(reserved) + len(unknown) > MAX_RUNS:
                raise FaultError("no struct page", start)
            structs = np.frombuffer(kernel.search(address, number * size), np.uint8).reshape(-1, size)
        except FaultError:
            unknown.append((start, end))
            continue
        flags = column(kernel, structs, "OFFSET(page.flags)", kernel.header.bits // 8)
        ours = np.flatnonzero(flags >> np.uint64(bit) & np.uint64(1)).tolist()
        reserved += [(start + place * page, start + (place + 1) * page) for place in ours]
    return RangeSet(reserved), RangeSet(unknown)


def _reserved_bit(kernel: Kernel, table: SectionTable, size: int) -> int | None:
    """The number of PG_reserved: BTF's, or the one flag that the page of the kernel's own text has.

    enum pageflags has it right before PG_private, which VMCOREINFO names.
    """
    if kernel.btf:
        return kernel.btf.enumerator("PG_reserved")
    text = kernel.text()
    try:
        bit = kernel.vmcoreinfo_number("NUMBER(PG_private)") - 1
        address = None if text is None else table.page_struct(text // kernel.header.page_size, size)
        if address is None or not 0 <= bit < FLAG_BITS:
            return None
        structs = np.frombuffer(kernel.search(address, size), np.uint8).reshape(1, size)
        flags = int(column(kernel, structs, "OFFSET(page.flags)", kernel.header.bits // 8)[0])
    except (LookupError, FaultError):
        return None
    return bit if flags & ((1 << FLAG_BITS) - 1) == 1 << bit else None
