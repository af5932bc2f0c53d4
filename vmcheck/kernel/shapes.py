# SPDX-License-Identifier: LGPL-2.1-or-later
"""Types by shape: the few structures that a check needs, where the kernel has no BTF.

RHEL 7 and 8, Ubuntu 20.04 and SLES 12 to 15 have no BTF in memory. Their layouts differ, but few
layouts are possible, and each can be verified by what the structure points at: a child's parent
is the resource it was reached from, a list closes, a block's number is its place. A row of
``SHAPES`` is a structure and the function that recognises it; what it cannot verify is a
LookupError, and the fact is unknown. Nothing goes by the kernel's version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, pairwise, product
from typing import TYPE_CHECKING

from drgn import FaultError, Object, Program, Type, TypeKind, TypeKindSet, TypeMember

if TYPE_CHECKING:
    from vmcheck.kernel.program import Kernel

KEXEC_SEGMENT_MAX = 16
TYPE, FILE_MODE, HOTPLUG_SUPPORT = 0, 2, 3
"""Bit fields of struct kimage (include/linux/kexec.h).

hotplug_support, where it is compiled in, since Linux kernel commit 247262756121 (in v6.6).
"""
XA_CHUNK_SIZES = (64, 16)
"""CONFIG_BASE_SMALL has 16."""
MAX_CPUS = 8192
STATES = frozenset(1 << bit for bit in range(6))
"""enum memory_block_state: MEM_ONLINE is 1, others are of blocks that are offline, come or go."""


class Shapes:
    """A drgn type finder. Each type is recognised when it is asked for, once."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._types: dict[str, Type] = {}

    def find(self, prog: Program, kinds: TypeKindSet, name: str, filename: str | None) -> Type | None:
        """For Program.register_type_finder(). Raises LookupError where a shape does not fit."""
        if TypeKind.STRUCT not in kinds or name not in SHAPES or filename:
            return None
        if name not in self._types:
            try:
                self._types[name] = SHAPES[name](self._kernel)
            except FaultError as error:
                raise LookupError(f"struct {name} could not be recognised: {error}") from None
        return self._types[name]


def _symbol(kernel: Kernel, name: str) -> int:
    address = None if kernel.symbols is None else kernel.symbols.address(name)
    if address is None:
        raise LookupError(f"kallsyms has no {name}")
    return address


def _u32(kernel: Kernel, address: int) -> int:
    return int.from_bytes(kernel.read(address, 4), kernel.header.byteorder)


def _words(kernel: Kernel, address: int, count: int) -> list[int]:
    return [int(word) for word in kernel.words(address, count)]


def _ulong(kernel: Kernel) -> Type:
    return kernel.prog.type("unsigned long")


def _struct(
    kernel: Kernel, name: str, members: Sequence[tuple[str, Type | Callable[[], Type], int]], size: int
) -> Type:
    """``members`` are (name, type, offset in bytes)."""
    made = [TypeMember(type_, member, 8 * offset) for member, type_, offset in members]
    return kernel.prog.struct_type(name, size, made)


def _resource(kernel: Kernel) -> Type:
    """start, end, name, flags, [desc,] parent, sibling, child.

    desc came with Linux kernel commit 43ee493bde78 (in v4.6). start and end are phys_addr_t, which has 8
    bytes with PAE. iomem_resource has neither parent nor sibling; its children have it as their parent.
    """
    root, word, prog = _symbol(kernel, "iomem_resource"), kernel.header.bits // 8, kernel.prog
    for address_size, desc in product(sorted({8, word}, reverse=True), (1, 0)):
        offset = {"name": 2 * address_size, "flags": 2 * address_size + word}
        for place, name in enumerate(("parent", "sibling", "child"), 2 + desc):
            offset[name] = 2 * address_size + place * word
        if not _is_resource_root(kernel, root, address_size, offset):
            continue
        number = prog.int_type("phys_addr_t", address_size, False, kernel.header.byteorder)
        types: dict[str, Type | Callable[[], Type]] = {
            "name": prog.pointer_type(prog.type("char")),
            "flags": _ulong(kernel),
        }
        members = [("start", number, 0), ("end", number, address_size)]
        members += [(name, types.get(name, _to_resource(prog)), place) for name, place in offset.items()]
        return _struct(kernel, "resource", members, offset["child"] + word)
    raise LookupError("struct resource has none of the known shapes")


def _to_resource(prog: Program) -> Callable[[], Type]:
    return lambda: prog.pointer_type(prog.type("struct resource"))


def _is_resource_root(kernel: Kernel, root: int, address_size: int, offsets: Mapping[str, int]) -> bool:
    order = kernel.header.byteorder
    word = kernel.header.bits // 8
    size = offsets["child"] + word

    def member(data: bytes, name: str) -> int:
        return int.from_bytes(data[offsets[name] : offsets[name] + word], order)

    data = kernel.read(root, size)
    start, end = (int.from_bytes(data[i * address_size : (i + 1) * address_size], order) for i in (0, 1))
    if start or not end or member(data, "parent") or member(data, "sibling"):
        return False
    child = member(data, "child")
    try:
        first = kernel.read(child, size)
    except FaultError:
        return False
    start, end = (int.from_bytes(first[i * address_size : (i + 1) * address_size], order) for i in (0, 1))
    return start <= end and member(first, "parent") == root


def _cpumask(kernel: Kernel) -> Type:
    """As many bits as nr_cpu_ids, in unsigned longs. CPUs that are online are present, and those possible."""
    count = _u32(kernel, _symbol(kernel, "nr_cpu_ids"))
    if not 0 < count <= MAX_CPUS:
        raise LookupError(f"nr_cpu_ids is {count}: 1 to {MAX_CPUS} are possible")
    bits = kernel.header.bits
    length = -(-count // bits)
    masks = []
    for name in ("online", "present", "possible"):
        address = _mask_address(kernel, name)
        value = 0
        for number, word in enumerate(_words(kernel, address, length)):
            value |= word << bits * number
        masks.append(value)
    if any(inner & ~outer for inner, outer in pairwise(masks)) or not masks[-1]:
        raise LookupError("the CPU masks contradict each other")
    bits_type = kernel.prog.array_type(_ulong(kernel), length)
    return _struct(kernel, "cpumask", [("bits", bits_type, 0)], length * bits // 8)


def _mask_address(kernel: Kernel, name: str) -> int:
    # Linux kernel commit 5aec01b834fd (in v4.5) made __cpu_online_mask of cpu_online_bits.
    try:
        return _symbol(kernel, f"__cpu_{name}_mask")
    except LookupError:
        return _symbol(kernel, f"cpu_{name}_bits")


def _kimage(kernel: Kernel) -> Type:
    """nr_segments, 16 segments of 4 words, three list heads, control_page, then bits: type, ..., file_mode.

    nr_segments has moved as members came before it. The lists close, there are as many segments as
    it says, each of whole pages, and a crash image's type is 1 (KEXEC_TYPE_CRASH).
    """
    word = kernel.header.bits // 8
    image = _words(kernel, _symbol(kernel, "kexec_crash_image"), 1)[0]
    if not image:
        raise LookupError("no crash kernel is loaded, so struct kimage cannot be recognised")
    prog, ulong = kernel.prog, _ulong(kernel)
    data = _words(kernel, image, 5 + 6 + 4 * KEXEC_SEGMENT_MAX + 8)
    for place in range(5, 11):
        lists = place + 1 + 4 * KEXEC_SEGMENT_MAX
        flags = lists + 7
        count = data[place]
        if not 0 < count <= KEXEC_SEGMENT_MAX:
            continue
        segments = [data[place + 1 + 4 * i : place + 5 + 4 * i] for i in range(count)]
        if not all(_is_segment(segment, kernel.header.page_size) for segment in segments):
            continue
        if any(data[place + 1 + 4 * count : lists]):
            continue
        if not all(_is_list(kernel, image + (lists + 2 * i) * word, data[lists + 2 * i :]) for i in range(3)):
            continue
        bits = _bit_fields(kernel, image + flags * word)
        if not bits[TYPE]:
            continue
        segment = _struct(
            kernel,
            "kexec_segment",
            [(name, ulong, i * word) for i, name in enumerate(("buf", "bufsz", "mem", "memsz"))],
            4 * word,
        )
        fields = {"type": TYPE, "file_mode": FILE_MODE}
        # kexec_file_load always sets it: where it is clear then, the bit means something else.
        if has_crash_hotplug(kernel) and (bits[HOTPLUG_SUPPORT] or not bits[FILE_MODE]):
            fields["hotplug_support"] = HOTPLUG_SUPPORT
        number = prog.type("unsigned int")
        members = [
            TypeMember(ulong, "nr_segments", 8 * place * word),
            TypeMember(prog.array_type(segment, KEXEC_SEGMENT_MAX), "segment", 8 * (place + 1) * word),
            *[_flag(number, name, 8 * flags * word + place) for name, place in fields.items()],
        ]
        return prog.struct_type("kimage", (flags + 1) * word, members)
    raise LookupError("struct kimage has none of the known shapes")


def _bit_fields(kernel: Kernel, address: int) -> list[int]:
    """The bits of an unsigned int in the order in which the compiler gives them to fields."""
    value = _u32(kernel, address)
    order = range(32) if kernel.header.byteorder == "little" else range(31, -1, -1)
    return [value >> bit & 1 for bit in order]


def _flag(number: Type, name: str, offset: int) -> TypeMember:
    return TypeMember(lambda: Object(number.prog, number, bit_field_size=1), name, offset)


def _is_segment(segment: Sequence[int], page_size: int) -> bool:
    _, bufsz, mem, memsz = segment
    return bool(mem) and mem % page_size == 0 and bufsz <= memsz and memsz > 0 and memsz % page_size == 0


def _is_list(kernel: Kernel, head: int, pointers: Sequence[int]) -> bool:
    """Whether a list head's neighbours point back at it."""
    word = kernel.header.bits // 8
    try:
        return _words(kernel, pointers[0] + word, 1)[0] == head and _words(kernel, pointers[1], 1)[0] == head
    except FaultError:
        return False


def has_crash_hotplug(kernel: Kernel) -> bool:
    """Whether the kernel can update elfcorehdr itself: it then has the function that does."""
    return kernel.symbols is not None and kernel.symbols.address("crash_handle_hotplug_event") is not None


def _xarray(kernel: Kernel) -> Type:
    """xa_lock, xa_flags, xa_head. A spinlock has 4 bytes unless it is debugged."""
    word = kernel.header.bits // 8
    pointer = kernel.prog.pointer_type(kernel.prog.void_type())
    return _struct(kernel, "xarray", [("xa_head", pointer, 8)], 8 + word)


def _xa_node(kernel: Kernel) -> Type:
    """shift, offset, count, nr_values: a byte each; parent, array, two words of a list, slots.

    The topmost node of memory_blocks names it as its array, and has no parent.
    """
    word = kernel.header.bits // 8
    array = _symbol(kernel, "memory_blocks")
    head = _words(kernel, array + 8, 1)[0]
    if head & 3 != 2:
        raise LookupError(f"memory_blocks has no node but {head:#x}, so struct xa_node cannot be recognised")
    node = head - 2
    parent, named = _words(kernel, node + word, 2)
    if parent or named != array:
        raise LookupError("struct xa_node has no known shape: the first of memory_blocks does not name it")
    count = kernel.read(node + 2, 1)[0]
    slots = 5 * word
    pointer = kernel.prog.pointer_type(kernel.prog.void_type())
    for length in XA_CHUNK_SIZES:
        try:
            filled = sum(1 for entry in _words(kernel, node + slots, length) if entry)
        except FaultError:
            continue
        if filled == count:
            return _struct(
                kernel,
                "xa_node",
                [("slots", kernel.prog.array_type(pointer, length), slots)],
                slots + length * word,
            )
    raise LookupError("struct xa_node has none of the known shapes")


def _memory_block(kernel: Kernel) -> Type:
    """start_section_nr, state: a block's place in memory_blocks is its number."""
    word, ulong = kernel.header.bits // 8, _ulong(kernel)
    per_block = _u32(kernel, _symbol(kernel, "sections_per_block"))
    blocks = list(islice(_blocks_by_index(kernel), 64))
    if not blocks:
        raise LookupError("memory_blocks is empty, so struct memory_block cannot be recognised")
    # state was an unsigned long, and is an enum of 4 bytes in Linux 7.x.
    for state, size in ((kernel.prog.type("unsigned int"), 4), (ulong, word)):
        if all(_is_block(kernel, address, index * per_block, size) for index, address in blocks):
            members = [("start_section_nr", ulong, 0), ("state", state, word)]
            return _struct(kernel, "memory_block", members, 2 * word)
    raise LookupError("struct memory_block has none of the known shapes")


def _is_block(kernel: Kernel, address: int, section: int, size: int) -> bool:
    word = kernel.header.bits // 8
    state = int.from_bytes(kernel.read(address + word, size), kernel.header.byteorder)
    return _words(kernel, address, 1)[0] == section and state in STATES


def _blocks_by_index(kernel: Kernel) -> Iterator[tuple[int, int]]:
    """(number, address) of blocks that can be read."""
    node_type = kernel.prog.type("struct xa_node")
    (slots,) = (member for member in node_type.members or () if member.name == "slots")
    length, offset = slots.type.length or 0, slots.offset
    pending = [(_words(kernel, _symbol(kernel, "memory_blocks") + 8, 1)[0], 0)]
    for _ in range(4096):
        if not pending:
            return
        entry, first = pending.pop(0)
        if entry & 3 == 0 and entry:
            yield first, entry
        if entry & 3 != 2 or entry <= 4096:
            continue
        try:
            shift = kernel.read(entry - 2, 1)[0]
            children = _words(kernel, entry - 2 + offset, length)
        except FaultError:
            continue
        if shift < 48:
            pending += [(child, first + (slot << shift)) for slot, child in enumerate(children) if child]


SHAPES: Mapping[str, Callable[[Kernel], Type]] = {
    "resource": _resource,
    "cpumask": _cpumask,
    "kimage": _kimage,
    "xarray": _xarray,
    "xa_node": _xa_node,
    "memory_block": _memory_block,
}
"""By the name after ``struct``."""
