# SPDX-License-Identifier: LGPL-2.1-or-later
"""What lay in memory that is in no part of a dump.

The memory is gone; what describes it often is not. Its struct pages lie in vmemmap, in
other memory unless memmap_on_memory put them there, and no dump level leaves them out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from drgn import FaultError, Type, offsetof

from vmcheck.facts.ranges import EMPTY, RangeSet
from vmcheck.facts.topology import (
    LostModule,
    LostPages,
    Modules,
    PageCount,
    PageKind,
    Sections,
    Unknown,
)
from vmcheck.kernel.memory import SectionTable
from vmcheck.kernel.pages import Structs, Words, column, compound_tails, is_slab
from vmcheck.kernel.program import Kernel

T = TypeVar("T")

MAX_RUNS = 128
RUN = 256
"""Up to 128 runs of 256 pages are looked at, 2 MiB of struct pages: 128 MiB whole, more as a sample."""
MAX_HEADS = 16
"""Of compound pages that reach into a run from outside it; honest kernels have one or two."""
NO_NODE = 1 << 40
MAX_MODULES = 4096
MAX_ZONES = 16
MAX_NUMNODES = 1 << 16
MAX_TRANSLATIONS = 1 << 15
"""Of virtual addresses, of each structure that is looked for: a quarter of a second."""


# struct page


def lost_pages(kernel: Kernel, table: SectionTable, missing: RangeSet) -> LostPages:
    """What the pages of ``missing`` were. Raises LookupError where VMCOREINFO lacks an item."""
    size = kernel.vmcoreinfo_number("SIZE(page)")
    if not 8 <= size <= 256:
        raise LookupError(f"VMCOREINFO has SIZE(page)={size}")
    page_size = kernel.header.page_size
    pages = missing.aligned_inward(page_size)
    layout = _Layout.of(kernel)
    unread = looked_at = 0
    found: Counter[int] = Counter()
    for first, count in _runs(pages, page_size):
        structs = _structs(kernel, table, missing, first, count, size)
        if structs is None:
            unread += count
            continue
        looked_at += count
        nodes, zones, kinds = layout.classify(kernel, *structs)
        found.update(((nodes * 64 + zones) * 64 + kinds).tolist())
    counts = []
    for key, number in found.items():
        node, zone, kind = key // 4096, layout.zones.get(key // 64 % 64), list(PageKind)[key % 64]
        known = node != NO_NODE
        counts.append(PageCount(node if known else None, zone if known else None, kind, number))
    counts.sort(key=lambda count: (-count.pages, count.kind.value))
    return LostPages(pages.size // page_size, looked_at, unread, tuple(counts))


def _runs(pages: RangeSet, page_size: int) -> Iterator[tuple[int, int]]:
    """(PFN, number) of pages to look at: all, or runs spread evenly. Adjacent ones are read at once."""
    starts, ends = pages.starts // page_size, pages.ends // page_size
    lengths = ends - starts
    total = int(lengths.sum())
    if total <= MAX_RUNS * RUN:
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            for first in range(start, end, 16 * RUN):
                yield first, min(16 * RUN, end - first)
        return
    before = np.cumsum(lengths) - lengths
    for position in np.linspace(0, total - RUN, MAX_RUNS).astype(np.int64).tolist():
        # Runs begin where a pageblock's buddies and huge pages do, as far as the range allows.
        which = int(np.searchsorted(before, position, side="right")) - 1
        first = max(int(starts[which]), (int(starts[which]) + position - int(before[which])) // RUN * RUN)
        yield first, min(RUN, int(ends[which]) - first)


def _structs(
    kernel: Kernel, table: SectionTable, missing: RangeSet, pfn: int, count: int, size: int
) -> tuple[Structs, int] | None:
    """The struct pages and the address of the first; None where they are not in the dump."""
    address = table.page_struct(pfn, size)
    if address is None:
        return None
    try:
        ends = (address, address + (count - 1) * size)
        if any(kernel.physical(end) in missing for end in ends):
            return None
        return np.frombuffer(kernel.read(address, count * size), np.uint8).reshape(count, size), address
    except FaultError:
        return None


@dataclass(frozen=True)
class _Layout:
    """How this kernel encodes a struct page's use."""

    bits: int
    flags: dict[str, int]
    """Bit number by name, without ``PG_``."""
    types: dict[PageKind, tuple[int, int]]
    """(mask, value) of ``page_type``, which overlays _mapcount."""
    node_bits: int
    zone_bits: int
    zones: dict[int, str]

    @classmethod
    def of(cls, kernel: Kernel) -> _Layout:
        flags = {
            key.removeprefix("NUMBER(PG_").removesuffix(")"): int(value)
            for key, value in kernel.header.vmcoreinfo.items()
            if key.startswith("NUMBER(PG_") and value.isdigit() and int(value) < 64
        }
        zones, node_bits = dict[int, str](), 0
        if kernel.has_types:
            for name, value in _enumerators(kernel, "enum pageflags"):
                flags.setdefault(name.removeprefix("PG_"), value)
            names = _enumerators(kernel, "enum zone_type")
            zones = {value: _zone_name(name) for name, value in names if not name.startswith("__")}
            if len(zones) > MAX_ZONES:
                raise LookupError(f"enum zone_type has {len(zones)} zones; {MAX_ZONES} are believed")
            node_bits = _node_bits(kernel, len(zones))
        # include/linux/page-flags-layout.h: ZONES_SHIFT. With vmemmap there are no section bits.
        zone_bits = max(0, len(zones) - 1).bit_length()
        return cls(kernel.header.bits, flags, dict(_page_types(kernel)), node_bits, zone_bits, zones)

    def classify(
        self, kernel: Kernel, structs: Structs, address: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(node, zone, index in PageKind) of each page; NO_NODE where node and zone are not known."""
        kinds = self._kinds(kernel, structs)
        tails, heads = compound_tails(kernel, structs, address)
        size = structs.shape[1]
        places = (heads - np.uint64(address)).astype(np.int64) // size
        inside = tails & (places >= 0) & (places < len(structs))
        kinds[inside] = kinds[places[inside]]
        outside = tails & ~inside
        kinds[outside] = list(PageKind).index(PageKind.KERNEL)
        for head in sorted(set(heads[outside].tolist()))[:MAX_HEADS]:
            try:
                found = np.frombuffer(kernel.read(head, size), np.uint8).reshape(1, size)
            except FaultError:
                continue
            kinds[outside & (heads == np.uint64(head))] = self._kinds(kernel, found)[0]
        flags = column(kernel, structs, "OFFSET(page.flags)", self.bits // 8)
        node = self._field(flags, self.bits - self.node_bits, self.node_bits) if self.node_bits else None
        shift = self.bits - self.node_bits - self.zone_bits
        if not self.zones or node is None:
            return np.full(len(structs), NO_NODE), np.zeros(len(structs), np.int64), kinds
        return node, self._field(flags, shift, self.zone_bits), kinds

    @staticmethod
    def _field(flags: Words, shift: int, bits: int) -> npt.NDArray[np.int64]:
        return (flags >> np.uint64(shift) & np.uint64((1 << bits) - 1)).astype(np.int64)

    def _kinds(self, kernel: Kernel, structs: Structs) -> npt.NDArray[np.int64]:
        """Of each page by itself; the tails of compound pages look like nothing."""
        word = self.bits // 8
        flags = column(kernel, structs, "OFFSET(page.flags)", word)
        mapping = column(kernel, structs, "OFFSET(page.mapping)", word)
        types = column(kernel, structs, "OFFSET(page._mapcount)", 4)
        unused = column(kernel, structs, "OFFSET(page._refcount)", 4) == 0

        def flag(name: str) -> npt.NDArray[np.bool_]:
            if name not in self.flags:
                return np.zeros(len(structs), np.bool_)
            return np.asarray(flags >> np.uint64(self.flags[name]) & np.uint64(1) != 0)

        def typed(kind: PageKind) -> npt.NDArray[np.bool_]:
            if kind not in self.types:
                return np.zeros(len(structs), np.bool_)
            mask, value = self.types[kind]
            return np.asarray(types & np.uint64(mask) == np.uint64(value))

        # include/linux/page-flags.h: PAGE_MAPPING_ANON is bit 0, PAGE_MAPPING_MOVABLE bit 1.
        low = mapping & np.uint64(3)
        mapped = mapping > np.uint64(1 << (self.bits - 1))
        conditions = [
            (flag("hwpoison"), PageKind.POISONED),
            (is_slab(kernel, structs), PageKind.SLAB),
            (typed(PageKind.FREE), PageKind.FREE),
            (typed(PageKind.PAGE_TABLE), PageKind.PAGE_TABLE),
            (typed(PageKind.OFFLINE), PageKind.OFFLINE),
            (typed(PageKind.HUGETLB), PageKind.HUGETLB),
            (flag("reserved"), PageKind.RESERVED),
            # Also a buddy's other pages, and those on the CPUs' free lists.
            (unused, PageKind.FREE),
            (mapped & (low & np.uint64(1) != 0), PageKind.ANONYMOUS),
            (mapped & (low == 0), PageKind.PAGE_CACHE),
        ]
        order = list(PageKind)
        chosen = [np.int64(order.index(kind)) for _, kind in conditions]
        other = np.int64(order.index(PageKind.KERNEL))
        return np.select([condition for condition, _ in conditions], chosen, other).astype(np.int64)


def _enumerators(kernel: Kernel, name: str) -> list[tuple[str, int]]:
    try:
        return [(each, int(value)) for each, value in kernel.prog.type(name).enumerators or ()]
    except LookupError:
        return []


def _zone_name(enumerator: str) -> str:
    """As zone_names of mm/page_alloc.c has it: ZONE_DMA32 is DMA32, ZONE_NORMAL Normal."""
    name = enumerator.removeprefix("ZONE_")
    return name if name.startswith("DMA") else name.capitalize() if name != "HIGHMEM" else "HighMem"


def _node_bits(kernel: Kernel, zones: int) -> int:
    """NODES_SHIFT, a macro, from the length of a zonelist: MAX_NUMNODES * MAX_NR_ZONES + 1."""
    try:
        members = kernel.prog.type("struct zonelist").members or ()
        length = next(member.type.length or 0 for member in members if member.name == "_zonerefs")
    except (LookupError, StopIteration, AttributeError):
        return 0
    nodes = (length - 1) // zones if zones else 0
    return nodes.bit_length() - 1 if 1 < nodes <= MAX_NUMNODES and nodes & (nodes - 1) == 0 else 0


def _page_types(kernel: Kernel) -> Iterator[tuple[PageKind, tuple[int, int]]]:
    """(mask, value) by kind, from VMCOREINFO's PAGE_*_MAPCOUNT_VALUE."""
    names = {
        PageKind.FREE: "BUDDY",
        PageKind.OFFLINE: "OFFLINE",
        PageKind.HUGETLB: "HUGETLB",
    }
    values = {}
    for kind, name in names.items():
        try:
            value = kernel.vmcoreinfo_number(f"NUMBER(PAGE_{name}_MAPCOUNT_VALUE)") & 0xFFFFFFFF
        except LookupError:
            continue
        # Since Linux kernel commit 4ffca5a96678 ("mm: support only one page_type per page")
        # (in v6.12) the type is the top byte alone.
        values[kind] = (0xFFFFFFFF if value & 0xFFFFFF else 0xFF000000, value)
    yield from values.items()
    if PageKind.FREE not in values:
        return
    mask, buddy = values[PageKind.FREE]
    if mask == 0xFF000000:
        for name, value in _enumerators(kernel, "enum pagetype"):
            if name == "PGTY_table":
                yield PageKind.PAGE_TABLE, (mask, value << 24)
    elif buddy == 0xFFFFFF7F and kernel.has_types and not kernel.by_shape:
        # Page types were cleared bits: PG_buddy 0x80, PG_offline 0x100 and PG_table, 0x400 until
        # Linux kernel commit 18b2db3b0385 ("mm: Convert page kmemcg type to a page memcg flag")
        # (in v5.11), which brought memcg_data, and 0x200 since.
        table = 0x200 if kernel.prog.type("struct page").has_member("memcg_data") else 0x400
        yield PageKind.PAGE_TABLE, (mask, 0xFFFFFFFF & ~table)


# What else lies there


def _missing_pages(kernel: Kernel, missing: RangeSet, address: int, pages: int) -> int:
    """How many of the pages from a virtual address on lie in missing memory."""
    page_size = kernel.header.page_size
    lost = 0
    for page in range(address, address + pages * page_size, page_size):
        try:
            lost += kernel.physical(page) in missing
        except FaultError:
            continue
    return lost


def per_cpu_areas(kernel: Kernel, missing: RangeSet, cpus: frozenset[int]) -> frozenset[int]:
    """CPUs whose static per-CPU area has its first or last page in missing memory.

    Raises LookupError without symbols.
    """
    start, end = (_symbol(kernel, name) for name in ("__per_cpu_start", "__per_cpu_end"))
    offsets = kernel.prog["__per_cpu_offset"]
    found = set()
    for cpu in sorted(cpus)[: MAX_TRANSLATIONS // 2]:
        for place in (start, max(start, end - 1)):
            try:
                address = (place + int(offsets[cpu])) % (1 << kernel.header.bits)
                if kernel.physical(address) in missing:
                    found.add(cpu)
            except FaultError:
                continue
    return frozenset(found)


def _symbol(kernel: Kernel, name: str) -> int:
    address = kernel.symbols.address(name) if kernel.symbols else kernel.prog.symbol(name).address
    if address is None:
        raise LookupError(f"no symbol {name}")
    return int(address)


def memmap(kernel: Kernel, table: SectionTable, sections: Sections, missing: RangeSet) -> RangeSet:
    """Hot-added memory, itself in the dump, whose struct pages lie in missing memory.

    What was there at boot has its memory map in memory that was there at boot.
    """
    size = kernel.vmcoreinfo_number("SIZE(page)")
    page_size, found = kernel.header.page_size, []
    early = EMPTY if isinstance(sections.early, Unknown) else sections.early
    others = sections.present - early - missing.aligned_outward(sections.size)
    step = max(sections.size // 8, page_size)
    starts = chain.from_iterable(range(start, end, step) for start, end in others)
    for address in islice(starts, MAX_TRANSLATIONS):
        struct = table.page_struct(address // page_size, size)
        try:
            if struct is not None and kernel.physical(struct) in missing:
                found.append((address, address + step))
        except FaultError:
            continue
    return RangeSet(found)


def modules(kernel: Kernel, missing: RangeSet) -> Modules:
    """Modules with memory in ``missing``. The list is walked from both ends, as far as it holds.

    Raises LookupError without types.
    """
    head = kernel.prog["modules"]
    address = head.address_
    assert address is not None
    module = kernel.prog.type("struct module")
    entry = offsetof(module, "list")
    areas = _module_areas(module)
    unread: list[str] = []
    entries: dict[int, None] = {}
    for direction in (0, 1):
        link = int(kernel.words(address, 2)[direction])
        while link != address and len(entries) < MAX_MODULES and (direction == 0 or link not in entries):
            if direction == 0 and link in entries:
                unread.append("the list of modules comes back to one that is not its head")
                break
            try:
                if kernel.physical(link) in missing:
                    unread.append("a module's own struct lies in missing memory, and the list breaks there")
                    break
                following = int(kernel.words(link, 2)[direction])
            except FaultError as error:
                unread.append(f"the list of modules: {error}")
                break
            entries[link] = None
            link = following
        if not unread:
            break
    lost, budget = [], MAX_TRANSLATIONS
    for link in entries:
        start = link - entry
        pages = hit = 0
        for base, size in areas(kernel, start):
            number = min(-(-size // kernel.header.page_size), budget)
            budget -= number
            pages += number
            hit += _missing_pages(kernel, missing, base, number)
        if hit:
            name = kernel.read(start + offsetof(module, "name"), 56).split(b"\0")[0]
            lost.append(LostModule(name.decode("utf-8", "backslashreplace"), pages, hit))
    if budget <= 0:
        unread.append("not all modules were looked at")
    return Modules(len(entries), tuple(sorted(lost)), tuple(unread))


def _module_areas(module: Type) -> Callable[[Kernel, int], Iterator[tuple[int, int]]]:
    """A function that gives (address, bytes) of each part of the module at an address."""
    # Since Linux kernel commit ac3b43283923 ("module: replace module_layout with module_memory")
    # (in v6.4).
    if module.has_member("mem"):
        array = module.member("mem").type
        element, number = array.type, array.length or 0
        start, step = offsetof(module, "mem"), element.size or 0
    else:
        element, number = module.member("core_layout").type, 1
        start, step = offsetof(module, "core_layout"), 0
    base, size = offsetof(element, "base"), offsetof(element, "size")

    def areas(kernel: Kernel, address: int) -> Iterator[tuple[int, int]]:
        order = "little" if kernel.header.byteorder == "little" else "big"
        for part in range(min(number, 16)):
            place = address + start + part * step
            try:
                length = int.from_bytes(kernel.read(place + size, 4), order)  # type: ignore[arg-type]
                if length:
                    yield int(kernel.words(place + base, 1)[0]), length
            except FaultError:
                continue

    return areas
