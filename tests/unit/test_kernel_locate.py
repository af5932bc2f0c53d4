# SPDX-License-Identifier: LGPL-2.1-or-later
"""kallsyms found by its shape, in a kernel that does not say where it is."""

from __future__ import annotations

import random
import struct

import pytest
from drgn import FaultError

from tests.kallsyms import START, image, numbered, tables
from vmcheck.facts.machine import ByteOrder
from vmcheck.kernel import locate
from vmcheck.kernel.symbols import Kallsyms, SymbolError

NAMES = numbered(600)


class Kernel:
    """An image in which some pages cannot be read."""

    def __init__(self, data: bytes | bytearray, lost: range = range(0)) -> None:
        self.data = data
        self.lost = lost
        self.bytes_read = 0

    def read(self, address: int, size: int) -> bytes:
        begin = address - START
        pages = range(begin // 4096, (begin + size - 1) // 4096 + 1)
        self.bytes_read += size
        if begin < 0 or begin + size > len(self.data) or any(page in self.lost for page in pages):
            raise FaultError("not mapped", address)
        return bytes(self.data[begin : begin + size])

    def image(self) -> locate.Image:
        return locate.Image(self.read, START, START + len(self.data))

    def found(self, byteorder: ByteOrder = "little") -> dict[str, int]:
        return dict(locate.kallsyms(self.image(), byteorder))


def of_a_kernel(place: int, size: int = 4 << 20, order: str = "<") -> tuple[dict[str, int], bytearray]:
    """Where the tables are, and an image of ``size`` bytes with text and data around them."""
    noise = random.Random(place)
    data = bytearray(noise.randbytes(size))
    placed = tables(NAMES, order=order, place=START + place)
    there = image(placed, START + place)
    data[place : place + len(there)] = there
    # Something that is no table: strings, as in .rodata.
    data[place + len(there) : place + len(there) + 64] = b"drivers/acpi/acpica\0" * 3 + bytes(4)
    data[place - 64 : place] = b"\0" * 64
    return {name: address for name, (address, _) in placed.items()}, data


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("place", [0x40, 0x100000, (2 << 20) - 0x800, (2 << 20) - 512, 3 << 20])
def test_the_tables_are_found_wherever_they_are(place: int, order: str) -> None:
    where, data = of_a_kernel(place, order=order)
    kernel = Kernel(data)
    byteorder: ByteOrder = "little" if order == "<" else "big"
    found = kernel.found(byteorder)
    assert {name: found[name] for name in where} == where
    kallsyms = Kallsyms(kernel.read, found, byteorder, START)
    assert kallsyms.address("crash_memory_599") == START + 0x1000 + 16 * 599


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("count", [600, 602, 512])
@pytest.mark.parametrize(
    ("scheme", "word", "width"),
    [
        # v2.6.30 to v4.5; v4.6 to v4.20, RHEL 8; v5.0 on.
        ("addresses", 8, 8),
        ("base", 8, 8),
        ("absolute_percpu", 8, 8),
        ("base", 8, 4),
        ("addresses", 4, 4),
        ("base", 4, 4),
    ],
)
def test_tables_of_every_era_are_found(scheme: str, word: int, width: int, count: int, order: str) -> None:
    start = START if word == 8 else 0xC1000000
    names = [(name, address - START + start) for name, address in numbered(count)]
    noise = random.Random(count)
    data = bytearray(noise.randbytes(4 << 20))
    placed = tables(names, start - 0x1000, scheme, order, start + 0x100000, word, width)
    there = image(placed, start + 0x100000)
    data[0x100000 : 0x100000 + len(there)] = there
    data[0x100000 + len(there) : 0x100000 + len(there) + 64] = b"drivers/acpi/acpica\0" * 3 + bytes(4)
    data[0x100000 - 64 : 0x100000] = bytes(64)

    def read(address: int, size: int) -> bytes:
        if not start <= address <= address + size <= start + len(data):
            raise FaultError("not mapped", address)
        return bytes(data[address - start : address - start + size])

    byteorder: ByteOrder = "little" if order == "<" else "big"
    found = locate.kallsyms(locate.Image(read, start, start + len(data)), byteorder, word)
    kallsyms = Kallsyms(read, found, byteorder, start, word)
    assert [(symbol.kind + symbol.name, symbol.address) for symbol in kallsyms] == names


def test_pages_that_cannot_be_read_hide_nothing_else() -> None:
    where, data = of_a_kernel(0x100000)
    assert Kernel(data, lost=range(0x40, 0x60)).found().items() >= where.items()


@pytest.mark.parametrize("table", ["names", "markers", "token_table", "token_index"])
def test_tables_that_cannot_be_read_are_not_found(table: str) -> None:
    where, data = of_a_kernel(0x100000)
    page = (where[table] - START) // 4096
    with pytest.raises(SymbolError, match="no table of its shape is in the kernel image"):
        Kernel(data, lost=range(page, page + 1)).found()


@pytest.mark.parametrize(
    "data", [b"", bytes(1 << 20), b"\xff" * (1 << 20), random.Random(1).randbytes(1 << 22)]
)
def test_nothing_there(data: bytes) -> None:
    with pytest.raises(SymbolError, match="no table of its shape is in the kernel image"):
        Kernel(data).found()


def test_an_image_of_which_nothing_can_be_read() -> None:
    kernel = Kernel(bytes(256 << 20), lost=range(1 << 20))
    with pytest.raises(SymbolError, match="no kernel image can be read from 0xffffffff81000000 on"):
        kernel.found()
    # Each 2 MiB is tried whole, in halves, and so on down to pages.
    assert kernel.bytes_read < 16 * (64 << 20)


def decoy(step: int = 2) -> bytes:
    """256 ascending u16, and nothing before them that they could index."""
    return struct.pack("<256H", *range(0, 256 * step, step)) + bytes(8)


def test_decoys_are_passed_over() -> None:
    where, data = of_a_kernel(0x100000)
    for place in (0x80000, 0x180000, 0x300000):
        data[place : place + len(decoy())] = decoy()
    # A token table with its index and no tables before it.
    tokens = bytes(data[where["token_table"] - START : where["token_index"] + 512 - START])
    data[0x200000 : 0x200000 + len(tokens)] = tokens
    assert Kernel(data).found().items() >= where.items()


def test_an_image_full_of_decoys_is_given_up() -> None:
    """Each decoy costs reading the 4 MiB before it."""
    where, data = of_a_kernel(0x100000)
    tokens = bytes(data[where["token_table"] - START : where["token_index"] + 512 - START])
    tokens += bytes(-len(tokens) % 8)
    room = len(data) - 0x200000
    data[0x200000:] = (tokens * (room // len(tokens) + 1))[:room]
    kernel = Kernel(data)
    with pytest.raises(SymbolError, match="shape"):
        kernel.found()
    assert kernel.bytes_read < 512 << 20


def test_kernels_of_which_no_address_is_believed() -> None:
    read = Kernel(b"").read
    for start in (0, (1 << 64) - 1, (1 << 64) - (3 << 20)):
        with pytest.raises(SymbolError):
            locate.kallsyms(locate.Image(read, start, None), "little")
