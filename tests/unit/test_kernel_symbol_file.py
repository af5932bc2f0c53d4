# SPDX-License-Identifier: LGPL-2.1-or-later
"""A symbol file comes back as it was written, and one that cannot be is one line."""

from __future__ import annotations

import contextlib
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import patched
from tests.kernels import healthy
from vmcheck.errors import VmcheckError
from vmcheck.facts.topology import Unknown, known
from vmcheck.kernel.symbol_file import SymbolFile, write_symbol_file
from vmcheck.kernel.symbols import Symbol, SymbolError

SYMBOLS = [
    Symbol("runqueues", "A", 0x31C40),
    Symbol("iomem_resource", "D", 0xFFFFFFFF82A51C40),
    Symbol("__start_BTF", "d", 0xFFFFFFFF82300000),
]
MEMBERS = {"build-id": b"f00d", "btf": b"types", "symbols": b"ffffffff82a51c40 D iomem_resource\n"}


def archive(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> str:
    with zipfile.ZipFile(path, "w", method) as made:
        for name, data in members.items():
            made.writestr(name, data)
    return str(path)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = str(tmp_path / "kernel.symbols")
    write_symbol_file(path, "f00d", b"types", SYMBOLS)
    file = SymbolFile(path)
    assert (file.build_id, file.btf, sorted(file)) == ("f00d", b"types", sorted(SYMBOLS))
    assert file.source == "symbol file kernel.symbols"


def test_the_same_kernel_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write_symbol_file(str(first), "f00d", b"types", SYMBOLS)
    write_symbol_file(str(second), "f00d", b"types", [*reversed(SYMBOLS), SYMBOLS[0]])
    assert first.read_bytes() == second.read_bytes()


def test_kaslr_moves_the_image_and_no_per_cpu_offset(tmp_path: Path) -> None:
    path = str(tmp_path / "kernel.symbols")
    write_symbol_file(path, "f00d", b"", SYMBOLS)
    file = SymbolFile(path)
    file.kernel_offset = 0x1C00_0000
    assert file.address("iomem_resource") == 0xFFFFFFFF82A51C40 + 0x1C00_0000
    assert file.address("runqueues") == 0x31C40
    assert file.address("nothing") is None


def test_more_than_a_symbol_file_takes_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(VmcheckError, match="build-id has 257 bytes; a symbol file takes 256"):
        write_symbol_file(str(tmp_path / "kernel.symbols"), "f" * 257, b"", SYMBOLS)


def with_symbols(path: Path, symbols: bytes) -> str:
    return archive(path, MEMBERS | {"symbols": symbols})


def bomb(path: Path) -> str:
    return archive(path, MEMBERS | {"btf": bytes((64 << 20) + 1)})


def bomb_that_lies_about_its_size(path: Path) -> str:
    made = Path(bomb(path)).read_bytes()
    size = struct.pack("<I", (64 << 20) + 1)
    assert made.count(size) == 2
    path.write_bytes(made.replace(size, struct.pack("<I", 100)))
    return str(path)


UNFIT: dict[str, tuple[Callable[[Path], str], str]] = {
    "a bomb": (bomb, "btf is larger than 67108864 bytes"),
    "a bomb that says it is small": (bomb_that_lies_about_its_size, "not a vmcheck symbol file: "),
    "no btf": (lambda path: archive(path, {"build-id": b"f00d", "symbols": b""}), "no item named 'btf'"),
    "no symbols": (lambda path: archive(path, {"build-id": b"f00d", "btf": b""}), "no item named 'symbols'"),
    "an empty archive": (lambda path: archive(path, {}), "no item named 'build-id'"),
    "another method": (
        lambda path: archive(path, MEMBERS, zipfile.ZIP_LZMA),
        "is neither stored nor deflated",
    ),
    "symbols that are text": (lambda path: archive(path, MEMBERS | {"symbols": b"hello\n"}), "symbols: "),
    "symbols that are binary": (
        lambda path: archive(path, MEMBERS | {"symbols": b"\xff D x\n"}),
        "symbols: ",
    ),
    "an address that is none": (
        lambda path: archive(path, MEMBERS | {"symbols": b"wild D x\n"}),
        "symbols: ",
    ),
    "an address of 5,000 digits": (
        lambda path: archive(path, MEMBERS | {"symbols": b"f" * 5000 + b" D x\n"}),
        "symbols: ",
    ),
    "a negative address": (lambda path: archive(path, MEMBERS | {"symbols": b"-1 D x\n"}), "symbols: "),
}


@pytest.mark.parametrize("name", UNFIT)
def test_an_unfit_file_is_one_line(name: str, tmp_path: Path) -> None:
    make, expected = UNFIT[name]
    path = make(tmp_path / "kernel.symbols")
    with pytest.raises(SymbolError) as refused:
        SymbolFile(path)
    assert expected in str(refused.value)
    assert str(refused.value).startswith(f"{path}: ")
    assert len(str(refused.value)) < len(path) + 200


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("symbols") / "kernel.symbols"
    write_symbol_file(str(path), "f00d", b"types" * 20, SYMBOLS)
    return path.read_bytes()


@settings(max_examples=200, deadline=None)
@given(places=st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=4)), min_size=1))
def test_any_change_is_survived(
    places: list[tuple[int, bytes]], good: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = good
    for place, new in places:
        data = patched(data, place % (len(data) - 4), new)
    path = tmp_path_factory.getbasetemp() / "changed.symbols"
    path.write_bytes(data)
    with contextlib.suppress(SymbolError):
        assert all(0 <= symbol.address < 1 << 64 for symbol in SymbolFile(str(path)))


def test_a_file_cut_anywhere_is_refused(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.symbols"
    for size in range(0, len(good), 7):
        path.write_bytes(good[:size])
        with pytest.raises(SymbolError):
            SymbolFile(str(path))


# What the reading of a kernel makes of it.


def test_an_unfit_file_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    machine = healthy()
    with pytest.raises(SymbolError, match="no item named 'btf'"):
        machine.topology(tmp_path, archive(tmp_path / "odd.symbols", {"build-id": b"f00d", "symbols": b""}))


def test_symbols_of_another_kernel_are_told_and_not_used(tmp_path: Path) -> None:
    machine = healthy()
    machine.vmcoreinfo["BUILD-ID"] = "beef"
    found = machine.topology(tmp_path)
    assert (found.symbols_build_id, found.build_id) == ("f00d", "beef")
    assert found.remarks[0] == "kernel.symbols is of another kernel and was not used"
    assert known(found.sections).account.complete


@pytest.mark.parametrize("offset", ["xyz", "-1", "", "f" * 5000, "\x1b[2J"])
def test_a_dump_that_does_not_know_where_its_kernel_is_uses_no_symbols(offset: str, tmp_path: Path) -> None:
    machine = healthy()
    machine.vmcoreinfo["KERNELOFFSET"] = offset
    found = machine.topology(tmp_path)
    assert isinstance(found.resources, Unknown)
    told = [*found.remarks, found.resources.why]
    assert any("KERNELOFFSET" in text or "VMCOREINFO is " in text for text in told), told
    assert all(len(text) < 300 for text in told)
