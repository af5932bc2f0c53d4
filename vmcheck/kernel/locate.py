# SPDX-License-Identifier: LGPL-2.1-or-later
"""Find the kallsyms tables of a kernel that names none, by their shape.

Until Linux kernel commit f09bddbd8661 ("vmcoreinfo: add kallsyms_num_syms symbol") (in
v6.0), VMCOREINFO does not name them. scripts/kallsyms.c writes them next to each other in
.rodata, each aligned to a pointer (``ALGN``)::

    offsets  relative_base  num_syms  names  markers  token_table  token_index

token_index is 256 ascending u16 which point at NUL-ended strings right before it: in
80 MB of kernel there is one such place. Two things changed over time:

- Before commit 2213e9a66bb8 ("kallsyms: add support for relative offsets in kallsyms
  address table") (in v4.6), an array of addresses stands where offsets and relative_base
  do. Both places are given, and the one that gives _stext its address is the one in use.
- Before commit 80ffbaa5b1bd ("kallsyms: reduce size a little on 64-bit") (in v5.0), each
  marker and num_syms have the size of a pointer; since then, 4 bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice

import numpy as np
from drgn import FaultError

from vmcheck.facts.machine import ByteOrder
from vmcheck.kernel.symbols import SymbolError

IMAGE_LIMIT = 256 << 20
"""Bytes searched from _stext on. KERNEL_IMAGE_SIZE is 1 GiB, most of it room for modules."""
TABLES_LIMIT = 4 << 20
"""Bytes that all the tables together may have. Debian's 5.10 has 2.5 MB."""
MARKERS_LIMIT = 1 << 18
"""Bytes: of 16 million symbols."""
MAX_CANDIDATES = 64
"""Places that are looked at closely, which takes some milliseconds each. A kernel has one or two."""
MAX_UNREADABLE = 1 << 13
"""Pages. Freed init memory has 700; each takes some 50 microseconds to be found absent."""
_PAGE = 4096
_CHUNK = 2 << 20
_TOKENS = 256
_TOKEN_INDEX_SIZE = 2 * _TOKENS


class Image:
    """The kernel image by virtual address. What cannot be read, such as freed init memory, is zeros."""

    def __init__(self, read: Callable[[int, int], bytes], stext: int, data: int | None) -> None:
        """``read`` raises FaultError. ``data`` is the lowest known address of a variable, if any."""
        self._read = read
        self._unreadable = 0
        self.start = stext
        last = min(stext + IMAGE_LIMIT, (1 << 64) - 2 * _CHUNK)
        self.end = min(data, last) if data else last

    def chunks(self) -> Iterator[int]:
        """Addresses, _CHUNK apart, from the end down: .rodata stands after the text, before the data."""
        return reversed(range(self.start, self.end, _CHUNK))

    def read(self, address: int, size: int) -> bytes:
        """Raises SymbolError where so much cannot be read that no kernel image is here."""
        try:
            return self._read(address, size)
        except FaultError:
            if size <= _PAGE:
                self._unreadable += 1
                if self._unreadable > MAX_UNREADABLE:
                    raise SymbolError(f"no kernel image can be read from {self.start:#x} on") from None
                return bytes(size)
        half = -(-size // (2 * _PAGE)) * _PAGE
        return self.read(address, half) + self.read(address + half, size - half)


def kallsyms(image: Image, byteorder: ByteOrder, word: int = 8) -> Mapping[str, int]:
    """Virtual address of each ``kallsyms_*`` table, without the prefix. Raises SymbolError.

    ``word`` is the size of a pointer, bytes. ``num_syms`` is where its low 4 bytes are.
    """
    for token_index in islice(_candidates(image, byteorder, word), MAX_CANDIDATES):
        base = max(image.start, token_index - TABLES_LIMIT)
        before = image.read(base, token_index + _TOKEN_INDEX_SIZE - base)
        if tables := _tables(before, token_index - base, byteorder, word):
            return {name: base + offset for name, offset in tables.items()}
    raise SymbolError("VMCOREINFO does not name kallsyms, and no table of its shape is in the kernel image")


def _candidates(image: Image, byteorder: ByteOrder, word: int) -> Iterator[int]:
    """Addresses of what could be token_index."""
    for chunk in image.chunks():
        # No variable is read: distill keeps what is read, and blanks nothing in it.
        data = image.read(chunk, min(_CHUNK + _TOKEN_INDEX_SIZE, image.end - chunk)) + bytes(4)
        for place in _token_indexes(data, byteorder, word):
            yield chunk + place


def _tables(data: bytes, token_index: int, byteorder: ByteOrder, word: int) -> dict[str, int] | None:
    """Offsets of all the tables, if those before ``token_index`` have their shapes."""
    token_table = _token_table(data, token_index, byteorder, word)
    if token_table is None or (tables := _before(data, token_table, byteorder, word)) is None:
        return None
    return tables | {"token_table": token_table, "token_index": token_index}


def _token_indexes(data: bytes, byteorder: ByteOrder, word: int) -> Iterator[int]:
    """Offsets of 256 ascending u16, the first of them 0."""
    values = np.frombuffer(data, _order(byteorder) + "u2", len(data) // 2)
    # Where the values stop ascending. Two stops 256 apart have a table between them, and
    # what follows token_index is another table or padding, which need not stop the ascent.
    stops = np.flatnonzero(values[1:] <= values[:-1]) + 1
    begins = stops[:-1][np.diff(stops) >= _TOKENS]
    for begin in begins[(values[begins] == 0) & (begins % (word // 2) == 0)].tolist():
        yield begin * 2


def _token_table(data: bytes, token_index: int, byteorder: ByteOrder, word: int) -> int | None:
    """The offset before ``token_index`` from which every token but the first follows a NUL."""
    index = np.frombuffer(data, _order(byteorder) + "u2", _TOKENS, token_index).tolist()
    last_token = token_index - index[-1]
    for begin in range(last_token - 2 & -word, max(0, last_token - 256), -word):
        table = data[begin:token_index]
        if all(table[offset - 1] == 0 for offset in index[1:]) and 0 not in table[: index[1] - 1]:
            return begin
    return None


def _before(data: bytes, token_table: int, byteorder: ByteOrder, word: int) -> dict[str, int] | None:
    """Offsets of the tables that stand before ``token_table``."""
    for width in sorted({4, word}):
        for padding in range(0, word, width):
            if any(data[token_table - padding : token_table]):
                continue
            if found := _with_markers(data, token_table - padding, byteorder, word, width):
                return found
    return None


def _with_markers(
    data: bytes, markers_end: int, byteorder: ByteOrder, word: int, width: int
) -> dict[str, int] | None:
    """As ``_before``, where markers and num_syms have ``width`` bytes."""
    markers = _markers(data[max(0, markers_end - MARKERS_LIMIT) : markers_end], byteorder, width)
    if not markers:
        return None
    markers_start = markers_end - width * len(markers)
    # Names of 256 symbols follow the last marker: a few KB.
    last_names = markers_start - markers[-1]
    for num_syms in range(last_names - word & -word, max(0, last_names - (1 << 15)), -word):
        count = int.from_bytes(data[num_syms : num_syms + width], byteorder)
        names = num_syms + word
        if -(-count // 256) == len(markers) and _names_agree(data, names, markers, count):
            relative_base = num_syms - word
            return {
                "addresses": num_syms - word * count,
                "offsets": relative_base - (4 * count + word - 1 & -word),
                "relative_base": relative_base,
                "num_syms": num_syms + (width - 4 if byteorder == "big" else 0),
                "names": names,
                "markers": markers_start,
            }
    return None


def _markers(data: bytes, byteorder: ByteOrder, width: int) -> list[int]:
    """kallsyms_markers at the end of ``data``: where every 256th name begins, so it ascends from 0."""
    values = np.frombuffer(data[len(data) % width :], f"{_order(byteorder)}u{width}")
    falls = np.flatnonzero(values[1:] <= values[:-1])
    markers = values[int(falls[-1]) + 1 :].tolist() if len(falls) else []
    return markers if markers and markers[0] == 0 else []


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


def _order(byteorder: ByteOrder) -> str:
    return "<" if byteorder == "little" else ">"
