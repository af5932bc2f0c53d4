# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel of a 32 TiB machine with 128 MiB sections, laid over the memory of a real dump."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from drgn import sizeof
from drgn.helpers.linux.xarray import xa_for_each

from benchmarks.inputs import Inputs
from benchmarks.measure import Lacking, Row, compared
from vmcheck.facts.topology import Unknown, known
from vmcheck.formats import open_dump
from vmcheck.kernel import memory
from vmcheck.kernel.program import Kernel

SECTIONS = 1 << 18
"""Each is a memory block of its own."""
ROOTS, NODES, BLOCKS = 0xFFFFE00000000000, 0xFFFFE10000000000, 0xFFFFE20000000000
"""Virtual addresses where x86_64 kernels have nothing."""
BLOCK_STEP = 1024
"""The kmalloc cache that a struct memory_block comes from."""
XA_CHUNK = 64
PRESENT_ONLINE_EARLY = 0b1101

Bytes = npt.NDArray[np.uint8]


class LargeMachine:
    """A real dump's kernel that has ``sections`` sections and memory blocks, all of them online."""

    def __init__(self, kernel: Kernel, sections: int) -> None:
        """Raises Lacking for a dump whose kernel has no types or keeps its sections otherwise."""
        self.kernel = kernel
        self.sections = sections
        if not kernel.has_types:
            raise Lacking(f"the dump's kernel has no types: {'; '.join(kernel.remarks)}")
        self._add_sections()
        self._add_blocks()

    def _lay(self, address: int, data: Bytes) -> None:
        """Have these bytes at a virtual address, whatever the dump has there."""

        def read(_address: int, size: int, offset: int, _physical: bool) -> bytes:
            return data[offset : offset + size].tobytes()

        self.kernel.prog.add_memory_segment(address, len(data), read)

    def _lay_number(self, address: int | None, value: int) -> None:
        assert address is not None
        self._lay(address, np.array([value], np.uint64).view(np.uint8))

    def _add_sections(self) -> None:
        size = self.kernel.vmcoreinfo_number("SIZE(mem_section)")
        per_root = self.kernel.header.page_size // size
        table = np.zeros((self.sections, size // 8), np.uint64)
        table[:, 0] = PRESENT_ONLINE_EARLY
        self.table = table.view(np.uint8).reshape(-1)
        self._lay(ROOTS, self.table)
        roots = np.zeros(self.kernel.vmcoreinfo_number("LENGTH(mem_section)"), np.uint64)
        used = -(-self.sections // per_root)
        if used > len(roots):
            raise Lacking("a dump of a kernel with SPARSEMEM_EXTREME")
        roots[:used] = ROOTS + np.arange(used, dtype=np.uint64) * np.uint64(per_root * size)
        self._lay(self.kernel.vmcoreinfo_symbol("mem_section"), roots.view(np.uint8))
        self._lay_number(self.kernel.prog["__highest_present_section_nr"].address_, self.sections - 1)

    def _add_blocks(self) -> None:
        block = self.kernel.prog.type("struct memory_block")
        assert sizeof(block) <= BLOCK_STEP
        blocks = np.zeros((self.sections, BLOCK_STEP), np.uint8)
        numbers = np.arange(self.sections, dtype=np.uint64)
        _set_member(blocks, block, "start_section_nr", numbers)
        _set_member(blocks, block, "state", np.ones(self.sections, np.uint64))
        self._lay(BLOCKS, blocks.reshape(-1))
        self._add_xarray(np.uint64(BLOCKS) + numbers * np.uint64(BLOCK_STEP))

    def _add_xarray(self, entries: npt.NDArray[np.uint64]) -> None:
        """The tree of ``memory_blocks``: nodes of 64 slots, their pointers marked by adding 2."""
        node = self.kernel.prog.type("struct xa_node")
        address, shift = NODES, 0
        while len(entries) > 1 or shift == 0:
            nodes = np.zeros((-(-len(entries) // XA_CHUNK), sizeof(node)), np.uint8)
            slots = np.zeros((len(nodes), XA_CHUNK), np.uint64)
            slots.reshape(-1)[: len(entries)] = entries
            offset = _member(node, "slots").offset
            nodes[:, offset : offset + 8 * XA_CHUNK] = slots.view(np.uint8)
            _set_member(nodes, node, "shift", np.full(len(nodes), shift, np.uint64))
            self._lay(address, nodes.reshape(-1))
            entries = np.uint64(address + 2) + np.arange(len(nodes), dtype=np.uint64) * np.uint64(
                sizeof(node)
            )
            address, shift = address + nodes.nbytes, shift + 6
        self._lay_number(self.kernel.prog["memory_blocks"].xa_head.address_, int(entries[0]))

    def read_sections(self) -> None:
        account = known(memory.sections(memory.SectionTable(self.kernel), Unknown("not read"))).account
        assert account.ram.size == self._size

    def read_section_bytes(self) -> None:
        self.kernel.read(ROOTS, len(self.table))

    def read_blocks(self) -> None:
        account = memory.blocks(memory.BlockTable(self.kernel, self._section_size)).account
        assert account.ram.size == self._size

    def read_blocks_with_drgn(self) -> None:
        array = self.kernel.prog["memory_blocks"].address_of_()
        block = self.kernel.prog.type("struct memory_block *")
        for _, entry in xa_for_each(array):
            pointer = type(entry)(self.kernel.prog, block, int(entry))
            pointer.start_section_nr.value_()
            pointer.state.value_()

    @property
    def _section_size(self) -> int:
        return 1 << self.kernel.vmcoreinfo_number("NUMBER(SECTION_SIZE_BITS)")

    @property
    def _size(self) -> int:
        return self.sections * self._section_size


def topology(inputs: Inputs) -> Iterator[Row]:
    with open_dump([inputs.dump]) as dump:
        machine = LargeMachine(Kernel(dump.header, dump.memory), SECTIONS // inputs.scale)
        yield compared(
            f"{machine.sections:,} sections (mem_section), in-process",
            machine.read_sections,
            "drgn reading their bytes at once",
            machine.read_section_bytes,
            inputs.repetitions,
        )
        yield compared(
            f"{machine.sections:,} memory blocks (xarray), in-process",
            machine.read_blocks,
            "drgn's xa_for_each(), two members of each",
            machine.read_blocks_with_drgn,
            max(1, inputs.repetitions // 5),
        )


def _member(type_: Any, name: str) -> Any:
    return next(member for member in type_.members if member.name == name)


def _set_member(rows: Bytes, type_: Any, name: str, values: npt.NDArray[np.uint64]) -> None:
    """An integer member of little-endian structures, one a row."""
    member = _member(type_, name)
    size = sizeof(member.type)
    rows[:, member.offset : member.offset + size] = values.view(np.uint8).reshape(-1, 8)[:, :size]
