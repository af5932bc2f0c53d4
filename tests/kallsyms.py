# SPDX-License-Identifier: LGPL-2.1-or-later
"""kallsyms tables as scripts/kallsyms.c writes them, for the tests that read or look for them."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

START = 0xFFFFFFFF81000000
"""_stext."""

TOKENS = [bytes([byte]) for byte in range(256)]
TOKENS[0], TOKENS[1], TOKENS[2] = b"memory", b"crash", b"__"

Symbols = Sequence[tuple[str, int]]
"""(kind's letter and name, address), _stext among them."""


def numbered(count: int) -> Symbols:
    """_stext and then some data symbols, as many as wanted in all."""
    return [("T_stext", START), *((f"Dcrash_memory_{n}", START + 0x1000 + 16 * n) for n in range(1, count))]


def compressed(text: str) -> bytes:
    data = text.encode()
    for code, token in enumerate(TOKENS[:3]):
        data = data.replace(token, bytes([code]))
    return data


def record(name: bytes) -> bytes:
    """A name and its length, in two bytes where it is a big symbol."""
    if len(name) < 0x80:
        return bytes([len(name)]) + name
    return bytes([len(name) & 0x7F | 0x80, len(name) >> 7]) + name


def tables(
    symbols: Symbols,
    base: int = START - 0x1000000,
    scheme: str = "absolute_percpu",
    order: str = "<",
    place: int = START + 0x100000,
    word: int = 8,
    width: int = 4,
) -> Mapping[str, tuple[int, bytes]]:
    """(address, bytes) of each table, one after the other from ``place`` on, each aligned to a pointer.

    ``word`` is the size of a pointer, ``width`` that of a marker and of num_syms, bytes.
    """
    formats = {4: "I", 8: "Q"}
    names = [record(compressed(name)) for name, _ in symbols]
    ends = [sum(map(len, names[:n])) for n in range(0, len(names), 256)]
    made: dict[str, bytes] = {}
    if scheme == "addresses":
        made["addresses"] = struct.pack(
            f"{order}{len(symbols)}{formats[word]}", *(address for _, address in symbols)
        )
    else:
        made["offsets"] = b"".join(
            struct.pack(order + "I", _offset(scheme, address, base, place + 4 * n) % (1 << 32))
            for n, (_, address) in enumerate(symbols)
        )
        if scheme != "place":
            made["relative_base"] = struct.pack(order + formats[word], base)
    made["num_syms"] = struct.pack(order + formats[width], len(symbols))
    made["names"] = b"".join(names)
    made["markers"] = struct.pack(f"{order}{len(ends)}{formats[width]}", *ends)
    made["token_table"] = b"".join(token + b"\0" for token in TOKENS)
    offsets = [sum(len(token) + 1 for token in TOKENS[:n]) for n in range(256)]
    made["token_index"] = struct.pack(f"{order}256H", *offsets)
    placed = {}
    for name, data in made.items():
        placed[name] = place, data
        place += len(data) + word - 1 & -word
    return placed


def _offset(scheme: str, address: int, base: int, place: int) -> int:
    if scheme == "place":
        return address - place
    if scheme == "absolute_percpu" and address >= base:
        return base - 1 - address
    return address - (base if scheme == "base" else 0)


def image(placed: Mapping[str, tuple[int, bytes]], start: int = START) -> bytearray:
    """Kernel memory from ``start`` to the end of the tables."""
    memory = bytearray(max(address + len(data) for address, data in placed.values()) - start)
    for address, data in placed.values():
        memory[address - start : address - start + len(data)] = data
    return memory
