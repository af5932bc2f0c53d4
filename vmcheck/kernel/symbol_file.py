# SPDX-License-Identifier: LGPL-2.1-or-later
"""A small symbol file: one kernel build's types and data symbols, for dumps that lack their own.

A zip archive of ``build-id``, ``btf`` (the .BTF section) and ``symbols`` (lines of
``address kind name`` as nm(1) prints them, at link-time addresses, without KASLR's offset).
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from vmcheck.errors import VmcheckError
from vmcheck.files import open_input
from vmcheck.kernel.symbols import Symbol, SymbolError

_LIMITS = {"build-id": 256, "btf": 64 << 20, "symbols": 32 << 20}
"""Bytes of each member."""
ABSOLUTE = "A"
"""nm(1)'s letter for what KASLR does not move: offsets of per-CPU variables."""
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)
"""Of every member, so that the same kernel gives the same file."""


# What zipfile raises for archives that are damaged or use what no symbol file does.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    KeyError,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    OverflowError,
)


class SymbolFile:
    """A symbol file, read whole: a few MB."""

    def __init__(self, path: str) -> None:
        """Raises SymbolError for anything unfit."""
        self.path = path
        self.kernel_offset = 0
        """The dump's KERNELOFFSET, by which its symbols lie above the file's."""
        self.source = f"symbol file {Path(path).name}"
        try:
            with open_input(path) as file, zipfile.ZipFile(file) as archive:
                members = {name: self._member(archive, path, name) for name in _LIMITS}
        except _DAMAGED as error:
            raise SymbolError(f"{path}: not a vmcheck symbol file: {error}") from None
        self.build_id = members["build-id"].decode("ascii", "backslashreplace")
        self.btf = members["btf"]
        self._symbols: dict[str, Symbol] = {}
        try:
            for line in members["symbols"].decode("ascii").splitlines():
                text, kind, name = line.split(" ", 2)
                if (address := int(text, 16)) >> 64:
                    raise ValueError(f"{text[:20]} is no address")
                self._symbols.setdefault(name, Symbol(name, kind, address))
        except ValueError as error:
            raise SymbolError(f"{path}: symbols: {error}") from None

    @staticmethod
    def recognises(path: str) -> bool:
        """Whether the file is a zip archive, as every symbol file is. Raises UnreadableFile."""
        with open_input(path) as file:
            return zipfile.is_zipfile(file)

    def _member(self, archive: zipfile.ZipFile, path: str, name: str) -> bytes:
        if archive.getinfo(name).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise SymbolError(f"{path}: {name} is neither stored nor deflated")
        with archive.open(name) as member:
            data = member.read(_LIMITS[name] + 1)
        if len(data) > _LIMITS[name]:
            raise SymbolError(f"{path}: {name} is larger than {_LIMITS[name]} bytes")
        return data

    def address(self, name: str) -> int | None:
        symbol = self._symbols.get(name)
        if symbol is None or symbol.kind == ABSOLUTE:
            return symbol and symbol.address
        return (symbol.address + self.kernel_offset) % (1 << 64)

    def __iter__(self) -> Iterator[Symbol]:
        return iter(self._symbols.values())


def write_symbol_file(file: str | BinaryIO, build_id: str, btf: bytes, symbols: Iterable[Symbol]) -> None:
    """``symbols`` have link-time addresses."""
    text = "".join(f"{symbol.address:x} {symbol.kind} {symbol.name}\n" for symbol in sorted(set(symbols)))
    members = {"build-id": build_id.encode(), "btf": btf, "symbols": text.encode()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            if len(data) > _LIMITS[name]:
                raise VmcheckError(f"{name} has {len(data)} bytes; a symbol file takes {_LIMITS[name]}")
            archive.writestr(zipfile.ZipInfo(name, _TIMESTAMP), data, zipfile.ZIP_DEFLATED, 9)
