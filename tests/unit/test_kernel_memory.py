# SPDX-License-Identifier: LGPL-2.1-or-later
"""A kernel's memory, whole, damaged and hostile: each walk keeps what it saw and says where it stopped."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import pytest

from tests.builders import GiB, MiB
from tests.kernels import (
    BUILD_ID,
    EARLY,
    HAS_MEM_MAP,
    IMAGE,
    ONLINE,
    PAGE_OFFSET,
    PRESENT,
    SECTION_SIZE,
    SECTIONS_PER_ROOT,
    Machine,
    Types,
    blocks,
    healthy,
    kernel_types,
    resource,
    words,
)
from vmcheck.facts.exclusions import LOW_MEMORY, Exclusion
from vmcheck.facts.ranges import EMPTY, RangeSet
from vmcheck.facts.topology import Blocks, MemoryAccount, Resources, Sections, Topology, Unknown, known
from vmcheck.kernel import btf, memory

BOOT = RangeSet([(0, GiB)])
HIGH = RangeSet([(4 * GiB, 4 * GiB + SECTION_SIZE)])
HIGH_SECTION = 32
WILD = 0xFFFF900000000000
"""An address in the direct map, far behind the memory."""
AT_BOOT = dict.fromkeys(range(8), PRESENT | HAS_MEM_MAP | ONLINE | EARLY)
Fact = TypeVar("Fact")


def why(fact: Fact | Unknown) -> str:
    assert isinstance(fact, Unknown)
    return fact.why


def test_the_three_accounts_of_a_healthy_kernel(tmp_path: Path) -> None:
    found = healthy().topology(tmp_path)
    assert (found.sections, found.resources, found.blocks) == (
        Sections(SECTION_SIZE, MemoryAccount("mem_section", BOOT), BOOT, BOOT),
        Resources(MemoryAccount("iomem_resource", BOOT), EMPTY),
        Blocks(SECTION_SIZE, MemoryAccount("memory blocks", BOOT), EMPTY),
    )


def test_hot_added_sections_lack_the_early_bit(tmp_path: Path) -> None:
    found = healthy(ram=AT_BOOT | {HIGH_SECTION: PRESENT | ONLINE}).topology(tmp_path)
    assert found.sections == Sections(
        SECTION_SIZE, MemoryAccount("mem_section", BOOT | HIGH), BOOT | HIGH, BOOT
    )


def test_memory_that_was_never_onlined_is_in_no_account_of_online_memory(tmp_path: Path) -> None:
    found = healthy(ram=AT_BOOT | {HIGH_SECTION: PRESENT}).topology(tmp_path)
    assert found.sections == Sections(SECTION_SIZE, MemoryAccount("mem_section", BOOT), BOOT | HIGH, BOOT)
    assert found.blocks == Blocks(SECTION_SIZE, MemoryAccount("memory blocks", BOOT), HIGH)
    assert found.system_ram == BOOT


# Sections.


@pytest.mark.parametrize("bits", [51, 56])
def test_a_machine_that_could_have_more_memory_than_x86_64_is_read(tmp_path: Path, bits: int) -> None:
    """MAX_PHYSMEM_BITS is 51 on ppc64 and 56 on riscv64; what counts is how many sections are present."""
    machine = healthy()
    roots = (1 << bits) // SECTION_SIZE // SECTIONS_PER_ROOT
    machine.vmcoreinfo |= {"NUMBER(MAX_PHYSMEM_BITS)": str(bits), "LENGTH(mem_section)": str(roots)}
    machine.place(words(7), "__highest_present_section_nr")
    assert known(machine.topology(tmp_path).sections).account == MemoryAccount("mem_section", BOOT)


def test_a_root_that_is_lost_hides_its_own_sections_only(tmp_path: Path) -> None:
    machine = healthy()
    roots = int(machine.vmcoreinfo["SYMBOL(mem_section)"], 16)
    lost = machine.on_its_own_page(words(PRESENT | ONLINE, 0) * SECTIONS_PER_ROOT)
    machine.put(roots + 8, words(lost))
    machine.lose(lost)
    (unread,) = known(machine.topology(tmp_path).sections).account.unread
    assert unread.startswith("mem_section root of sections 256 to 511: ")
    assert known(machine.topology(tmp_path).sections).account.ram == BOOT


def test_two_roots_of_sections_that_are_one_page_are_damage(tmp_path: Path) -> None:
    machine = healthy()
    roots = int(machine.vmcoreinfo["SYMBOL(mem_section)"], 16)
    machine.put(roots + 8, words(machine.word(roots)))
    assert why(machine.topology(tmp_path).sections) == (
        "mem_section: two roots of mem_section are one page: it is damaged"
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("NUMBER(SECTION_SIZE_BITS)", "99999999"),
        ("NUMBER(SECTION_SIZE_BITS)", "9999999999999999999"),
        ("NUMBER(SECTION_SIZE_BITS)", "-1"),
        ("NUMBER(SECTION_SIZE_BITS)", "0"),
        ("NUMBER(SECTION_SIZE_BITS)", "\x1b[2J27"),
        ("NUMBER(MAX_PHYSMEM_BITS)", "9999999999999999999"),
        ("NUMBER(MAX_PHYSMEM_BITS)", "64"),
        ("SIZE(mem_section)", "0"),
        ("SIZE(mem_section)", "-16"),
        ("SIZE(mem_section)", "8192"),
        ("SIZE(mem_section)", "9999999999999999999"),
        ("OFFSET(mem_section.section_mem_map)", "-8"),
        ("OFFSET(mem_section.section_mem_map)", "16"),
        ("LENGTH(mem_section)", "0"),
        ("LENGTH(mem_section)", "9999999999999999999"),
    ],
)
def test_an_absurd_layout_of_sections_is_told(tmp_path: Path, key: str, value: str) -> None:
    machine = healthy()
    machine.vmcoreinfo[key] = value
    found = machine.topology(tmp_path)
    assert isinstance(found.sections, Unknown)
    assert "VMCOREINFO" in found.sections.why
    assert len(found.sections.why) < 200


@pytest.mark.parametrize(
    "key",
    [
        "SYMBOL(mem_section)",
        "LENGTH(mem_section)",
        "SIZE(mem_section)",
        "OFFSET(mem_section.section_mem_map)",
    ],
)
def test_a_missing_item_of_vmcoreinfo_is_named(tmp_path: Path, key: str) -> None:
    machine = healthy()
    del machine.vmcoreinfo[key]
    assert key in why(machine.topology(tmp_path).sections)


@pytest.mark.parametrize("key", ["NUMBER(SECTION_SIZE_BITS)", "NUMBER(MAX_PHYSMEM_BITS)"])
def test_before_5_13_the_size_of_a_section_follows_from_the_roots(tmp_path: Path, key: str) -> None:
    machine = healthy()
    expected = machine.topology(tmp_path).sections
    del machine.vmcoreinfo[key]
    assert machine.topology(tmp_path).sections == expected


def test_a_number_of_roots_that_is_impossible_gives_no_size(tmp_path: Path) -> None:
    machine = healthy()
    del machine.vmcoreinfo["NUMBER(MAX_PHYSMEM_BITS)"]
    machine.vmcoreinfo["LENGTH(mem_section)"] = "7"
    assert "power of 2" in why(machine.topology(tmp_path).sections)


def test_sections_past_the_address_space_are_not_believed(tmp_path: Path) -> None:
    machine = healthy()
    machine.vmcoreinfo |= {"NUMBER(SECTION_SIZE_BITS)": "61", "NUMBER(MAX_PHYSMEM_BITS)": "72"}
    assert "MAX_PHYSMEM_BITS" in why(machine.topology(tmp_path).sections)


# Resources.


def with_resource(machine: Machine, data: bytes, symbol: str = "odd") -> int:
    """Put a resource after all others, which lie below it."""
    root = machine.symbols["iomem_resource"]
    address = machine.on_its_own_page(data, symbol)
    machine.put(address + 40, words(root))
    last = machine.word(root + 56)
    while following := machine.word(last + 48):
        last = following
    machine.put(last + 48, words(address))
    return address


@pytest.mark.parametrize("link", [48, 56], ids=["sibling", "child"])
def test_a_resource_that_points_at_itself_ends_the_walk_there(tmp_path: Path, link: int) -> None:
    machine = healthy()
    odd = with_resource(machine, resource(4 * GiB, 5 * GiB))
    machine.put(odd + link, words(odd))
    account = known(machine.topology(tmp_path).resources).account
    assert account.unread == (f"the resource at {odd:#x} is its own ancestor or sibling",)
    assert account.ram == RangeSet([(4 * GiB, 5 * GiB)]) | BOOT


def first_child(machine: Machine) -> int:
    return machine.word(machine.symbols["iomem_resource"] + 56)


def test_a_resource_of_another_parent_is_not_in_the_tree(tmp_path: Path) -> None:
    machine = healthy()
    machine.put(first_child(machine) + 40, words(first_child(machine)))
    account = known(machine.topology(tmp_path).resources).account
    assert [text.split(", not")[0] for text in account.unread] == [
        f"the resource at {first_child(machine):#x} has the parent {first_child(machine):#x}"
    ]


def test_siblings_out_of_order_are_not_a_whole_tree(tmp_path: Path) -> None:
    """request_resource() keeps them in rising order: a tree that was damaged, or torn while it changed."""
    machine = healthy()
    machine.put(first_child(machine), words(5 * GiB, 6 * GiB - 1))
    account = known(machine.topology(tmp_path).resources).account
    assert not account.complete


def test_a_tree_that_ends_early_is_contradicted_by_the_sections(tmp_path: Path) -> None:
    """One zeroed sibling pointer: nothing in the tree itself says that it goes on."""
    machine = healthy()
    machine.put(first_child(machine) + 48, words(0))
    found = machine.topology(tmp_path)
    assert known(found.resources).account == MemoryAccount("iomem_resource", RangeSet([(0, SECTION_SIZE)]))
    assert found.disputed == BOOT - RangeSet([(0, SECTION_SIZE)])


def test_a_resource_that_points_back_at_the_root_ends_the_walk_there(tmp_path: Path) -> None:
    machine = healthy()
    odd = with_resource(machine, resource(4 * GiB, 5 * GiB))
    machine.put(odd + 56, words(machine.symbols["iomem_resource"]))
    account = known(machine.topology(tmp_path).resources).account
    assert account.ram == BOOT | RangeSet([(4 * GiB, 5 * GiB)])
    assert not account.complete


@pytest.mark.parametrize("pointer", [WILD, 1, 2**64 - 1, 0x1000])
def test_a_wild_resource_hides_no_other(tmp_path: Path, pointer: int) -> None:
    machine = healthy()
    odd = with_resource(machine, resource(4 * GiB, 5 * GiB))
    machine.put(odd + 56, words(pointer))
    account = known(machine.topology(tmp_path).resources).account
    assert account.ram == BOOT | RangeSet([(4 * GiB, 5 * GiB)])
    assert [text.split(":")[0] for text in account.unread] == [f"the resource at {pointer:#x}"]


def test_a_resource_whose_page_is_lost_is_told(tmp_path: Path) -> None:
    machine = healthy()
    odd = with_resource(machine, resource(4 * GiB, 5 * GiB))
    machine.lose(odd)
    found = machine.topology(tmp_path)
    account = known(found.resources).account
    assert (account.ram, account.complete) == (BOOT, False)
    assert [fault.structure for fault in found.faults] == ["iomem_resource"]
    assert found.faults[0].address == odd - PAGE_OFFSET


def test_a_resource_whose_name_is_lost_keeps_its_memory(tmp_path: Path) -> None:
    machine = healthy()
    with_resource(machine, resource(4 * GiB, 5 * GiB, name=WILD))
    account = known(machine.topology(tmp_path).resources).account
    assert account == MemoryAccount("iomem_resource", BOOT | RangeSet([(4 * GiB, 5 * GiB)]))


@pytest.mark.parametrize("end", [2**64, 1 << 63, 0])
def test_a_resource_past_the_address_space_is_no_memory(tmp_path: Path, end: int) -> None:
    machine = healthy()
    with_resource(machine, resource(4 * GiB, end))
    assert known(machine.topology(tmp_path).resources).account == MemoryAccount("iomem_resource", BOOT)


def test_more_resources_than_any_machine_has_end_the_walk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "MAX_RESOURCES", 4)
    account = known(healthy().topology(tmp_path).resources).account
    assert account == MemoryAccount(
        "iomem_resource", RangeSet([(0, 4 * SECTION_SIZE)]), ("there are more than 4 resources",)
    )


def test_a_lost_root_is_unknown(tmp_path: Path) -> None:
    machine = healthy()
    machine.lose(machine.on_its_own_page(resource(), "iomem_resource"))
    found = machine.topology(tmp_path)
    assert why(found.resources).startswith("iomem_resource: ")
    assert found.excluded == found.resources


def test_memory_of_a_driver_is_several_nodes(tmp_path: Path) -> None:
    machine = healthy()
    with_resource(machine, resource(4 * GiB, 5 * GiB, memory.IORESOURCE_SYSRAM_DRIVER_MANAGED | 0x81000200))
    assert known(machine.topology(tmp_path).resources).driver_managed == RangeSet([(4 * GiB, 5 * GiB)])


def test_a_reserved_range_is_no_ram(tmp_path: Path) -> None:
    machine = healthy()
    with_resource(machine, resource(4 * GiB, 5 * GiB, flags=0x80000200))
    assert known(machine.topology(tmp_path).resources).account == MemoryAccount("iomem_resource", BOOT)


# What a healthy header leaves out.


def test_exclusions_carry_their_reasons(tmp_path: Path) -> None:
    machine = healthy()
    machine.place(resource(256 * MiB, 512 * MiB), "crashk_res")
    machine.place(resource(16 * MiB, 32 * MiB), "crashk_low_res")
    with_resource(machine, resource(3 * GiB, 4 * GiB, 0x80000200, name=machine.place(b"GART\0")))
    machine.place(words(1), "crashk_cma_cnt")
    machine.place(words(768 * MiB, 800 * MiB - 1, *[0] * 6), "crashk_cma_ranges")
    assert machine.topology(tmp_path).excluded == (
        Exclusion("the first MiB, which the crash kernel itself uses", LOW_MEMORY),
        Exclusion(
            "reserved for the crash kernel (crashkernel=)",
            RangeSet([(256 * MiB, 512 * MiB), (16 * MiB, 32 * MiB)]),
        ),
        Exclusion("crashkernel CMA, user pages lent by the crash kernel", RangeSet([(768 * MiB, 800 * MiB)])),
        Exclusion("GART aperture", RangeSet([(3 * GiB, 4 * GiB)])),
    )


@pytest.mark.parametrize("symbol", ["crashk_res", "crashk_low_res", "crashk_cma_cnt", "crashk_cma_ranges"])
def test_a_lost_reservation_excludes_nothing(tmp_path: Path, symbol: str) -> None:
    machine = healthy()
    machine.symbols[symbol] = WILD
    assert [part.ranges for part in known(machine.topology(tmp_path).excluded)] == [LOW_MEMORY]


def test_the_crash_kernel_is_found_by_its_resource_where_its_symbol_is_lost(tmp_path: Path) -> None:
    machine = healthy()
    del machine.symbols["crashk_res"]
    with_resource(machine, resource(256 * MiB, 512 * MiB, 0x80000200, name=machine.place(b"Crash kernel\0")))
    assert known(machine.topology(tmp_path).excluded)[1].ranges == RangeSet([(256 * MiB, 512 * MiB)])


# Memory blocks.


def block_account(machine: Machine, tmp_path: Path) -> Blocks:
    return known(machine.topology(tmp_path).blocks)


@pytest.mark.parametrize(
    ("types", "online"),
    [
        (kernel_types(), 1),
        (kernel_types(states={"MEM_ONLINE": 1, "MEM_GOING_OFFLINE": 2, "MEM_OFFLINE": 4}), 1),
        (kernel_types(states={"MEM_ONLINE": 0, "MEM_GOING_OFFLINE": 1, "MEM_OFFLINE": 2}), 0),
    ],
    ids=["macros", "enum with the macros' values", "enum counted from 0"],
)
def test_online_is_what_the_kernels_own_enum_says(tmp_path: Path, types: Types, online: int) -> None:
    """MEM_ONLINE was a macro, (1 << 0), until the states became an enum in v6.19."""
    machine = healthy(types)
    blocks(machine, {0: online, 1: 2, 2: online})
    assert block_account(machine, tmp_path) == Blocks(
        SECTION_SIZE,
        MemoryAccount("memory blocks", RangeSet([(0, SECTION_SIZE), (2 * SECTION_SIZE, 3 * SECTION_SIZE)])),
        RangeSet([(SECTION_SIZE, 2 * SECTION_SIZE)]),
    )


def test_a_block_has_as_many_sections_as_the_kernel_says(tmp_path: Path) -> None:
    machine = healthy()
    machine.place(words(16), "sections_per_block")
    blocks(machine, {0: 1, 16: 1})
    assert block_account(machine, tmp_path) == Blocks(
        2 * GiB, MemoryAccount("memory blocks", RangeSet([(0, 4 * GiB)])), EMPTY
    )


def test_one_block_stands_in_the_xarray_without_a_node(tmp_path: Path) -> None:
    machine = healthy()
    machine.place(words(0, machine.place(words(0, 1))), "memory_blocks")
    assert block_account(machine, tmp_path).account.ram == RangeSet([(0, SECTION_SIZE)])


def test_an_empty_xarray_has_no_blocks(tmp_path: Path) -> None:
    machine = healthy()
    machine.place(words(0, 0), "memory_blocks")
    assert block_account(machine, tmp_path) == Blocks(
        SECTION_SIZE, MemoryAccount("memory blocks", EMPTY), EMPTY
    )


def first_node(machine: Machine) -> int:
    return machine.word(machine.symbols["memory_blocks"] + 8) - 2


def test_a_node_that_is_its_own_child_is_visited_once(tmp_path: Path) -> None:
    machine = healthy()
    node = first_node(machine)
    machine.put(node + 16, words(node + 2))
    assert block_account(machine, tmp_path).account == MemoryAccount("memory blocks", BOOT)


@pytest.mark.parametrize("slot", [WILD + 2, 0x2002, 2**64 - 2])
def test_a_wild_node_hides_no_other(tmp_path: Path, slot: int) -> None:
    machine = healthy()
    machine.put(first_node(machine) + 16, words(slot))
    account = block_account(machine, tmp_path).account
    assert account.ram == BOOT
    assert [text.split(":")[0] for text in account.unread] == [f"the xarray node at {slot - 2:#x}"]


@pytest.mark.parametrize("slot", [WILD, 0x2000, 2**64 - 4])
def test_a_wild_block_hides_no_other(tmp_path: Path, slot: int) -> None:
    machine = healthy()
    machine.put(first_node(machine) + 16, words(slot))
    account = block_account(machine, tmp_path).account
    assert account.ram == BOOT
    assert [text.split(":")[0] for text in account.unread] == [f"the structure at {slot:#x}"]


@pytest.mark.parametrize("slot", [2, 6, 1, 3, 4095 << 2 | 2])
def test_the_xarrays_own_marks_are_no_blocks(tmp_path: Path, slot: int) -> None:
    """Values, and internal entries below 4096: zero, retry, sibling."""
    machine = healthy()
    machine.put(first_node(machine) + 16, words(slot if slot < 4096 else 4094))
    assert block_account(machine, tmp_path).account == MemoryAccount("memory blocks", BOOT)


def test_blocks_next_to_one_that_is_lost_are_seen(tmp_path: Path) -> None:
    machine = healthy()
    lost = machine.on_its_own_page(words(40, 1))
    near = machine.place(words(41, 1))
    machine.put(first_node(machine) + 16, words(lost, near))
    machine.lose(lost)
    account = block_account(machine, tmp_path).account
    assert account.ram == BOOT | RangeSet([(41 * SECTION_SIZE, 42 * SECTION_SIZE)])
    assert [text.split(":")[0] for text in account.unread] == [f"the structure at {lost:#x}"]


def test_a_block_past_the_address_space_is_no_memory(tmp_path: Path) -> None:
    machine = healthy()
    blocks(machine, {0: 1, 2**63: 1, 2**35: 1})
    assert block_account(machine, tmp_path).account.ram == RangeSet([(0, SECTION_SIZE)])


def test_blocks_larger_than_the_address_space_are_not_believed(tmp_path: Path) -> None:
    machine = healthy()
    machine.place(words(2**31 - 1), "sections_per_block")
    assert why(machine.topology(tmp_path).blocks).startswith("memory blocks: ")


@pytest.mark.parametrize("struct", ["xa_node", "xarray", "memory_block"])
@pytest.mark.parametrize("lacking", ["its members", "its name"])
def test_types_that_are_not_as_they_should_be_are_told(tmp_path: Path, struct: str, lacking: str) -> None:
    machine = healthy()
    odd = Types()
    if lacking == "its members":
        odd.struct(struct, size=16)
    machine.btf = spliced(kernel_types(), struct, odd if lacking == "its members" else None)
    assert why(machine.topology(tmp_path).blocks).startswith("memory blocks: ")


def spliced(types: Types, name: str, instead: Types | None) -> bytes:
    """The types, with a struct of one name replaced by an empty one, or by none."""
    again = Types()
    again._strings = types._strings
    for record in types._records:
        info = int.from_bytes(record[4:8], "little")
        if info >> 24 == btf.STRUCT and record[:4] == types.string(name).to_bytes(4, "little"):
            record = record[:4] + (btf.STRUCT << 24).to_bytes(4, "little") + record[8:12]
            if instead is None:
                record = bytes(4) + record[4:]
        again._records.append(record)
    return again.section()


def test_a_quarter_million_blocks_are_read_in_bulk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """32 TiB of memory, each block in its own kmalloc slot: one read for each MiB, not for each block."""
    machine = healthy(kernel_types(slots=64))
    count = 1 << 18
    machine.place(words(*(word for number in range(count) for word in (number, 1)), 0))
    first = len(machine.memory) + PAGE_OFFSET - 8 - 16 * count
    level = [first + 16 * n for n in range(count)]
    while len(level) > 1:
        level = [machine.place(words(0, *level[n : n + 64])) | 2 for n in range(0, len(level), 64)]
    machine.place(words(0, level[0]), "memory_blocks")
    kernel = machine.kernel(tmp_path)
    reads = 0
    read = machine.read

    def counted(address: int, size: int) -> bytes:
        nonlocal reads
        reads += 1
        return read(address, size)

    monkeypatch.setattr(machine, "read", counted)
    found = memory.blocks(memory.BlockTable(kernel, SECTION_SIZE))
    assert found.account == MemoryAccount("memory blocks", RangeSet([(0, count * SECTION_SIZE)]))
    assert reads < count // 16


def test_a_kernel_that_cannot_be_asked_for_anything_is_still_told(tmp_path: Path) -> None:
    machine = Machine()
    found = machine.topology(tmp_path)
    assert isinstance(found, Topology)
    assert (found.release, found.build_id) == ("6.1.0-test", BUILD_ID)
    assert {type(fact) for fact in (found.sections, found.resources, found.blocks, found.online_cpus)} == {
        Unknown
    }
    assert why(found.sections) == "mem_section: VMCOREINFO has no number LENGTH(mem_section)"
    assert machine.vmcoreinfo["SYMBOL(_stext)"] == f"{IMAGE:x}"
