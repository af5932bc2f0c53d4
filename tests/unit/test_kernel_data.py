# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel's own memory by exact sets: one filtered page of it is seen, a freed or zero page is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.builders import MiB
from tests.kernels import (
    EARLY,
    HAS_MEM_MAP,
    IMAGE,
    ONLINE,
    PAGE_OFFSET,
    PRESENT,
    Machine,
    healthy,
    kernel_types,
    resource,
    words,
)
from vmcheck.facts.header import Format
from vmcheck.facts.ranges import EMPTY, RangeSet
from vmcheck.facts.topology import KernelData, KernelPart
from vmcheck.operations.examine import read_kernel

RESERVED = 1 << 11
IMAGE_START = 32 * MiB
NAMES = ("Kernel code", "Kernel rodata", "Kernel data", "Kernel bss")
UNTOUCHED = 200 * MiB


def page(address: int) -> RangeSet:
    return RangeSet([(address, address + 4096)])


def part(n: int) -> int:
    """Physical address of the n-th part of the kernel's image, each of 1 MiB."""
    return IMAGE_START + n * MiB


@pytest.fixture
def machine() -> Machine:
    """With a kernel image at 32 MiB, two per-CPU areas, and struct pages for section 0."""
    types = kernel_types()
    types.enum("pageflags", PG_reserved=11)
    machine = healthy(types)
    first_ram = machine.word(machine.symbols["iomem_resource"] + 56)
    following = 0
    for n in reversed(range(len(NAMES))):
        name = machine.place(NAMES[n].encode() + b"\0")
        made = resource(part(n), part(n + 1), name=name, parent=first_ram, sibling=following)
        following = machine.place(made)
    machine.put(first_ram + 56, words(following))
    machine.symbols |= {"idt_table": IMAGE + part(3)}
    machine.symbols |= {"__per_cpu_start": PAGE_OFFSET + 64 * MiB, "__per_cpu_end": PAGE_OFFSET + 65 * MiB}
    structs = machine.place((words(RESERVED) + bytes(56)) * 32768, align=4096)
    roots = int(machine.vmcoreinfo["SYMBOL(mem_section)"], 16)
    flags = PRESENT | HAS_MEM_MAP | ONLINE | EARLY
    machine.put(machine.word(roots), words(structs | flags))
    machine.structs = structs  # type: ignore[attr-defined]
    return machine


def data(machine: Machine, directory: Path, filtered: RangeSet, format: Format = Format.KDUMP) -> KernelData:
    header = machine.header(directory)
    header = replace(header, format=format, stored=header.described - filtered)
    found = read_kernel(header, machine, machine.symbol_file(directory)).kernel_data
    assert isinstance(found, KernelData)
    return found


def filtered(found: KernelData) -> dict[str, RangeSet]:
    return {part.name: part.filtered for part in found.parts if part.filtered}


def test_a_dump_that_filters_no_page_needs_no_look(machine: Machine, tmp_path: Path) -> None:
    assert data(machine, tmp_path, EMPTY) == KernelData()


def test_every_part_is_looked_for(machine: Machine, tmp_path: Path) -> None:
    found = data(machine, tmp_path, page(UNTOUCHED))
    assert found == KernelData(
        (
            KernelPart("kernel text", MiB, EMPTY),
            KernelPart("kernel rodata", MiB, EMPTY),
            KernelPart("kernel data", MiB, EMPTY),
            KernelPart("kernel bss", MiB, EMPTY),
            KernelPart("per-CPU areas", MiB + 4096, EMPTY),
            KernelPart("struct pages of online memory", 2 * MiB, EMPTY),
        )
    )


@pytest.mark.parametrize("n", range(4), ids=NAMES)
def test_one_filtered_page_of_the_image_is_seen(machine: Machine, tmp_path: Path, n: int) -> None:
    gone = page(part(n) + 0x5000)
    name = f"kernel {NAMES[n].removeprefix('Kernel ').replace('code', 'text')}"
    assert filtered(data(machine, tmp_path, gone)) == {name: gone}


def test_a_page_that_the_kernel_freed_is_not_its_own(machine: Machine, tmp_path: Path) -> None:
    place = part(3) + 0x5000
    machine.put(machine.structs + place // 4096 * 64, words(0))  # type: ignore[attr-defined]
    assert filtered(data(machine, tmp_path, page(place))) == {}


def test_a_page_of_per_cpu_variables_is_seen(machine: Machine, tmp_path: Path) -> None:
    gone = page(64 * MiB + 0x3000)
    assert filtered(data(machine, tmp_path, gone)) == {"per-CPU areas": gone}


def test_a_page_of_struct_pages_is_seen(machine: Machine, tmp_path: Path) -> None:
    gone = page(machine.structs - PAGE_OFFSET)  # type: ignore[attr-defined]
    assert filtered(data(machine, tmp_path, gone)) == {"struct pages of online memory": gone}


def test_in_makedumpfiles_elf_a_page_of_bss_may_be_one_of_zeros(machine: Machine, tmp_path: Path) -> None:
    gone = page(part(3) + 0x5000)
    assert filtered(data(machine, tmp_path, gone, Format.ELF)) == {}


def test_in_makedumpfiles_elf_the_page_of_idt_table_is_none_of_zeros(
    machine: Machine, tmp_path: Path
) -> None:
    gone = page(part(3))
    assert filtered(data(machine, tmp_path, gone, Format.ELF)) == {"kernel bss": gone}


def test_in_makedumpfiles_elf_no_page_of_text_is_one_of_zeros(machine: Machine, tmp_path: Path) -> None:
    gone = page(part(0))
    assert filtered(data(machine, tmp_path, gone, Format.ELF)) == {"kernel text": gone}
