# SPDX-License-Identifier: LGPL-2.1-or-later
"""Symbols of a kernel, from its own kallsyms tables.

drgn can read kallsyms, one byte at a time, and builds all 150,000 symbols. A check needs
thirty: the tables are read in bulk here, and a name is decoded only when its fingerprint,
which adds up from the fingerprints of the compression's tokens, is the one looked for.
The tables' format is scripts/kallsyms.c and kernel/kallsyms.c in the kernel's source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from drgn import FaultError

from vmcheck.errors import VmcheckError

KSYM_NAME_LEN = 512
"""Bytes: of a name, and so of a token."""
MAX_SYMBOLS = 4 << 20
MAX_NAMES = 64 << 20
"""Bytes. Debian's 6.12 has 2.2 MB of names for 190,000 symbols."""

Addresses = npt.NDArray[np.uint64]
"""Of each symbol, in the order of their names."""
Read = Callable[[int, int], bytes]
"""Read (virtual address, bytes) of the kernel's memory."""


# Sums of a few powers of an odd number rarely are the same.
_CHARACTER_PRINTS = [pow(0x9E3779B97F4A7C15, character + 1, 1 << 64) for character in range(256)]


def _fingerprint(text: bytes) -> int:
    """A sum over the characters, so that it adds up over the tokens of a compressed name."""
    return sum(_CHARACTER_PRINTS[character] for character in text) % (1 << 64)


class Symbol(NamedTuple):
    name: str
    kind: str
    """nm(1)'s letter: ``T`` text, ``D`` data, ``B`` bss, ``R`` rodata, lower case if static..."""
    address: int


class SymbolError(VmcheckError):
    """The tables contradict themselves, or are not where they should be."""


class Kallsyms:
    """The symbol table in the kernel's memory."""

    source = "kallsyms"

    def __init__(
        self, read: Read, tables: Mapping[str, int], byteorder: str, stext: int, word: int = 8
    ) -> None:
        """``tables`` has the virtual address of each ``kallsyms_*`` table, without the prefix.

        ``word`` is the size of a pointer, bytes. ``stext`` is VMCOREINFO's SYMBOL(_stext): of the ways
        to store addresses, the one that gives _stext this address is the one in use. Raises
        SymbolError where none does, and whatever ``read`` raises.
        """
        self._order, self._word = "<" if byteorder == "little" else ">", word
        count = self._number(read(tables["num_syms"], 4))
        if not 0 < count <= MAX_SYMBOLS:
            raise SymbolError(f"kallsyms_num_syms is {count}; 1 to {MAX_SYMBOLS} are believed")
        self._tokens = self._read_tokens(read, tables)
        self._names = self._read_names(read, tables, count)
        self._starts, self._ends = self._name_bounds(count)
        self._prints = self._fingerprints()
        self._addresses = self._read_addresses(read, tables, count, stext)

    def _number(self, data: bytes) -> int:
        return int.from_bytes(data, "little" if self._order == "<" else "big")

    def _read_tokens(self, read: Read, tables: Mapping[str, int]) -> list[bytes]:
        index = np.frombuffer(read(tables["token_index"], 512), self._order + "u2").tolist()
        # The table stands right before its index since v2.6.
        size = min(
            index[255] + KSYM_NAME_LEN, max(tables["token_index"] - tables["token_table"], index[255] + 1)
        )
        table = read(tables["token_table"], size)
        tokens = []
        for offset in index:
            end = table.find(b"\0", offset, offset + KSYM_NAME_LEN)
            if end < 0:
                raise SymbolError(
                    f"a kallsyms token begins at {offset:#x} and does not end within {KSYM_NAME_LEN} bytes"
                )
            tokens.append(table[offset:end])
        return tokens

    def _read_names(self, read: Read, tables: Mapping[str, int], count: int) -> bytes:
        start = tables["names"]
        following = [address for address in tables.values() if address > start]
        if not following:
            raise SymbolError("no kallsyms table follows kallsyms_names, so its size is unknown")
        return read(start, min(min(following) - start, MAX_NAMES, count * 514))

    def _name_bounds(self, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        names, records, position = self._names, [], 0
        try:
            for _ in range(count):
                records.append(position)
                length = names[position]
                if length > 0x7F:
                    # Since Linux kernel commit 73bbb94466fd ("kallsyms: support "big" kernel
                    # symbols") (in v6.1), the high bit says that a second length byte follows.
                    length = (length & 0x7F | names[position + 1] << 7) + 1
                position += length + 1
        except IndexError:
            raise SymbolError(f"kallsyms_names ends after {len(records) - 1} of {count} names") from None
        if position > len(names):
            raise SymbolError(f"the last kallsyms name ends at {position:#x}, past {len(names):#x}")
        begin = np.array(records)
        big = np.frombuffer(names, np.uint8)[begin] > 0x7F
        return begin + 1 + big, np.append(begin[1:], position)

    def _fingerprints(self) -> npt.NDArray[np.uint64]:
        """Of each name without its kind's letter: equal for equal names, rarely for others."""
        data = np.frombuffer(self._names, np.uint8)
        with np.errstate(over="ignore"):
            tokens = np.array([_fingerprint(token) for token in self._tokens], np.uint64)
            kinds = np.array([_fingerprint(token[:1]) for token in self._tokens], np.uint64)
            running = np.zeros(len(data) + 1, np.uint64)
            np.cumsum(tokens[data], out=running[1:])
            kind = kinds[data[np.minimum(self._starts, len(data) - 1)]]
            return np.asarray(running[self._ends] - running[self._starts] - kind)

    def _read_addresses(self, read: Read, tables: Mapping[str, int], count: int, stext: int) -> Addresses:
        position = self._positions("_stext")
        unread: FaultError | None = None
        for scheme in (self._from_offsets, self._whole_addresses):
            try:
                for candidate in scheme(read, tables, count):
                    if any(int(candidate[i]) == stext for i in position):
                        return candidate
            except FaultError as error:
                # One of the places that locate.py gives is no table, and need not be there.
                unread = error
        if unread is not None:
            raise unread
        raise SymbolError(f"no way to read kallsyms gives _stext the address {stext:#x} that VMCOREINFO has")

    def _whole_addresses(self, read: Read, tables: Mapping[str, int], count: int) -> Iterator[Addresses]:
        if "addresses" in tables:
            data = read(tables["addresses"], self._word * count)
            yield np.frombuffer(data, f"{self._order}u{self._word}").astype(np.uint64)

    def _from_offsets(self, read: Read, tables: Mapping[str, int], count: int) -> Iterator[Addresses]:
        if "offsets" not in tables:
            return
        raw = read(tables["offsets"], 4 * count)
        unsigned = np.frombuffer(raw, self._order + "u4").astype(np.uint64)
        signed = np.frombuffer(raw, self._order + "i4").astype(np.int64)
        limit = np.uint64((1 << 8 * self._word) - 1)
        with np.errstate(over="ignore"):
            if "relative_base" in tables:
                base = np.uint64(self._number(read(tables["relative_base"], self._word)))
                # CONFIG_KALLSYMS_ABSOLUTE_PERCPU: what is not negative is absolute.
                yield np.where(signed < 0, base - np.uint64(1) - signed.astype(np.uint64), unsigned) & limit
                yield base + unsigned & limit
            # Kernels without kallsyms_relative_base store each offset relative to its own place.
            places = np.uint64(tables["offsets"]) + np.arange(count, dtype=np.uint64) * np.uint64(4)
            yield places + signed.astype(np.uint64) & limit

    def _positions(self, name: str) -> list[int]:
        encoded = name.encode()
        alike = np.flatnonzero(self._prints == np.uint64(_fingerprint(encoded)))
        return [i for i in alike.tolist() if self._decode(i)[1:] == encoded]

    def _decode(self, position: int) -> bytes:
        compressed = self._names[self._starts[position] : self._ends[position]]
        return b"".join([self._tokens[byte] for byte in compressed])

    def address(self, name: str) -> int | None:
        for position in self._positions(name):
            return int(self._addresses[position])
        return None

    def __iter__(self) -> Iterator[Symbol]:
        for position, address in enumerate(self._addresses.tolist()):
            text = self._decode(position).decode("ascii", "backslashreplace")
            yield Symbol(text[1:], text[:1], address)
