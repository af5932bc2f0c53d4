# SPDX-License-Identifier: LGPL-2.1-or-later
"""One kernel's types and symbols, from a vmlinux or a dump, into a small file."""

from __future__ import annotations

from vmcheck.errors import VmcheckError
from vmcheck.formats import is_executable, open_dump, vmlinux
from vmcheck.kernel.program import Kernel
from vmcheck.kernel.symbol_file import ABSOLUTE, write_symbol_file
from vmcheck.kernel.symbols import Kallsyms, Symbol
from vmcheck.operations.examine import in_child
from vmcheck.operations.outputs import replacing

_PER_CPU_OFFSETS = range(1 << 20)
"""Where x86_64's per-CPU variables have their symbols, until v6.15. No kernel image begins below."""


def collect_symbols(source: str, output: str) -> tuple[int, int]:
    """Write ``output`` from a vmlinux or a dump; returns its symbols and bytes. Raises VmcheckError."""
    if is_executable(source):
        build_id, btf = vmlinux.build_id(source), vmlinux.btf(source)
        symbols = [
            Symbol(name, ABSOLUTE if address in _PER_CPU_OFFSETS else "D", address)
            for name, address in vmlinux.data_symbols(source)
        ]
    else:
        build_id, btf, symbols = _of_dump(source)
    if not build_id:
        raise VmcheckError(f"{source}: no build ID, so nothing would tell which dumps the symbols fit")
    with replacing(output) as file:
        write_symbol_file(file, build_id, btf, symbols)
        return len(set(symbols)), file.tell()


def _of_dump(path: str) -> tuple[str | None, bytes, list[Symbol]]:
    with open_dump([path]) as dump:

        def read() -> tuple[str | None, bytes, list[Symbol]]:
            kernel = Kernel(dump.header, dump.memory)
            if not isinstance(kernel.symbols, Kallsyms) or not kernel.has_types:
                raise VmcheckError(f"{path}: {'; '.join(kernel.remarks)}")
            # Not by nm(1)'s letter: 7.2 kernels have T for much of .data.
            offset, data = kernel.kernel_offset(), kernel.symbols.address("_etext") or 0
            return (
                kernel.build_id(),
                b"" if kernel.by_shape else kernel.own_btf(),
                [
                    symbol if symbol.kind == ABSOLUTE else symbol._replace(address=symbol.address - offset)
                    for symbol in kernel.symbols
                    if symbol.kind == ABSOLUTE or symbol.address >= data
                ],
            )

        return in_child(read)
