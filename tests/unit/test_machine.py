# SPDX-License-Identifier: LGPL-2.1-or-later
"""What differs between machines is one record each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders import elf_vmcore, prstatus, ram, write
from vmcheck.facts.machine import MACHINES, named, of_elf
from vmcheck.formats import read_header

MiB = 1 << 20


def test_no_name_is_of_two_machines() -> None:
    names = [name for each in MACHINES for name in (each.name, *each.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("x86_64", 336), ("i686", 144), ("aarch64", 392), ("armv7l", 148), ("ppc64le", 504), ("s390x", 336),
        ("riscv64", 376), ("loongarch64", 480),
    ],
)  # fmt: skip
def test_a_prstatus_is_as_large_as_the_kernel_s(name: str, size: int) -> None:
    """As in real dumps and the kernels' headers."""
    assert named(name).prstatus == size


def test_no_known_machine_lacks_a_stack() -> None:
    assert [each.name for each in MACHINES if not each.stack] == []


def test_a_stack_of_64k_pages_is_a_page_on_arm64_alone() -> None:
    assert named("aarch64").stack_size(65536) == 65536
    assert named("aarch64").stack_size(4096) == named("ppc64le").stack_size(65536) == 16384


@pytest.mark.parametrize(
    ("alias", "name"), [("i586", "i686"), ("i386", "i686"), ("arm64", "aarch64"), ("armv8l", "armv7l")]
)
def test_an_alias_is_its_machine(alias: str, name: str) -> None:
    assert named(alias) is named(name)


def test_an_unknown_machine_knows_nothing_but_its_name() -> None:
    unknown = named("vax")
    assert (unknown.name, unknown.known, unknown.drgn, unknown.stack_size(4096)) == ("vax", False, None, None)
    assert of_elf(0x7777, 64, "little").name == "30583"


def test_elf64_around_a_32_bit_kernel_is_read_by_the_machine(tmp_path: Path) -> None:
    """kexec-tools writes ELF64 for i386 and ARM kernels with memory above 4 GiB."""
    data = elf_vmcore([ram(MiB, 2 * MiB)], machine="i686", bits=64, notes=[prstatus(242, "i686", 32)])
    header = read_header([write(tmp_path / "vmcore", data)])
    assert (header.machine, header.bits) == ("i686", 32)
    assert [note.pid for note in header.cpu_notes] == [242]
