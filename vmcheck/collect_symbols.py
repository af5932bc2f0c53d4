# SPDX-License-Identifier: LGPL-2.1-or-later
"""One kernel's types and symbols, from a vmlinux or a dump, into a small file."""

from __future__ import annotations

from vmcheck.errors import VmcheckError
from vmcheck.examine import in_child
from vmcheck.formats import open_dump, vmlinux
from vmcheck.kernel.program import Kernel
from vmcheck.kernel.symbol_file import write_symbol_file
from vmcheck.kernel.symbols import Kallsyms, Symbol

_DATA = frozenset("bBdDrRvVgG")
"""nm(1)'s letters for what is no function. A check asks for no function."""


def collect_symbols(source: str, output: str) -> int:
    """Write ``output`` from a vmlinux or a dump; returns how many symbols it has. Raises VmcheckError."""
    if vmlinux.is_executable(source):
        build_id, btf = vmlinux.build_id(source), vmlinux.btf(source)
        symbols = [Symbol(name, "D", address) for name, address in vmlinux.data_symbols(source)]
    else:
        build_id, btf, symbols = _of_dump(source)
    if not build_id:
        raise VmcheckError(f"{source}: no build ID, so nothing would tell which dumps the symbols fit")
    write_symbol_file(output, build_id, btf, symbols)
    return len(symbols)


def _of_dump(path: str) -> tuple[str | None, bytes, list[Symbol]]:
    with open_dump([path]) as dump:

        def read() -> tuple[bytes, list[Symbol]]:
            kernel = Kernel(dump.header, dump.memory)
            if not isinstance(kernel.symbols, Kallsyms) or not kernel.has_types:
                raise VmcheckError(f"{path}: {'; '.join(kernel.remarks)}")
            offset, stext = kernel.kernel_offset(), kernel.vmcoreinfo_symbol("_stext")
            # Below _stext are the offsets of per-CPU variables, which KASLR does not move.
            return kernel.own_btf(), [
                symbol._replace(address=symbol.address - offset)
                for symbol in kernel.symbols
                if symbol.kind in _DATA and symbol.address >= stext
            ]

        btf, symbols = in_child(read)
        return dump.header.vmcoreinfo.get("BUILD-ID"), btf, symbols
