# SPDX-License-Identifier: LGPL-2.1-or-later
"""kallsyms: the three ways to store addresses, big symbols, and tables that contradict themselves."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import pytest
from drgn import FaultError

from fixtures.capture import Capture, captures
from tests.kallsyms import START, Symbols, image, numbered, tables
from vmcheck.formats import open_dump
from vmcheck.kernel.program import Kernel
from vmcheck.kernel.symbols import Kallsyms, Symbol, SymbolError

NAMES: Symbols = [
    ("A__per_cpu_start", 0),
    ("Acrash_notes_offset", 0x1F2E0),
    ("T_stext", START),
    ("tmemory_lookup", START + 0x40),
    ("Dmemory_blocks", START + 0x20000),
    ("D" + "a_symbol_of_rust_" * 20, START + 0x20008),
    ("b__crash", START + 0x30000),
]


class Memory:
    """What ``Kallsyms`` reads through: the tables and nothing else."""

    def __init__(self, placed: Mapping[str, tuple[int, bytes]]) -> None:
        self.data = image(placed)
        self.addresses = {name: address for name, (address, _) in placed.items() if name != "markers"}
        self.most = 0

    def read(self, address: int, size: int) -> bytes:
        self.most = max(self.most, size)
        if not START <= address <= address + size <= START + len(self.data) + 4096:
            raise FaultError("not mapped", address)
        return bytes(self.data[address - START :][:size]).ljust(size, b"\0")

    def put(self, table: str, data: bytes, offset: int = 0) -> None:
        begin = self.addresses[table] - START + offset
        self.data[begin : begin + len(data)] = data

    def kallsyms(self, byteorder: str = "little") -> Kallsyms:
        return Kallsyms(self.read, self.addresses, byteorder, START)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("scheme", ["absolute_percpu", "base", "place", "addresses"])
def test_each_way_to_store_addresses(scheme: str, order: str) -> None:
    names = NAMES if scheme in ("absolute_percpu", "addresses") else NAMES[2:]
    memory = Memory(tables(names, scheme=scheme, order=order))
    kallsyms = memory.kallsyms("little" if order == "<" else "big")
    assert list(kallsyms) == [Symbol(name[1:], name[0], address) for name, address in names]
    assert [kallsyms.address(name[1:]) for name, _ in names] == [address for _, address in names]


def test_a_name_that_is_not_there() -> None:
    kallsyms = Memory(tables(NAMES)).kallsyms()
    # Anagrams have the fingerprint of what they are made of.
    for name in ("", "nothing", "memory", "crash__", "_crash_", "memory_block"):
        assert kallsyms.address(name) is None


def test_the_first_of_two_symbols_of_one_name() -> None:
    assert Memory(tables([*NAMES, ("dmemory_blocks", START + 8)])).kallsyms().address("memory_blocks") == (
        START + 0x20000
    )


def test_as_many_symbols_as_a_kernel_has() -> None:
    names = numbered(3000)
    kallsyms = Memory(tables(names)).kallsyms()
    assert kallsyms.address("crash_memory_2999") == START + 0x1000 + 16 * 2999


ONE_EACH = [capture for capture in captures() if capture.symbols is None]


@pytest.mark.parametrize("capture", ONE_EACH, ids=lambda capture: capture.folder.parent.name)
def test_a_dumps_own_kallsyms_are_what_vmcoreinfo_says(capture: Capture) -> None:
    with open_dump([capture.vmcore]) as dump:
        kernel = Kernel(dump.header, dump.memory)
        assert isinstance(kernel.symbols, Kallsyms)
        # VMCOREINFO is another witness.
        for name in ("init_uts_ns", "init_top_pgt", "prb", "_stext"):
            assert kernel.symbols.address(name) == kernel.vmcoreinfo_symbol(name)


def test_there_are_self_contained_captures_of_all_three_layouts() -> None:
    """5.10 names no tables, 6.1 and 6.12 have a relative base, 7.2 has none."""
    assert {".".join(capture.folder.parent.name.split(".")[:2]) for capture in ONE_EACH} >= {
        "5.10",
        "6.1",
        "6.12",
        "7.2",
    }


# Tables that contradict themselves.


def refused(memory: Memory) -> str:
    with pytest.raises(SymbolError) as error:
        memory.kallsyms()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("count", [0, 2**32 - 1, (4 << 20) + 1])
def test_a_count_that_no_kernel_has(count: int) -> None:
    memory = Memory(tables(NAMES))
    memory.put("num_syms", struct.pack("<I", count))
    assert refused(memory) == f"kallsyms_num_syms is {count}; 1 to 4194304 are believed"
    assert memory.most < 4096


def test_a_count_of_more_names_than_there_are() -> None:
    memory = Memory(tables(NAMES))
    memory.put("num_syms", struct.pack("<I", 4 << 20))
    with pytest.raises((SymbolError, FaultError)):
        memory.kallsyms()


def test_names_that_run_past_their_table() -> None:
    memory = Memory(tables(NAMES))
    memory.put("names", b"\xff\xff" * 300)
    assert refused(memory).startswith("kallsyms_names ends after ")


def test_a_last_name_that_runs_past_its_table() -> None:
    memory = Memory(tables(NAMES[2:3]))
    memory.put("names", b"\x7e")
    assert refused(memory).startswith("the last kallsyms name ends at 0x7f, past ")


def test_names_without_a_character() -> None:
    memory = Memory(tables(NAMES))
    memory.put("names", bytes(400))
    assert "no way to read kallsyms gives _stext the address" in refused(memory)


def test_tokens_that_never_end() -> None:
    memory = Memory(tables(NAMES))
    memory.put("token_table", b"x" * 600)
    memory.put("token_index", struct.pack("<H", 65535), offset=2 * 255)
    memory.data += b"x" * 70000
    with pytest.raises((SymbolError, FaultError)):
        memory.kallsyms()


def test_tokens_longer_than_any_name() -> None:
    """512 names of 60,000 characters each would be 30 MB, and 190,000 of them 11 GB."""
    memory = Memory(tables(NAMES))
    memory.addresses["token_table"] = START + len(memory.data)
    memory.data += b"x" * 60000 + b"\0"
    memory.addresses["token_index"] = START + len(memory.data)
    memory.data += struct.pack("<256H", *range(256))
    assert refused(memory) == "a kallsyms token begins at 0x0 and does not end within 512 bytes"


def test_addresses_of_which_none_is_that_of_stext() -> None:
    memory = Memory(tables(NAMES))
    memory.put("offsets", bytes(4 * len(NAMES)))
    assert refused(memory) == (
        "no way to read kallsyms gives _stext the address 0xffffffff81000000 that VMCOREINFO has"
    )


@pytest.mark.parametrize("table", ["names", "token_table", "token_index", "offsets", "num_syms"])
@pytest.mark.parametrize("address", [0, START - 1, 2**64 - 1])
def test_a_table_where_nothing_is(table: str, address: int) -> None:
    memory = Memory(tables(NAMES))
    memory.addresses[table] = address
    with pytest.raises((SymbolError, FaultError)):
        memory.kallsyms()


@pytest.mark.parametrize("table", ["names", "token_table", "token_index", "offsets", "num_syms"])
def test_a_table_that_vmcoreinfo_does_not_name(table: str) -> None:
    memory = Memory(tables(NAMES))
    del memory.addresses[table]
    with pytest.raises((SymbolError, LookupError)):
        memory.kallsyms()


def test_names_with_no_table_behind_them() -> None:
    memory = Memory(tables(NAMES))
    memory.addresses["names"] = START + len(memory.data)
    assert refused(memory) == "no kallsyms table follows kallsyms_names, so its size is unknown"
