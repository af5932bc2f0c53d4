# SPDX-License-Identifier: LGPL-2.1-or-later
"""``vmcheck symbols``: what a kernel's file holds, and what it does for a check."""

from __future__ import annotations

import json
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures.capture import Capture, captures
from tests.builders import GiB, elf_vmcore, ram, write
from vmcheck.cli import main
from vmcheck.errors import VmcheckError
from vmcheck.formats import open_dump
from vmcheck.kernel.program import VARIABLES, Kernel
from vmcheck.kernel.symbol_file import SymbolFile
from vmcheck.kernel.symbols import Kallsyms
from vmcheck.operations.examine import examine
from vmcheck.operations.symbols import collect_symbols
from vmcheck.report.document import to_json

SELF_CONTAINED = [
    capture
    for capture in captures()
    if capture.symbols is None and (capture.folder.parent / "kernel.symbols").exists()
]
every_kernel = pytest.mark.parametrize(
    "capture", SELF_CONTAINED, ids=lambda capture: capture.folder.parent.name
)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """``run(*arguments)``: (status, stdout, stderr) of vmcheck."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vmcheck", *arguments])
        with pytest.raises(SystemExit) as exit:
            main()
        out, err = capfd.readouterr()
        assert isinstance(exit.value.code, int)
        return exit.value.code, out, err

    return run


@pytest.fixture(scope="module", params=SELF_CONTAINED[-1:], ids=["newest"])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Capture, Path, int]:
    """A capture, the file that the command makes of it, and how many symbols it says to have written."""
    capture: Capture = request.param
    path = tmp_path_factory.mktemp("symbols") / "kernel.symbols"
    return capture, path, collect_symbols(str(capture.vmcore), str(path))[0]


def test_every_variable_that_a_check_reads_is_in_the_file(made: tuple[Capture, Path, int]) -> None:
    """7.2 kernels have T, nm(1)'s letter for text, for much of their data."""
    capture, path, count = made
    assert zipfile.ZipFile(path).read("symbols").count(b"\n") == count > 40_000
    collected = SymbolFile(str(path))
    with open_dump([capture.vmcore]) as dump:
        kernel = Kernel(dump.header, dump.memory)
        assert isinstance(kernel.symbols, Kallsyms)
        collected.kernel_offset = kernel.kernel_offset()
        own = {name: kernel.symbols.address(name) for name in VARIABLES}
        assert {name: collected.address(name) for name in VARIABLES} == own
        assert collected.btf == kernel.own_btf()
        assert collected.build_id == dump.header.vmcoreinfo["BUILD-ID"]
    # crashk_cma_* came with v6.17, cpu_*_bits went with v4.5.
    assert sum(address is not None for address in own.values()) >= len(VARIABLES) - 5


def test_the_file_in_the_repository_is_what_the_command_makes(made: tuple[Capture, Path, int]) -> None:
    capture, path, _ = made
    assert path.read_bytes() == (capture.folder.parent / "kernel.symbols").read_bytes()


def report(capture: Capture, symbols: str | None) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(to_json(examine([str(capture.vmcore)], symbols)))
    for name in ("source", "symbols_build_id"):
        del made["kernel"][name]
    made["rules"] = [rule for rule in made["rules"] if rule["rule"] != "build-id-mismatch"]
    return made


@every_kernel
def test_a_check_with_the_file_says_what_a_check_without_it_says(capture: Capture) -> None:
    with_file = report(capture, str(capture.folder.parent / "kernel.symbols"))
    assert with_file == report(capture, None)


def test_another_kernels_file_is_told_and_not_used(run: Run) -> None:
    first, second, *_ = SELF_CONTAINED
    status, out, err = run(
        "check", str(first.vmcore), "-s", str(second.folder.parent / "kernel.symbols"), "--json", "-"
    )
    found = json.loads(out)
    (mismatch,) = [finding for finding in found["findings"] if finding["rule"] == "build-id-mismatch"]
    assert (status, err) == (1, "")
    assert mismatch["severity"] == "wrong"
    assert found["memory"] == report(first, None)["memory"]


def vmlinux(path: Path, names: list[tuple[str, int]], types: bytes, build_id: bytes = b"\xab\xcd") -> str:
    """An ELF executable with .BTF, .notes and .symtab."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name, _ in names)
    symbols = bytes(24)
    for name, address in names:
        symbols += struct.pack("<IBBHQQ", strings.find(name.encode() + b"\0"), 0x11, 0, 1, address, 8)
    note = struct.pack("<III", 4, len(build_id), 3) + b"GNU\0" + build_id.ljust(4, b"\0")
    shstrtab = b"\0.BTF\0.notes\0.symtab\0.strtab\0.shstrtab\0"
    contents = [(".BTF", 1, types, 0), (".notes", 7, note, 0), (".symtab", 2, symbols, 4)]
    contents += [(".strtab", 3, strings, 0), (".shstrtab", 3, shstrtab, 0)]
    headers, body = bytes(64), b""
    for name, kind, data, link in contents:
        place = shstrtab.find(name.encode() + b"\0")
        headers += struct.pack(
            "<IIQQQQIIQQ", place, kind, 0, 0, 64 + len(body), len(data), link, 0, 8, 24 if kind == 2 else 0
        )
        body += data + bytes(-len(data) % 8)
    ehdr = b"\x7fELF\2\1\1" + bytes(9)
    ehdr += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 0, 64 + len(body), 0, 64, 56, 0, 64, 6, 5)
    return str(write(path, ehdr + body + headers))


def test_a_vmlinux_gives_the_same_as_its_dump(run: Run, tmp_path: Path) -> None:
    names = [("iomem_resource", 0xFFFFFFFF82A51C40), ("runqueues", 0x31C40)]
    output = str(tmp_path / "kernel.symbols")
    status, out, err = run("symbols", vmlinux(tmp_path / "vmlinux", names, b"types"), "-o", output)
    assert (status, err) == (0, "")
    assert out.startswith(f"{output}: 2 symbols and the types of one kernel build, ")
    file = SymbolFile(output)
    file.kernel_offset = 0x1000
    assert (file.build_id, file.btf) == ("abcd", b"types")
    assert file.address("iomem_resource") == 0xFFFFFFFF82A52C40
    assert file.address("runqueues") == 0x31C40


VMCOREINFO = "OSRELEASE=6.1.0\nPAGESIZE=4096\nBUILD-ID=f00d\n"


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        VMCOREINFO,
        VMCOREINFO + "KERNELOFFSET=xyz\nSYMBOL(_stext)=ffffffff81000000\n",
        VMCOREINFO + "SYMBOL(_stext)=ffffffff81000000\nSYMBOL(swapper_pg_dir)=ffffffff82000000\n",
    ],
)
def test_a_dump_without_symbols_is_one_line(run: Run, text: str | None, tmp_path: Path) -> None:
    path = write(tmp_path / "vmcore", elf_vmcore([ram(0, GiB)], vmcoreinfo=text))
    status, out, err = run("symbols", str(path), "-o", str(tmp_path / "out"))
    assert (status, out) == (3, "")
    assert err.startswith("vmcheck: ")
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content", [b"", b"\x7fELF", b"text\n" * 100, b"\x7fELF\2\1\1" + bytes(9) + b"\2\0" + bytes(100)]
)
def test_a_file_that_is_neither_is_one_line(content: bytes, tmp_path: Path) -> None:
    path = str(write(tmp_path / "odd", content))
    with pytest.raises(VmcheckError) as refused:
        collect_symbols(path, str(tmp_path / "out"))
    assert str(refused.value).startswith(f"{path}: ")
    assert not (tmp_path / "out").exists()
