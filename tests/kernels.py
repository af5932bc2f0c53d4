# SPDX-License-Identifier: LGPL-2.1-or-later
"""Small x86_64 kernels, laid out by the test that needs them: page tables, structures, types, symbols.

A test says only what is wrong with its kernel::

    machine = healthy()
    machine.put(machine.symbols["iomem_resource"], resource(child=machine.symbols["iomem_resource"]))
    topology = machine.topology(tmp_path)

Everything lies in the first MiB of physical memory, and is mapped twice, as Linux has it:
at the direct map and at the kernel image.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.builders import DIRECT_MAP, GiB, Load, MiB, elf_vmcore, prstatus, ram, write
from vmcheck.errors import PageNotStored
from vmcheck.facts.header import DumpHeader
from vmcheck.facts.topology import Topology
from vmcheck.formats import read_header
from vmcheck.kernel import btf
from vmcheck.kernel.program import Kernel
from vmcheck.kernel.symbol_file import write_symbol_file
from vmcheck.kernel.symbols import Symbol
from vmcheck.operations.examine import read_kernel

PAGE_OFFSET = DIRECT_MAP[64]
IMAGE = 0xFFFFFFFF80000000
SECTION_SIZE = 128 * MiB
SECTIONS = 1 << 11
"""MAX_PHYSMEM_BITS is 38: 256 GiB."""
SECTIONS_PER_ROOT = 256
SLOTS = 16
"""Of an xarray node; Linux has 64, which no test needs."""
BUILD_ID = "f00d"
PRESENT, HAS_MEM_MAP, ONLINE, EARLY = 1, 2, 4, 8
SYSTEM_RAM = 0x81000200
"""IORESOURCE_SYSTEM_RAM and IORESOURCE_BUSY."""


class Types:
    """A .BTF section in the making. Each method returns the new type's id."""

    def __init__(self) -> None:
        self._records: list[bytes] = []
        self._strings = b"\0"
        self.sizes: dict[int, int] = {}

    def add(
        self,
        kind: int,
        name: str = "",
        size_or_type: int = 0,
        words: Sequence[int] = (),
        vlen: int = 0,
        kind_flag: bool = False,
    ) -> int:
        """Any ``struct btf_type`` and the words after it, right or wrong."""
        info = kind_flag << 31 | kind << 24 | vlen
        record = struct.pack(f"<{3 + len(words)}I", self.string(name), info, size_or_type, *words)
        self._records.append(record)
        return len(self._records)

    @property
    def following(self) -> int:
        """The id of the type that is added next."""
        return len(self._records) + 1

    def string(self, text: str) -> int:
        """Its offset. Each string is there once."""
        if not text:
            return 0
        place = self._strings.find(b"\0" + text.encode() + b"\0") + 1
        if not place:
            place = len(self._strings)
            self._strings += text.encode() + b"\0"
        return place

    def integer(self, name: str, size: int, signed: bool = False) -> int:
        return self._sized(self.add(btf.INT, name, size, [signed << 24 | size * 8]), size)

    def pointer(self, to: int = 0) -> int:
        return self._sized(self.add(btf.PTR, size_or_type=to), 8)

    def array(self, of: int, length: int) -> int:
        return self._sized(self.add(btf.ARRAY, words=[of, of, length]), self.sizes[of] * length)

    def struct(self, name: str, *members: tuple[str, int], size: int | None = None) -> int:
        """Members of (name, type) one after the other, without padding."""
        words, offset = [], 0
        for member, type_id in members:
            words += [self.string(member), type_id, 8 * offset]
            offset += self.sizes[type_id]
        size = offset if size is None else size
        return self._sized(self.add(btf.STRUCT, name, size, words, len(members)), size)

    def enum(self, name: str, **values: int) -> int:
        words = [word for key, value in values.items() for word in (self.string(key), value)]
        return self._sized(self.add(btf.ENUM, name, 4, words, len(values)), 4)

    def _sized(self, type_id: int, size: int) -> int:
        self.sizes[type_id] = size
        return type_id

    def section(self, layout: bytes | None = None) -> bytes:
        """``layout`` is the layout section that BTF has since v7.2."""
        types = b"".join(self._records)
        tables = [0, len(types), len(types), len(self._strings)]
        if layout is not None:
            tables += [len(types) + len(self._strings), len(layout)]
        header = struct.pack(f"<HBBI{len(tables)}I", btf.MAGIC, 1, 0, 8 + 4 * len(tables), *tables)
        return header + types + self._strings + (layout or b"")


def kernel_types(
    states: Mapping[str, int] | None = None, image: Sequence[str] = (), slots: int = SLOTS
) -> Types:
    """The types that a check uses.

    ``states`` makes ``enum memory_block_state``, ``image`` gives struct kimage members.
    """
    types = Types()
    ulong, u32 = types.integer("long unsigned int", 8), types.integer("unsigned int", 4)
    pointer, char = types.pointer(), types.integer("char", 1, signed=True)
    name, to_resource = types.pointer(char), types.pointer(types.following + 1)
    types.struct(
        "resource",
        *[(name, ulong) for name in ("start", "end")],
        ("name", name),
        *[(name, ulong) for name in ("flags", "desc")],
        *[(name, to_resource) for name in ("parent", "sibling", "child")],
    )
    types.struct("range", ("start", ulong), ("end", ulong))
    types.struct("cpumask", ("bits", types.array(ulong, 1)))
    types.struct("xarray", ("xa_lock", ulong), ("xa_head", pointer))
    types.struct("xa_node", ("parent", pointer), ("slots", types.array(pointer, slots)))
    types.struct("memory_block", ("start_section_nr", ulong), ("state", ulong))
    if states is not None:
        types.enum("memory_block_state", **states)
    segment = types.struct("kexec_segment", *[(name, ulong) for name in ("buf", "bufsz", "mem", "memsz")])
    types.struct(
        "kimage",
        ("nr_segments", ulong),
        ("segment", types.array(segment, 16)),
        *[(name, u32) for name in image],
    )
    types.add(btf.TYPEDEF, "note_buf_t", types.array(u32, 92))
    return types


def words(*values: int) -> bytes:
    """Unsigned longs."""
    return struct.pack(f"<{len(values)}Q", *values)


def resource(
    start: int = 0,
    end: int = 0,
    flags: int = SYSTEM_RAM,
    name: int = 0,
    sibling: int = 0,
    child: int = 0,
    parent: int = 0,
) -> bytes:
    """``struct resource`` of ``[start, end)``."""
    return words(start, (end - 1) % 2**64, name, flags, 0, parent, sibling, child)


def note(cpu: int) -> bytes:
    """``crash_notes`` of a CPU that saved its registers."""
    descriptor = prstatus(100 + cpu).descriptor
    return struct.pack("<III", 5, len(descriptor), 1) + b"CORE\0\0\0\0" + descriptor


class Machine:
    """Physical memory, and what VMCOREINFO, kallsyms and BTF would say of it."""

    def __init__(self, types: Types | None = None) -> None:
        self.memory = bytearray(64 << 10)
        self.lost: set[int] = set()
        """Numbers of the pages that the dump does not hold."""
        self.symbols: dict[str, int] = {}
        self.types = types or kernel_types()
        self.build_id = BUILD_ID
        """Of the symbol file."""
        self.btf: bytes | None = None
        """Instead of ``types``."""
        self.vmcoreinfo = {
            "OSRELEASE": "6.1.0-test",
            "BUILD-ID": BUILD_ID,
            "PAGESIZE": "4096",
            "SYMBOL(_stext)": f"{IMAGE:x}",
            "SYMBOL(swapper_pg_dir)": f"{IMAGE + 0x1000:x}",
            "NUMBER(phys_base)": "0",
            "NUMBER(pgtable_l5_enabled)": "0",
            "KERNELOFFSET": "0",
            "CRASHTIME": "1",
            "SIZE(page)": "64",
            "OFFSET(page.flags)": "0",
            "OFFSET(page.compound_head)": "8",
            "NUMBER(PG_slab)": "7",
        }
        # Two levels with 1 GiB pages: present, writable, PSE.
        self._physically(0x1000 + 8 * (PAGE_OFFSET >> 39 & 511), words(0x2003))
        self._physically(0x1000 + 8 * 511, words(0x3003))
        self._physically(0x2000, words(*[n * GiB | 0x83 for n in range(512)]))
        self._physically(0x3000 + 8 * 510, words(0x83))

    def _physically(self, address: int, data: bytes) -> None:
        self.memory[address : address + len(data)] = data

    def put(self, address: int, data: bytes) -> None:
        """Write at an address of the direct map."""
        self._physically(address - PAGE_OFFSET, data)

    def word(self, address: int) -> int:
        """Read an unsigned long of the direct map."""
        return int.from_bytes(self.memory[address - PAGE_OFFSET :][:8], "little")

    def place(self, data: bytes, symbol: str | None = None, align: int = 64) -> int:
        """Put data where there is room; its address in the direct map."""
        self.memory += bytes(-len(self.memory) % align)
        address = len(self.memory) + PAGE_OFFSET
        self.memory += data
        if symbol:
            self.symbols[symbol] = address
        return address

    def on_its_own_page(self, data: bytes, symbol: str | None = None) -> int:
        """As ``place``, so that the page can be lost alone."""
        address = self.place(data, symbol, 4096)
        self.memory += bytes(-len(self.memory) % 4096)
        return address

    def lose(self, address: int) -> None:
        """The page at an address of the direct map is not in the dump."""
        self.lost.add((address - PAGE_OFFSET) // 4096)

    def read(self, address: int, size: int) -> bytes:
        """As the memory of a dump."""
        for page in range(address // 4096, (address + size - 1) // 4096 + 1):
            if page in self.lost or page * 4096 >= len(self.memory):
                raise PageNotStored(f"physical address {page * 4096:#x}: lost", max(address, page * 4096))
        return bytes(self.memory[address : address + size]).ljust(size, b"\0")

    def header(self, directory: Path) -> DumpHeader:
        """Of a dump of the machine that describes all memory of a healthy one."""
        end = -(-len(self.memory) // 4096) * 4096
        return read_header([self.vmcore(directory / "headers", [ram(end, max(end, GiB))])])

    def text(self) -> str:
        return "".join(f"{key}={value}\n" for key, value in self.vmcoreinfo.items())

    def symbol_file(self, directory: Path) -> str:
        path = str(directory / "kernel.symbols")
        symbols = [Symbol(name, "D", address) for name, address in self.symbols.items()]
        write_symbol_file(
            path, self.build_id, self.types.section() if self.btf is None else self.btf, symbols
        )
        return path

    def kernel(self, directory: Path) -> Kernel:
        return Kernel(self.header(directory), self, self.symbol_file(directory))

    def topology(self, directory: Path, symbols: str | None = None) -> Topology:
        """What a check is told, by its own symbol file or another."""
        return read_kernel(self.header(directory), self, symbols or self.symbol_file(directory))

    def vmcore(
        self,
        path: Path,
        described: Iterable[Load] = (),
        cpus: Sequence[int] = (0, 1),
        **options: object,
    ) -> str:
        """A raw ELF dump of the machine: its memory, and ``described`` besides."""
        loads = [ram(0, len(self.memory), bytes(self.memory)), *described]
        pids = [100 + cpu for cpu in cpus]
        write(path, elf_vmcore(loads, pids, vmcoreinfo=self.text(), **options))  # type: ignore[arg-type]
        return str(path)


def healthy(types: Types | None = None, ram: Mapping[int, int] | None = None) -> Machine:
    """A kernel with two CPUs and 1 GiB of memory from 0, of which nothing is special.

    ``ram`` has the flags of each section by number, instead of 8 that were there at boot.
    """
    machine = Machine(types)
    flags = {n: PRESENT | HAS_MEM_MAP | ONLINE | EARLY for n in range(8)} if ram is None else ram
    _sections(machine, flags)
    _resources(machine, flags)
    blocks(machine, {n: 1 if flag & ONLINE else 4 for n, flag in flags.items()})
    machine.symbols |= {"_stext": IMAGE, "_etext": IMAGE + 0x1000}
    machine.place(words(1), "sections_per_block")
    for name, mask in {"possible": 0b1111, "present": 0b11, "online": 0b11}.items():
        machine.place(words(mask), f"__cpu_{name}_mask")
    notes = [machine.place(note(cpu) if cpu < 2 else bytes(368)) for cpu in range(4)]
    machine.place(words(notes[0]), "crash_notes")
    machine.place(words(*[(place - notes[0]) % 2**64 for place in notes], *[0] * 60), "__per_cpu_offset")
    machine.place(words(PAGE_OFFSET), "page_offset_base")
    machine.place(words(0), "kexec_crash_image")
    machine.place(resource(), "crashk_res")
    return machine


def _sections(machine: Machine, flags: Mapping[int, int]) -> None:
    table = machine.place(b"".join(words(flags.get(n, 0), 0) for n in range(SECTIONS_PER_ROOT)), align=4096)
    roots = machine.place(words(table, *[0] * (SECTIONS // SECTIONS_PER_ROOT - 1)))
    machine.vmcoreinfo |= {
        "SYMBOL(mem_section)": f"{roots:x}",
        "NUMBER(SECTION_SIZE_BITS)": "27",
        "NUMBER(MAX_PHYSMEM_BITS)": "38",
        "LENGTH(mem_section)": str(SECTIONS // SECTIONS_PER_ROOT),
        "SIZE(mem_section)": "16",
        "OFFSET(mem_section.section_mem_map)": "0",
    }


def _resources(machine: Machine, flags: Mapping[int, int]) -> None:
    name = machine.place(b"System RAM\0")
    root = machine.place(resource(0, 0, 0), "iomem_resource")
    first = 0
    for number in sorted(flags, reverse=True):
        start = number * SECTION_SIZE
        made = resource(start, start + SECTION_SIZE, name=name, sibling=first, parent=root)
        first = machine.place(made)
    machine.put(root + 56, words(first))


def blocks(machine: Machine, states: Mapping[int, int]) -> None:
    """``memory_blocks``: an xarray of two levels, of (section number, state)."""
    entries = [machine.place(words(number, state), align=16) for number, state in states.items()]
    leaves = [
        machine.place(words(0, *_filled(entries[begin : begin + SLOTS]))) | 2
        for begin in range(0, len(entries), SLOTS)
    ]
    root = machine.place(words(0, *_filled(leaves)))
    machine.place(words(0, root | 2), "memory_blocks")


def _filled(slots: Sequence[int]) -> list[int]:
    return [*slots, *[0] * (SLOTS - len(slots))]
