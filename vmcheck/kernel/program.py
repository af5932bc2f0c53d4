# SPDX-License-Identifier: LGPL-2.1-or-later
"""A crashed kernel as a drgn Program, by default without any debuginfo."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
from drgn import (
    Architecture,
    BadDataError,
    FaultError,
    FindObjectFlags,
    MissingDebugInfoError,
    Object,
    Platform,
    PlatformFlags,
    Program,
    Symbol,
    SymbolBinding,
    SymbolKind,
)

from vmcheck.errors import PageNotStored, VmcheckError
from vmcheck.facts.header import DumpHeader
from vmcheck.facts.topology import Fault
from vmcheck.formats.notes import gnu_build_id
from vmcheck.kernel import locate
from vmcheck.kernel.btf import MAX_BYTES, Btf
from vmcheck.kernel.symbols import Kallsyms, SymbolError

if TYPE_CHECKING:
    from vmcheck.kernel.symbol_file import SymbolFile

# Plugins of this machine's drgn have no business with a stranger's dump, and cost 0.1 s.
os.environ["DRGN_DISABLE_PLUGINS"] = "*"

# BTF names no variables, so each global that is read has its type here.
VARIABLES = {
    "__cpu_online_mask": "struct cpumask",
    "__cpu_possible_mask": "struct cpumask",
    "__cpu_present_mask": "struct cpumask",
    "__highest_present_section_nr": "unsigned long",
    "__per_cpu_offset": "unsigned long [8192]",
    "cpu_online_bits": "struct cpumask",
    "cpu_possible_bits": "struct cpumask",
    "cpu_present_bits": "struct cpumask",
    "crash_notes": "void *",
    "crashk_cma_cnt": "int",
    "crashk_cma_ranges": "struct range [4]",
    "crashk_low_res": "struct resource",
    "crashk_res": "struct resource",
    "init_pid_ns": "struct pid_namespace",
    "iomem_resource": "struct resource",
    "kexec_crash_image": "struct kimage *",
    "linux_banner": "char [512]",
    "memory_blocks": "struct xarray",
    "modules": "struct list_head",
    "nr_cpu_ids": "unsigned int",
    "page_offset_base": "unsigned long",
    "panic_cpu": "atomic_t",
    "runqueues": "struct rq",
    "saved_command_line": "char *",
    "sections_per_block": "int",
    "sysctl_bootid": "unsigned char [16]",
}


MAX_NOTES = 64 << 10
"""Bytes of the kernel's own ELF notes; Debian's have a few hundred."""
MAX_READ = 64 << 20
"""Bytes. The largest things that are read are BTF and the names in kallsyms, 2 to 6 MB."""


class Memory(Protocol):
    """A dump's physical memory."""

    def read(self, address: int, size: int) -> bytes:
        """Raises PageNotStored for what the dump does not hold."""


class NoWayIn(VmcheckError):
    """Nothing of the kernel can be read at all."""


class Kernel:
    """A kernel's memory, with whatever types and symbols could be had for it."""

    def __init__(self, header: DumpHeader, memory: Memory, symbols: str | None = None) -> None:
        """``symbols`` is a vmlinux with DWARF, or a small symbol file.

        Raises NoWayIn where nothing of the kernel can be read at all, and other
        VmcheckErrors for unfit ``symbols``.
        """
        if header.arch.drgn is None:
            raise NoWayIn(f"drgn reads no {header.machine} kernels")
        if not header.vmcoreinfo_notes:
            raise NoWayIn("no VMCOREINFO, so the kernel's memory cannot be read")
        self.header = header
        self.faults: list[Fault] = []
        self.remarks: list[str] = []
        self.symbols: Kallsyms | SymbolFile | None = None
        self.symbols_build_id: str | None = None
        self._own = "the running kernel's memory" if header.forecast else "the dump's own memory"
        self.source = f"VMCOREINFO and {self._own}, without types"
        self.has_types = False
        self.by_shape = False
        """Its types are those that shapes.py recognises, and no others."""
        self.btf: Btf | None = None
        self._memory = memory
        self._reading = "page tables"
        self._translated: list[int] | None = None
        self._entry = 0
        """Physical address of the page table entry that was read last."""
        self._page_tables: dict[int, bytes] = {}
        self._open()
        self._describe(symbols)

    def _open(self) -> None:
        flags = PlatformFlags(0)
        if self.header.byteorder == "little":
            flags |= PlatformFlags.IS_LITTLE_ENDIAN
        if self.header.bits == 64:
            flags |= PlatformFlags.IS_64_BIT
        platform = Platform(Architecture[self.header.arch.drgn or "UNKNOWN"], flags)
        vmcoreinfo = self.header.vmcoreinfo_notes[0]
        try:
            self.prog = Program(platform, vmcoreinfo=vmcoreinfo)
            self.prog.add_memory_segment(0, 1 << 57, self._read_physical, physical=True)
            self.prog.set_linux_kernel_custom(vmcoreinfo, False)
        except (ValueError, LookupError, FaultError, BadDataError, OverflowError) as error:
            raise NoWayIn(f"VMCOREINFO: {error}") from None

    def _read_physical(self, address: int, size: int, offset: int, physical: bool) -> bytes:
        if self._translated is not None:
            return self._translate(address, size)
        try:
            return self._memory.read(address, size)
        except PageNotStored as absent:
            if absent.address is not None:
                address = absent.address
            self.faults.append(Fault(self._reading, address, str(absent)))
            # drgn adds the address.
            why = str(absent).removeprefix(f"physical address {address:#x}: ")
            raise FaultError(why, address) from None

    @contextmanager
    def reading(self, structure: str) -> Iterator[None]:
        """Faults met inside are put down to ``structure``."""
        before, self._reading = self._reading, structure
        try:
            yield
        finally:
            self._reading = before

    # Types and symbols, in the order of preference of docs/architecture.md.

    def _describe(self, symbols: str | None) -> None:
        given = None
        if symbols is not None:
            # Here, for zipfile and pyelftools are a sixth of a check's time to import.
            from vmcheck.kernel.symbol_file import SymbolFile

            if SymbolFile.recognises(symbols):
                given = SymbolFile(symbols)
            elif self._load_vmlinux(symbols):
                return
        try:
            with self.reading("kallsyms"):
                if given and self._belongs(given.path, given.build_id):
                    given.kernel_offset = self.kernel_offset()
                    self.symbols = given
                else:
                    self.symbols = self._kallsyms()
            self._add_finders()
            with self.reading("BTF"):
                self._load_types()
        except (FaultError, BadDataError, LookupError, ValueError, OverflowError, VmcheckError) as error:
            self.remarks.append(f"the kernel's own types could not be had: {error}")

    def _load_vmlinux(self, path: str) -> bool:
        from vmcheck.formats import vmlinux

        if not self._belongs(path, vmlinux.build_id(path)):
            return False
        try:
            self.prog.load_debug_info([path], main=False)
        except (MissingDebugInfoError, ValueError, OSError) as error:
            raise VmcheckError(f"{path}: {error}") from None
        self.has_types = True
        self.source = f"{self._own}, with the DWARF of {Path(path).name}"
        return True

    def _belongs(self, path: str, build_id: str | None) -> bool:
        """Whether the symbols are of the kernel that crashed. If not, they are not used."""
        self.symbols_build_id = build_id
        dumped = self.header.vmcoreinfo.get("BUILD-ID")
        if build_id and dumped and build_id != dumped:
            self.remarks.append(f"{Path(path).name} is of another kernel and was not used")
            return False
        return True

    def kernel_offset(self) -> int:
        """KASLR's: by how much the kernel image lies above its link-time address."""
        value = self.header.vmcoreinfo.get("KERNELOFFSET", "0")
        if not re.fullmatch("[0-9a-f]{1,16}", value):
            raise SymbolError(f"VMCOREINFO has KERNELOFFSET {value!r}")
        return int(value, 16)

    def _kallsyms(self) -> Kallsyms:
        stext = self.vmcoreinfo_symbol("_stext")
        tables = {
            name.removeprefix("kallsyms_"): address
            for name, address in self._vmcoreinfo_symbols().items()
            if name.startswith("kallsyms_")
        }
        if "names" not in tables:
            # Before Linux kernel commit f09bddbd8661 ("vmcoreinfo: add kallsyms_num_syms
            # symbol") (in v6.0), VMCOREINFO does not name the tables.
            tables = dict(locate.kallsyms(self.image(), self.header.byteorder, self.header.bits // 8))
        return Kallsyms(self.read, tables, self.header.byteorder, stext, self.header.bits // 8)

    def _add_finders(self) -> None:
        self.prog.register_symbol_finder("vmcheck", self._find_symbol, enable_index=0)
        self.prog.register_object_finder("vmcheck", self._find_object, enable_index=0)

    def build_id(self) -> str | None:
        """VMCOREINFO's, or that of the kernel's own notes; None where it has neither.

        Since Linux kernel commit 0935288c6e00 ("kdump: append kernel build-id string to
        VMCOREINFO") (in v5.9), VMCOREINFO has it.
        """
        if said := self.header.vmcoreinfo.get("BUILD-ID"):
            return said
        if self.symbols is None:
            return None
        start, stop = (self.symbols.address(name) for name in ("__start_notes", "__stop_notes"))
        if start is None or stop is None or not 0 < stop - start <= MAX_NOTES:
            return None
        try:
            return gnu_build_id(self.search(start, stop - start), self.header.byteorder)
        except FaultError:
            return None

    def _load_types(self) -> None:
        """From BTF; where there is none that can be read, by shape."""
        try:
            self._load_btf()
        except (FaultError, VmcheckError) as error:
            from vmcheck.kernel.shapes import Shapes

            self.remarks.append(f"types are recognised by their shape: {error}")
            self.prog.register_type_finder("shapes", Shapes(self).find, enable_index=0)
            kallsyms = "its kallsyms" if isinstance(self.symbols, Kallsyms) else "symbols"
            self.source = f"{self._own}, with {kallsyms} and types by shape"
            self.has_types = self.by_shape = True

    def _load_btf(self) -> None:
        if self.symbols is None or isinstance(self.symbols, Kallsyms):
            data, self.source = self.own_btf(), f"{self._own}, with its BTF and kallsyms"
        else:
            data, self.source = self.symbols.btf, f"{self._own}, with {self.symbols.source}"
        self.btf = Btf(self.prog, data, self.header.byteorder)
        self.prog.register_type_finder("btf", self.btf.find, enable_index=0)
        self.has_types = True

    def own_btf(self) -> bytes:
        """The .BTF section in the kernel's memory. Raises SymbolError or FaultError."""
        assert self.symbols is not None
        start, stop = self.symbols.address("__start_BTF"), self.symbols.address("__stop_BTF")
        if start is None or stop is None:
            raise SymbolError("the kernel has no BTF (CONFIG_DEBUG_INFO_BTF is off)")
        if not 0 < stop - start <= MAX_BYTES:
            raise SymbolError(f"BTF from {start:#x} to {stop:#x} is impossible")
        return self.read(start, stop - start)

    def _find_symbol(self, prog: Program, name: str | None, address: int | None, one: bool) -> list[Symbol]:
        if name is None or address is not None or self.symbols is None:
            return []
        found = self.symbols.address(name)
        if found is None:
            return []
        return [Symbol(name, found, 1, SymbolBinding.UNKNOWN, SymbolKind.OBJECT)]

    def _find_object(
        self, prog: Program, name: str, flags: FindObjectFlags, filename: str | None
    ) -> Object | None:
        if self.symbols is None or name not in VARIABLES or not flags & FindObjectFlags.VARIABLE:
            return None
        address = self.symbols.address(name)
        return None if address is None else Object(prog, VARIABLES[name], address=address)

    # Reading.

    def read(self, address: int, size: int) -> bytes:
        """Virtual memory. Raises FaultError."""
        address %= 1 << self.header.bits
        if size > MAX_READ:
            raise FaultError(f"{size:#x} bytes at once: no structure of a kernel is that large", address)
        return bytes(self.prog.read(address, size))

    def section_flag(self, name: str) -> int | None:
        """Which bit of section_mem_map a flag is, where BTF says so: ``SECTION_IS_ONLINE_BIT``."""
        return None if self.btf is None else self.btf.enumerator(f"{name}_BIT")

    def has_section_flags(self) -> bool:
        """Whether BTF names section_mem_map's flags, so that one which it does not name does not exist."""
        return self.section_flag("SECTION_IS_ONLINE") is not None

    def text(self) -> int | None:
        """The physical address of the kernel's text; None where it cannot be translated."""
        try:
            return self.physical(self.vmcoreinfo_symbol("_stext"))
        except (LookupError, FaultError, ValueError, IndexError):
            return None

    def physical(self, address: int) -> int:
        """The physical address that a virtual one is mapped to, whether or not the dump holds it.

        Page tables are read and nothing else. Raises FaultError where there is no mapping.
        """
        return self.mapping(address)[0]

    def mapping(self, address: int) -> tuple[int, int]:
        """As ``physical``, and where the page table entry is that maps it: two addresses of one entry
        are in one mapping."""
        self._translated = []
        try:
            self.prog.read(address, 1)
            return self._translated[-1], self._entry
        finally:
            self._translated = None

    def _translate(self, address: int, size: int) -> bytes:
        """Page table entries are served from whole tables; the one byte at the end is not read."""
        assert self._translated is not None
        if size == 1:
            self._translated.append(address)
            return b"\0"
        page_size = self.header.page_size
        self._entry = address
        table = address - address % page_size
        if table not in self._page_tables:
            if len(self._page_tables) >= 4096:
                self._page_tables.clear()
            try:
                self._page_tables[table] = self._memory.read(table, page_size)
            except PageNotStored as absent:
                if table in self.header.filtered:
                    self.faults.append(Fault("page tables", table, str(absent)))
                raise FaultError(str(absent), address) from None
        return self._page_tables[table][address - table : address - table + size]

    def words(self, address: int, count: int) -> npt.NDArray[np.uint64]:
        """``count`` unsigned longs of virtual memory, 4 or 8 bytes each."""
        order = "<" if self.header.byteorder == "little" else ">"
        data = self.read(address, count * self.header.bits // 8)
        return np.frombuffer(data, f"{order}u{self.header.bits // 8}").astype(np.uint64)

    def _vmcoreinfo_symbols(self) -> Mapping[str, int]:
        found = {}
        for key, value in self.header.vmcoreinfo.items():
            if (match := re.fullmatch(r"SYMBOL\((\w+)\)", key)) and re.fullmatch("[0-9a-f]{1,16}", value):
                found[match[1]] = int(value, 16)
        return found

    def vmcoreinfo_symbol(self, name: str) -> int:
        """Virtual address. Raises LookupError."""
        symbols = self._vmcoreinfo_symbols()
        if name not in symbols:
            raise LookupError(f"VMCOREINFO has no SYMBOL({name})")
        return symbols[name]

    def vmcoreinfo_number(self, key: str) -> int:
        """``NUMBER(x)``, ``SIZE(x)``, ``OFFSET(x)`` or ``LENGTH(x)``. Raises LookupError."""
        value = self.header.vmcoreinfo.get(key)
        if value is None or not re.fullmatch(r"-?\d{1,19}|0x[0-9a-f]{1,16}", value):
            raise LookupError(f"VMCOREINFO has no number {key}" + (f" but {value!r}" if value else ""))
        return int(value, 0)

    def image(self) -> locate.Image:
        """The kernel image, to be searched for what has no symbol."""
        stext = self.vmcoreinfo_symbol("_stext")
        variables = [address for address in self._vmcoreinfo_symbols().values() if address > stext]
        return locate.Image(self.search, stext, min(variables, default=None))

    def search(self, address: int, size: int) -> bytes:
        """As ``read``, where nothing is known to be there: what is absent is no loss."""
        met = len(self.faults)
        try:
            return self.read(address, size)
        finally:
            del self.faults[met:]
