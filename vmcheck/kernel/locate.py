# SPDX-License-Identifier: LGPL-2.1-or-later
"""Find the kallsyms tables of a kernel that names none, by their shape.

Until Linux kernel commit f09bddbd8661 ("vmcoreinfo: add kallsyms_num_syms symbol") (in
v6.0), VMCOREINFO does not say where they are: Debian 5.10, RHEL 8. scripts/kallsyms.c
writes them next to each other in .rodata, each aligned to 8 bytes (``ALGN``)::

    offsets  relative_base  num_syms  names  markers  token_table  token_index

token_index is 256 ascending u16 which point at NUL-ended strings right before it: in
80 MB of kernel there is one such place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from drgn import FaultError

from vmcheck.kernel.symbols import SymbolError

IMAGE_LIMIT = 256 << 20
"""Bytes searched from _stext on. KERNEL_IMAGE_SIZE is 1 GiB, most of it room for modules."""
_CHUNK = 2 << 20
_TOKENS = 256


class Image:
    """The kernel image's mapped memory, by virtual address, read once and kept in pieces."""

    def __init__(self, read: Callable[[int, int], bytes], start: int) -> None:
        self.read = read
        self._start = start

    def runs(self) -> Iterator[tuple[int, bytes]]:
        """(address, bytes) of each stretch that can be read; ends at the first 16 MiB that cannot."""
        run, begin, missing = bytearray(), self._start, 0
        for address in range(self._start, self._start + IMAGE_LIMIT, _CHUNK):
            try:
                run += self.read(address, _CHUNK)
                missing = 0
            except FaultError:
                if run:
                    yield begin, bytes(run)
                run, begin, missing = bytearray(), address + _CHUNK, missing + _CHUNK
                if missing >= 16 << 20:
                    return
        if run:
            yield begin, bytes(run)


def kallsyms(image: Image, byteorder: str) -> Mapping[str, int]:
    """Virtual address of each ``kallsyms_*`` table, without the prefix. Raises SymbolError."""
    for base, data in image.runs():
        for token_index in _token_indexes(data, byteorder):
            token_table = _token_table(data, token_index, byteorder)
            if token_table is None:
                continue
            if (tables := _before(data, token_table, byteorder)) is None:
                continue
            tables |= {"token_table": token_table, "token_index": token_index}
            return {name: base + offset for name, offset in tables.items()}
    raise SymbolError("VMCOREINFO does not name kallsyms, and no table of its shape is in the kernel image")


def _token_indexes(data: bytes, byteorder: str) -> Iterator[int]:
    """Offsets of 256 ascending u16, the first of them 0."""
    values = np.frombuffer(data, ("<" if byteorder == "little" else ">") + "u2", len(data) // 2)
    # Where the values stop ascending. Two stops 256 apart have a table between them, and
    # what follows token_index is another table or padding, which need not stop the ascent.
    stops = np.flatnonzero(values[1:] <= values[:-1]) + 1
    begins = stops[:-1][np.diff(stops) >= _TOKENS]
    for begin in begins[(values[begins] == 0) & (begins % 4 == 0)].tolist():
        yield begin * 2


def _token_table(data: bytes, token_index: int, byteorder: str) -> int | None:
    """The offset before ``token_index`` from which every token but the first follows a NUL."""
    index = np.frombuffer(data, ("<" if byteorder == "little" else ">") + "u2", _TOKENS, token_index).astype(
        int
    )
    for begin in range(token_index - int(index[-1]) - 2 & ~7, max(0, token_index - int(index[-1]) - 256), -8):
        table = data[begin:token_index]
        if all(table[offset - 1] == 0 for offset in index[1:].tolist()) and 0 not in table[: index[1] - 1]:
            return begin
    return None


def _before(data: bytes, token_table: int, byteorder: str) -> dict[str, int] | None:
    """Offsets of the tables that stand before ``token_table``."""
    order = "<" if byteorder == "little" else ">"
    # kallsyms_markers: the offset in kallsyms_names of every 256th name, so it ascends from 0.
    words = np.frombuffer(data[: token_table & ~3], order + "u4")
    end = len(words) - (words[-1] == 0)
    falls = np.flatnonzero(
        words[max(0, end - (1 << 16)) + 1 : end] <= words[max(0, end - (1 << 16)) : end - 1]
    )
    if not len(falls):
        return None
    first = max(0, end - (1 << 16)) + int(falls[-1]) + 1
    if words[first] != 0:
        return None
    markers = words[first:end].astype(int)
    for num_syms in range(
        first * 4 - int(markers[-1]) - 8 & ~7, max(0, first * 4 - int(markers[-1]) - (1 << 15)), -8
    ):
        count = int.from_bytes(data[num_syms : num_syms + 4], "little" if order == "<" else "big")
        names = num_syms + 8
        if -(-count // 256) == len(markers) and _names_agree(data, names, markers.tolist(), count):
            relative_base = num_syms - 8
            offsets = relative_base - (4 * count + 7 & ~7)
            return {
                "offsets": offsets,
                "relative_base": relative_base,
                "num_syms": num_syms,
                "names": names,
                "markers": first,
            }
    return None


def _names_agree(data: bytes, names: int, markers: list[int], count: int) -> bool:
    """Whether walking 256 names at a time lands on the first markers."""
    position = names
    for number in range(min(count, 4 * 256)):
        if number % 256 == 0 and position - names != markers[number // 256]:
            return False
        if position >= len(data):
            return False
        position += data[position] + 1
    return True
