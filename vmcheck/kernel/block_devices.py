# SPDX-License-Identifier: LGPL-2.1-or-later
"""Memory blocks of kernels before v5.8, by the devices of ``memory_subsys``.

Since Linux kernel commit 4fb6eabf1037 ("drivers/base/memory.c: cache memory blocks in
xarray to accelerate lookup") (in v5.8) there is an xarray of them. Before, they are on the list of the
subsystem's devices: a klist, whose two functions stand beside its list head and give it away.
Each node names its klist; a word near it points to a device called ``memoryN``, and the device is
inside struct memory_block, at the one place that fits every block.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from drgn import FaultError

from vmcheck.kernel.program import Kernel

MAX_BLOCKS = 1 << 18
SUBSYS_WORDS = 32
"""Of struct bus_type that are looked at for the pointer to struct subsys_private."""
PRIVATE_WORDS = 128
"""Of struct subsys_private that are looked at for its klist of devices."""
NODE_WORDS = 16
"""Around a klist_node, in struct device_private before v5.1 or behind it."""
BLOCK_WORDS = 12
"""Before the device in struct memory_block: it has 48 to 80 bytes there."""
STATES = (1, 2, 4, 8, 16, 32)
"""MEM_ONLINE is 1."""


class Block(NamedTuple):
    section: int
    """The number of its first section."""
    state: int


class _Device(NamedTuple):
    section: int
    before: list[int]
    """The words before the device: the rest of struct memory_block."""


def block_devices(kernel: Kernel) -> tuple[list[Block], int, list[str]]:
    """The blocks, how many sections each has, and where the list could not be read.

    Raises LookupError where a step is not as it should be, FaultError where the list's head is lost.
    """
    subsys, get, put, per = (
        _symbol(kernel, name)
        for name in ("memory_subsys", "klist_devices_get", "klist_devices_put", "sections_per_block")
    )
    per_block = int.from_bytes(kernel.read(per, 4), kernel.header.byteorder)
    if not 0 < per_block <= MAX_BLOCKS:
        raise LookupError(f"sections_per_block is {per_block}")
    unread: list[str] = []
    devices = _devices(kernel, _klist(kernel, subsys, get, put), per_block, unread)
    if not devices:
        raise LookupError("memory_subsys has no devices")
    for first in range(2, BLOCK_WORDS - 1):
        # start_section_nr, then end_section_nr before Linux kernel commit b6c88d3b9d38 (in v5.4), then state.
        for end in (1, 0):
            if all(_fits(device, first, end, per_block) for device in devices):
                state = first + 1 + end
                return [Block(each.section, each.before[state]) for each in devices], per_block, unread
    raise LookupError("struct memory_block has none of the known shapes")


def _symbol(kernel: Kernel, name: str) -> int:
    address = None if kernel.symbols is None else kernel.symbols.address(name)
    if address is None:
        raise LookupError(f"kallsyms has no {name}")
    return address


def _words(kernel: Kernel, address: int, count: int) -> list[int]:
    return [int(word) for word in kernel.words(address, count)]


def _pointer(kernel: Kernel, value: int) -> bool:
    """Whether it can be an address in the kernel's half of the address space."""
    return value >> (kernel.header.bits - 1) == 1 and value % (kernel.header.bits // 8) == 0


def _klist(kernel: Kernel, subsys: int, get: int, put: int) -> int:
    """The address of the klist of devices: k_lock, k_list, get, put."""
    word = kernel.header.bits // 8
    for private in _words(kernel, subsys, SUBSYS_WORDS):
        if not _pointer(kernel, private):
            continue
        try:
            words = _words(kernel, private, PRIVATE_WORDS)
        except FaultError:
            continue
        for place in range(3, PRIVATE_WORDS - 1):
            if words[place] == get and words[place + 1] == put:
                return private + (place - 3) * word
    raise LookupError("memory_subsys has no list of devices of a known shape")


def _devices(kernel: Kernel, klist: int, per_block: int, unread: list[str]) -> list[_Device]:
    word = kernel.header.bits // 8
    head = klist + word
    found: list[_Device] = []
    seen: set[int] = set()
    place: tuple[int, int] | None = None
    node, before = _words(kernel, head, 1)[0], head
    while node != head:
        if node in seen or len(seen) >= MAX_BLOCKS:
            raise LookupError("the list of memory blocks does not close")
        seen.add(node)
        try:
            around = _words(kernel, node - word, NODE_WORDS)
            if around[0] & ~1 != klist or around[2] != before:
                raise LookupError("a node of memory_subsys's devices does not lead back to its list")
            places = [place] if place else [(at, name) for at in range(4, NODE_WORDS) for name in (0, 2)]
            for at, name in places:
                if (section := _section(kernel, around[at], name, per_block)) is not None:
                    place = at, name
                    device = around[at]
                    found.append(_Device(section, _words(kernel, device - BLOCK_WORDS * word, BLOCK_WORDS)))
                    break
            else:
                raise LookupError("a device of memory_subsys has no memory block's name")
        except FaultError as error:
            unread.append(f"the list of memory blocks, behind {len(found)} of them: {error}")
            break
        node, before = around[1], node
    return found


def _section(kernel: Kernel, device: int, name: int, per_block: int) -> int | None:
    """The first section of the block whose device this is, by kobj.name."""
    if not _pointer(kernel, device):
        return None
    try:
        pointer = _words(kernel, device + name * kernel.header.bits // 8, 1)[0]
        text = bytes(kernel.prog.read_c_string(pointer, max_size=20))
    except FaultError:
        return None
    match = re.fullmatch(rb"memory(\d{1,12})", text)
    return int(match[1]) * per_block if match else None


def _fits(device: _Device, first: int, end: int, per_block: int) -> bool:
    words = device.before
    state = first + 1 + end
    return (
        state < BLOCK_WORDS
        and words[first] == device.section
        and (not end or words[first + 1] == device.section + per_block - 1)
        and words[state] & 0xFFFFFFFF in STATES
    )
