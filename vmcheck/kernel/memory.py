# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which memory a kernel has: three of its structures each give their own account."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from drgn import FaultError, Object, Type, sizeof

from vmcheck.facts.exclusions import CRASH_KERNEL_REASON, LOW_MEMORY, LOW_MEMORY_REASON, Exclusion
from vmcheck.facts.ranges import ADDRESS_LIMIT, EMPTY, RangeSet, distinct
from vmcheck.facts.topology import Blocks, EarlyBy, MemoryAccount, Resources, Sections, Unknown
from vmcheck.kernel.block_devices import block_devices
from vmcheck.kernel.program import Kernel

Words = npt.NDArray[np.uint64]

SECTION_FLAGS = {"SECTION_MARKED_PRESENT": 1 << 0, "SECTION_IS_ONLINE": 1 << 2, "SECTION_IS_EARLY": 1 << 3}
"""Bits of mem_section.section_mem_map where BTF does not name them (include/linux/mmzone.h).

Since Linux kernel commit f052bd5f4f9e (v4.13) for ONLINE, 326e1b8f83a4 (v5.3) for EARLY.
"""
SECTION_MAP_MASK = ~0x3F & 0xFFFFFFFFFFFFFFFF
"""include/linux/mmzone.h: the flags are below bit 6; what remains is the coded memory map."""

# include/linux/ioport.h
IORESOURCE_SYSTEM_RAM = 0x01000200
IORESOURCE_SYSRAM_DRIVER_MANAGED = 0x02000000
IORESOURCE_BUSY = 0x80000000

NUMA_NO_NODE = 0xFFFFFFFF
"""include/linux/numa.h: -1, of 4 bytes."""

MAX_SECTIONS = 1 << 29
"""Possible ones, present or not: ppc64 has 1 << 27, riscv64 1 << 29 (SECTION_SIZE_BITS 27, 56 bits)."""
MAX_SECTIONS_PER_BLOCK = 1 << 16
"""A block of x86_64 has at most 2 GiB, 16 sections; arm64's section alone has up to 1 GiB."""
MAX_ROOTS = 32 << 20
"""Bytes of pointers to sections. x86_64 with 5-level paging has 2 MiB, riscv64 32 MiB."""
MAX_RESOURCES = 1 << 18
MAX_E820_ENTRIES = 4096
E820_TYPE_RAM = 1
MAX_XARRAY_NODES = 1 << 15
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
        section, physical = _section_bits(kernel)
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
            named = np.flatnonzero(pointers)
            if len(distinct(pointers[named])) < len(named):
                raise LookupError("two roots of mem_section are one page: it is damaged")
            stored = kernel.header.stored.size // kernel.header.page_size
            if len(named) > stored:
                raise LookupError(f"mem_section has {len(named)} roots, the file {stored} pages")
            tables = [(root * per_root, int(pointers[root]), per_root) for root in named.tolist()]
        bit = kernel.section_flag("SECTION_MARKED_PRESENT")
        if bit is None and kernel.has_section_flags():
            # Without the flag, a section is present where it has a memory map.
            self._present = np.uint64(SECTION_MAP_MASK)
        else:
            self._present = np.uint64(SECTION_FLAGS["SECTION_MARKED_PRESENT"] if bit is None else 1 << bit)
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
            present = np.flatnonzero(column & self._present)
            numbers.append(present + first)
            maps.append(column[present])
        self.numbers, self.maps = np.concatenate(numbers), np.concatenate(maps)

    def present(self) -> RangeSet:
        """Sections that have a memory map."""
        starts = self.numbers * self.section_size
        return RangeSet.from_arrays(starts, starts + self.section_size)

    def flagged(self, name: str) -> RangeSet | Unknown:
        """Present sections that have a flag; unknown where the flag is not what we take it for.

        The section of the kernel's own text is there since boot and online. A flag that no
        section has does not exist in this kernel.
        """
        if self.lacks(name):
            return Unknown(f"no section has {name}: this kernel does not have the flag")
        having = self._having(name)
        starts = self.numbers[having] * self.section_size
        found = RangeSet.from_arrays(starts, starts + self.section_size)
        text = self._kernel.text()
        if text is not None and text in self.present() and text not in found:
            return Unknown(f"the section of the kernel's own text lacks {name}: its flags are not known")
        return found

    def lacks(self, name: str) -> bool:
        """No section has the flag, though all were read: the kernel does not have it."""
        return bool(len(self.maps)) and not self.unread and not self._having(name).any()

    def _having(self, name: str) -> npt.NDArray[np.bool_]:
        bit = self._kernel.section_flag(name)
        return np.asarray(self.maps & np.uint64(SECTION_FLAGS[name] if bit is None else 1 << bit) != 0)

    def boot_ram(self) -> RangeSet | Unknown:
        """Whole sections with RAM of the firmware's map at boot, where the kernel kept it (x86: e820)."""
        try:
            ram = _e820_ram(self._kernel)
        except (LookupError, FaultError) as error:
            return Unknown(f"the firmware's memory map: {error}")
        return ram.aligned_outward(self.section_size)

    def has_memory_map(self, pfn: int) -> bool:
        """Whether the page's section names a memory map at all."""
        place = int(np.searchsorted(self.numbers, pfn * self._kernel.header.page_size // self.section_size))
        return place < len(self.numbers) and int(self.maps[place]) & SECTION_MAP_MASK != 0

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


def _section_bits(kernel: Kernel) -> tuple[int, int]:
    """SECTION_SIZE_BITS and MAX_PHYSMEM_BITS. Raises LookupError.

    VMCOREINFO has the first since Linux kernel commit 4f5aecdff25f (in v5.13), the second since
    1d50e5d0c505 (in v5.9). Before, they follow from the number of mem_section's roots, each a page.
    """
    number = kernel.vmcoreinfo_number
    fixed = kernel.header.arch.section_size_bits
    try:
        section = number("NUMBER(SECTION_SIZE_BITS)")
    except LookupError:
        if fixed is None:
            raise
        section = fixed
    try:
        return section, number("NUMBER(MAX_PHYSMEM_BITS)")
    except LookupError:
        if fixed is None:
            raise
    roots, size = number("LENGTH(mem_section)"), number("SIZE(mem_section)")
    count = roots * (kernel.header.page_size // size) if size > 0 else 0
    if count <= 0 or count & (count - 1):
        raise LookupError(f"VMCOREINFO has no MAX_PHYSMEM_BITS, and {count} sections are not a power of 2")
    return section, section + count.bit_length() - 1


def sections(table: SectionTable, blocks: BlockTable | Unknown) -> Sections | Unknown:
    """Where sections lack a flag, memory blocks or the firmware's memory map answer instead."""
    online = table.flagged("SECTION_IS_ONLINE")
    structure, unread = "mem_section", list(table.unread)
    if isinstance(online, Unknown):
        if isinstance(blocks, Unknown) or not table.lacks("SECTION_IS_ONLINE"):
            return Unknown(f"mem_section: {online.why}")
        # Before Linux kernel commit 2d070eab2e82 (in v4.13), only memory blocks are online or offline.
        online = table.present() & blocks.ranges(blocks.online)
        structure, unread = "mem_section and memory blocks", unread + blocks.unread
    account = MemoryAccount(structure, online, tuple(unread))
    early, early_by = table.flagged("SECTION_IS_EARLY"), EarlyBy.FLAG
    if isinstance(early, Unknown) and table.lacks("SECTION_IS_EARLY"):
        firmware = table.boot_ram()
        if not isinstance(firmware, Unknown):
            early, early_by = firmware & table.present(), EarlyBy.FIRMWARE
    return Sections(table.section_size, account, table.present(), early, early_by)


def _e820_ram(kernel: Kernel) -> RangeSet:
    """RAM of struct e820_table: a u32 count, then packed entries of u64 addr, u64 size, u32 type.

    Raises LookupError or FaultError.
    """
    symbols = kernel.symbols
    if symbols is None or not kernel.header.arch.x86:
        raise LookupError("no symbol leads to it")
    # Linux kernel commit 544a0f47e780 (in v4.12) made the pointer e820_table_firmware of e820_saved.
    if (pointer := symbols.address("e820_table_firmware")) is not None:
        table = int(kernel.words(pointer, 1)[0])
    elif (saved := symbols.address("e820_saved")) is not None:
        table = saved
    else:
        raise LookupError("kallsyms has neither e820_table_firmware nor e820_saved")
    count = int.from_bytes(kernel.read(table, 4), "little")
    if not 0 < count <= MAX_E820_ENTRIES:
        raise LookupError(f"it has {count} entries: 1 to {MAX_E820_ENTRIES} are possible")
    entries = np.frombuffer(
        kernel.read(table + 4, 20 * count), np.dtype([("addr", "<u8"), ("size", "<u8"), ("type", "<u4")])
    )
    limit = np.uint64(ADDRESS_LIMIT)
    ram = entries[(entries["type"] == E820_TYPE_RAM) & (entries["size"] > 0)]
    if ((ram["addr"] >= limit) | (ram["size"] > limit)).any() or not len(ram):
        raise LookupError("its RAM is at impossible addresses")
    starts = ram["addr"].astype(np.int64)
    return RangeSet.from_arrays(starts, np.minimum(starts + ram["size"].astype(np.int64), ADDRESS_LIMIT))


class ResourceTree:
    """``iomem_resource``: what /proc/iomem prints. A resource that cannot be read hides its siblings."""

    def __init__(self, kernel: Kernel) -> None:
        """Raises LookupError without types or symbols, FaultError where the root is lost."""
        self.unread: list[str] = []
        self.entries: list[tuple[str, int, int, int]] = []
        """(name, start, end, flags), addresses as ``[start, end)``."""
        place = int(kernel.prog["iomem_resource"].address_of_())
        root = kernel.prog["iomem_resource"].read_()
        for name in ("parent", "sibling"):
            if int(getattr(root, name)):
                self.unread.append(f"the root has the {name} {int(getattr(root, name)):#x}")
        seen: set[int] = set()
        # (resource, its parent, where its predecessor among the siblings ends)
        pending = [(root.child, place, 0)]
        while pending:
            pointer, parent, before = pending.pop()
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
            start, end = int(resource.start), int(resource.end) + 1
            if int(resource.parent) != parent:
                self.unread.append(
                    f"the resource at {address:#x} has the parent {int(resource.parent):#x}, not {parent:#x}"
                )
                continue
            if not before <= start < end:
                # request_resource() keeps siblings in rising order, and lets none overlap.
                self.unread.append(
                    f"the resource at {address:#x} is [{start:#x}, {end:#x}): not above {before:#x}"
                )
            pending += [(resource.sibling, parent, max(before, end)), (resource.child, address, 0)]
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
        """Raises LookupError or FaultError where there is no way to them."""
        self.unread: list[str] = []
        # The xarray is Linux kernel commit 4fb6eabf1037's (in v5.8).
        if kernel.by_shape and kernel.symbols and kernel.symbols.address("memory_blocks") is None:
            self._from_devices(kernel, section_size)
            return
        addresses = _xarray_entries(kernel, kernel.prog["memory_blocks"], self.unread)
        per_block = int(kernel.prog["sections_per_block"])
        if not 0 < per_block <= MAX_SECTIONS_PER_BLOCK:
            raise LookupError(
                f"sections_per_block is {per_block}: 1 to {MAX_SECTIONS_PER_BLOCK} are possible"
            )
        self.size = per_block * section_size
        block_type = kernel.prog.type("struct memory_block")
        names = ["start_section_nr", "state", *(["nid"] if block_type.has_member("nid") else [])]
        first, *others = _columns(kernel, addresses, block_type, names, self.unread)
        believed = first < ADDRESS_LIMIT // max(section_size, 1)
        states, *nodes = (column[believed] for column in others)
        self.starts = first[believed].astype(np.int64) * section_size
        self.online = states == _mem_online(kernel)
        self.nodes = nodes[0] if nodes else np.full(len(self.starts), NUMA_NO_NODE, np.uint64)
        """NUMA node of each block; of one that spans several, the last."""

    def _from_devices(self, kernel: Kernel, section_size: int) -> None:
        listed, per_block, unread = block_devices(kernel)
        limit = ADDRESS_LIMIT // section_size
        listed = sorted(block for block in listed if block.section < limit)
        self.unread += unread
        self.size = per_block * section_size
        self.starts = np.array([block.section for block in listed], np.int64) * section_size
        self.online = np.array([block.state == 1 for block in listed], bool)
        self.nodes = np.full(len(listed), NUMA_NO_NODE, np.uint64)

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
            if entry in seen or len(seen) >= MAX_XARRAY_NODES:
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

    What cannot be read is left out and listed in ``unread``.
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
    """What a healthy header leaves out: see facts/exclusions.py and crash_prepare_elf64_headers()."""
    found = []
    if kernel.header.arch.x86:
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
