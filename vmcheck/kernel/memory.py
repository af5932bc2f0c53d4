# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which memory a kernel has, told by three of its structures, each giving its own account."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from drgn import FaultError, Object, Type, sizeof

from vmcheck.exclusions import CRASH_KERNEL_REASON, LOW_MEMORY, LOW_MEMORY_REASON, Exclusion
from vmcheck.kernel.program import Kernel
from vmcheck.ranges import ADDRESS_LIMIT, EMPTY, RangeSet
from vmcheck.topology import Blocks, MemoryAccount, Resources, Sections

Words = npt.NDArray[np.uint64]

# Bits of mem_section.section_mem_map, the same since Linux v4.13 (include/linux/mmzone.h).
SECTION_MARKED_PRESENT = 1 << 0
SECTION_IS_ONLINE = 1 << 2
SECTION_IS_EARLY = 1 << 3
SECTION_MAP_MASK = ~0x3F & 0xFFFFFFFFFFFFFFFF
"""include/linux/mmzone.h: the flags are below bit 6; what remains is the coded memory map."""

# include/linux/ioport.h
IORESOURCE_SYSTEM_RAM = 0x01000200
IORESOURCE_SYSRAM_DRIVER_MANAGED = 0x02000000
IORESOURCE_BUSY = 0x80000000

NUMA_NO_NODE = 0xFFFFFFFF
"""include/linux/numa.h: -1, of 4 bytes."""

MAX_SECTIONS = 1 << 26
MAX_ROOTS = 16 << 20
"""Bytes of pointers to sections. x86_64 with 5-level paging has 2 MiB."""
MAX_RESOURCES = 1 << 18
MAX_NODES = 1 << 15
"""Of the xarray of memory blocks: 64 blocks each."""
XA_CHUNK_SIZE = 64
"""The most slots that an xarray's node has (include/linux/xarray.h)."""
_RUN_LIMIT = 1 << 20
"""Bytes read at once where structures lie side by side."""


class SectionTable:
    """``mem_section``, from VMCOREINFO alone: neither types nor symbols are needed."""

    def __init__(self, kernel: Kernel) -> None:
        """Raises LookupError where VMCOREINFO lacks an item, FaultError where the roots are lost."""
        self._kernel = kernel
        number = kernel.vmcoreinfo_number
        section, physical = number("NUMBER(SECTION_SIZE_BITS)"), number("NUMBER(MAX_PHYSMEM_BITS)")
        if not 0 < section <= physical <= ADDRESS_LIMIT.bit_length() - 1:
            raise LookupError(f"VMCOREINFO has SECTION_SIZE_BITS {section} and MAX_PHYSMEM_BITS {physical}")
        self.section_size, count = 1 << section, 1 << physical - section
        roots, size = number("LENGTH(mem_section)"), number("SIZE(mem_section)")
        offset = number("OFFSET(mem_section.section_mem_map)")
        word = kernel.header.bits // 8
        if not (
            0 < count <= MAX_SECTIONS
            and 0 < roots <= min(count, MAX_ROOTS // word)
            and 0 <= offset <= size - word
            and size % word == 0
            and size <= kernel.header.page_size
        ):
            raise LookupError(f"VMCOREINFO describes {count} sections in {roots} roots of {size} bytes each")
        self.unread: list[str] = []
        self.numbers: npt.NDArray[np.int64]
        self.maps: Words
        """section_mem_map of each section in ``numbers``, flags included."""
        # Since Linux kernel commit a0b1280368d1 ("kdump: write correct address of mem_section into
        # vmcoreinfo") (in v4.15), the symbol is the address of the roots themselves.
        address = kernel.vmcoreinfo_symbol("mem_section")
        per_root = kernel.header.page_size // size
        if roots == count:
            tables = [(0, address, count)]
        else:
            pointers = kernel.words(address, min(roots, self._highest() // per_root + 1))
            tables = [
                (root * per_root, int(pointers[root]), per_root) for root in np.flatnonzero(pointers).tolist()
            ]
        self._read(tables, size // word, offset // word)

    def _highest(self) -> int:
        """The highest present section, so that the roots behind it need not be read."""
        try:
            return int(self._kernel.prog["__highest_present_section_nr"])
        except (LookupError, FaultError):
            return MAX_SECTIONS

    def _read(self, tables: list[tuple[int, int, int]], stride: int, offset: int) -> None:
        numbers, maps = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
        for first, address, count in tables:
            try:
                column = self._kernel.words(address, count * stride)[offset::stride]
            except FaultError as error:
                self.unread.append(f"mem_section root of sections {first} to {first + count - 1}: {error}")
                continue
            present = np.flatnonzero(column & np.uint64(SECTION_MARKED_PRESENT))
            numbers.append(present + first)
            maps.append(column[present])
        self.numbers, self.maps = np.concatenate(numbers), np.concatenate(maps)

    def ranges(self, flag: int) -> RangeSet:
        """Present sections that have the flag."""
        starts = self.numbers[(self.maps & np.uint64(flag)) != 0] * self.section_size
        return RangeSet.from_arrays(starts, starts + self.section_size)

    def page_struct(self, pfn: int, size: int) -> int | None:
        """Virtual address of the page's struct page; None where it has no memory map.

        section_mem_map holds the map's address less the section's first PFN times the size
        of a struct page (sparse_encode_mem_map()).
        """
        number = pfn * self._kernel.header.page_size // self.section_size
        place = int(np.searchsorted(self.numbers, number))
        if place == len(self.numbers) or self.numbers[place] != number:
            return None
        return ((int(self.maps[place]) & SECTION_MAP_MASK) + pfn * size) % (1 << self._kernel.header.bits)


def sections(table: SectionTable) -> Sections:
    account = MemoryAccount("mem_section", table.ranges(SECTION_IS_ONLINE), tuple(table.unread))
    return Sections(
        table.section_size, account, table.ranges(SECTION_MARKED_PRESENT), table.ranges(SECTION_IS_EARLY)
    )


class ResourceTree:
    """``iomem_resource``: what /proc/iomem prints. A resource that cannot be read hides its siblings."""

    def __init__(self, kernel: Kernel) -> None:
        """Raises LookupError without types or symbols, FaultError where the root is lost."""
        self.unread: list[str] = []
        self.entries: list[tuple[str, int, int, int]] = []
        """(name, start, end, flags), addresses as ``[start, end)``."""
        root = kernel.prog["iomem_resource"].read_()
        seen: set[int] = set()
        pending = [root.child]
        while pending:
            pointer = pending.pop()
            address = int(pointer)
            if not address:
                continue
            if len(seen) == MAX_RESOURCES:
                self.unread.append(f"there are more than {MAX_RESOURCES} resources")
                break
            if address in seen:
                self.unread.append(f"the resource at {address:#x} is its own ancestor or sibling")
                continue
            seen.add(address)
            try:
                resource = pointer[0].read_()
            except FaultError as error:
                self.unread.append(f"the resource at {address:#x}: {error}")
                continue
            pending += [resource.sibling, resource.child]
            start, end = int(resource.start), int(resource.end) + 1
            if start < end <= ADDRESS_LIMIT:
                self.entries.append((self._name(resource), start, end, int(resource.flags)))

    def _name(self, resource: Object) -> str:
        try:
            return bytes(resource.prog_.read_c_string(resource.name, max_size=64)).decode(
                errors="backslashreplace"
            )
        except FaultError:
            return ""

    def named(self, name: str) -> RangeSet:
        return RangeSet((start, end) for found, start, end, _ in self.entries if found == name)

    def flagged(self, flags: int) -> RangeSet:
        return RangeSet((start, end) for _, start, end, found in self.entries if found & flags == flags)


def resources(tree: ResourceTree) -> Resources:
    # walk_system_ram_res() asks for both flags, at any depth.
    busy_ram = IORESOURCE_SYSTEM_RAM | IORESOURCE_BUSY
    return Resources(
        MemoryAccount("iomem_resource", tree.flagged(busy_ram), tuple(tree.unread)),
        tree.flagged(busy_ram | IORESOURCE_SYSRAM_DRIVER_MANAGED),
    )


class BlockTable:
    """Memory blocks, from the xarray ``memory_blocks``, read in bulk."""

    def __init__(self, kernel: Kernel, section_size: int) -> None:
        """Raises LookupError for kernels before Linux v5.8 (commit 4fb6eabf1037), which have none."""
        self.unread: list[str] = []
        addresses = _xarray_entries(kernel, kernel.prog["memory_blocks"], self.unread)
        self.size = int(kernel.prog["sections_per_block"]) * section_size
        block_type = kernel.prog.type("struct memory_block")
        names = ["start_section_nr", "state", *(["nid"] if block_type.has_member("nid") else [])]
        first, *others = _columns(kernel, addresses, block_type, names, self.unread)
        believed = first < ADDRESS_LIMIT // max(section_size, 1)
        states, *nodes = (column[believed] for column in others)
        self.starts = first[believed].astype(np.int64) * section_size
        self.online = states == _mem_online(kernel)
        self.nodes = nodes[0] if nodes else np.full(len(self.starts), NUMA_NO_NODE, np.uint64)
        """NUMA node of each block; of one that spans several, the last."""

    def ranges(self, chosen: npt.NDArray[np.bool_]) -> RangeSet:
        return RangeSet.from_arrays(self.starts[chosen], self.starts[chosen] + self.size)


def blocks(table: BlockTable) -> Blocks:
    account = MemoryAccount("memory blocks", table.ranges(table.online), tuple(table.unread))
    return Blocks(table.size, account, table.ranges(~table.online))


def _mem_online(kernel: Kernel) -> int:
    """The value of MEM_ONLINE: an enumerator where ``enum memory_block_state`` exists, else a bit."""
    try:
        enumerators = kernel.prog.type("enum memory_block_state").enumerators or ()
    except LookupError:
        return 1
    return next((value for name, value in enumerators if name == "MEM_ONLINE"), 1)


def _xarray_entries(kernel: Kernel, array: Object, unread: list[str]) -> Words:
    """Pointers stored in an xarray, ascending. Pointers to its nodes have 2 in their low bits."""
    slots = kernel.prog.type("struct xa_node").member("slots")
    offset, count = slots.offset, min(slots.type.length or 0, XA_CHUNK_SIZE)
    pending, seen = [np.array([int(array.xa_head)], np.uint64)], set[int]()
    stored = [np.empty(0, np.uint64)]
    while pending:
        entries = pending.pop()
        low_bits = entries & np.uint64(3)
        stored.append(entries[(low_bits == 0) & (entries != 0)])
        for entry in entries[(low_bits == 2) & (entries > 4096)].tolist():
            if entry in seen or len(seen) >= MAX_NODES:
                continue
            seen.add(entry)
            try:
                pending.append(kernel.words(entry - 2 + offset, count))
            except FaultError as error:
                unread.append(f"the xarray node at {entry - 2:#x}: {error}")
    found = np.sort(np.concatenate(stored))
    return np.asarray(found[np.diff(found, prepend=np.uint64(0)) != 0])


def _columns(
    kernel: Kernel, addresses: Words, type_: Type, names: Sequence[str], unread: list[str]
) -> list[Words]:
    """Integer members of the structures at ascending addresses; none but the bytes they span are kept."""
    members = [type_.member(name) for name in names]
    places = [(member.offset, sizeof(member.type)) for member in members]
    begin, end = min(place for place, _ in places), max(place + size for place, size in places)
    # Sorted again, for a wild address may have wrapped.
    rows = _gather(kernel, np.sort(addresses + np.uint64(begin)), end - begin, unread)
    order = "<" if kernel.header.byteorder == "little" else ">"
    return [
        np.ascontiguousarray(rows[:, place - begin : place - begin + size])
        .view(f"{order}u{size}")
        .reshape(-1)
        .astype(np.uint64)
        for place, size in places
    ]


def _gather(kernel: Kernel, addresses: Words, size: int, unread: list[str]) -> npt.NDArray[np.uint8]:
    """``size`` bytes at each address, shape (n, size), reading neighbours together.

    What cannot be read is left out and told in ``unread``.
    """
    rows: list[npt.NDArray[np.uint8]] = []
    for begin, end in _neighbours(addresses, size):
        group = addresses[begin:end]
        start = int(group[0])
        try:
            data = np.frombuffer(kernel.read(start, int(group[-1]) + size - start), np.uint8)
        except FaultError as error:
            if end - begin == 1:
                unread.append(f"the structure at {start:#x}: {error}")
            else:
                rows.extend(_gather(kernel, group[i : i + 1], size, unread) for i in range(end - begin))
            continue
        rows.append(np.lib.stride_tricks.sliding_window_view(data, size)[(group - group[0]).astype(np.intp)])
    return np.concatenate(rows) if rows else np.empty((0, size), np.uint8)


def _neighbours(addresses: Words, size: int) -> Iterator[tuple[int, int]]:
    """Index ranges of ascending addresses that one read of bounded length covers."""
    begin = 0
    gaps = np.flatnonzero(np.diff(addresses) > max(4096, size)) + 1
    for end in [*gaps.tolist(), len(addresses)]:
        while begin < end:
            last = min(int(addresses[begin]) + _RUN_LIMIT, (1 << 64) - 1)
            limit = int(np.searchsorted(addresses, np.uint64(last)))
            yield begin, min(end, limit)
            begin = min(end, limit)


def excluded(kernel: Kernel, tree: ResourceTree) -> tuple[Exclusion, ...]:
    """What a healthy header leaves out: see exclusions.py and crash_prepare_elf64_headers()."""
    found = []
    if kernel.header.machine in ("x86_64", "i686"):
        found.append(Exclusion(LOW_MEMORY_REASON, LOW_MEMORY))
    crash = tree.named("Crash kernel")
    for name in ("crashk_res", "crashk_low_res"):
        try:
            resource = kernel.prog[name].read_()
        except (LookupError, FaultError):
            continue
        start, end = int(resource.start), int(resource.end) + 1
        if 0 < start < end <= ADDRESS_LIMIT:
            crash |= RangeSet([(start, end)])
    for reason, ranges in (
        (CRASH_KERNEL_REASON, crash),
        ("crashkernel CMA, user pages lent by the crash kernel", _crash_cma(kernel)),
        ("GART aperture", tree.named("GART")),
    ):
        if ranges:
            found.append(Exclusion(reason, ranges))
    return tuple(found)


def _crash_cma(kernel: Kernel) -> RangeSet:
    try:
        count = min(int(kernel.prog["crashk_cma_cnt"]), 4)
        ranges = kernel.prog["crashk_cma_ranges"]
        return RangeSet((int(ranges[i].start), int(ranges[i].end) + 1) for i in range(count))
    except (LookupError, FaultError, ValueError):
        return EMPTY
