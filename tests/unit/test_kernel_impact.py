# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tasks, struct pages and modules of a kernel that lacks memory; whole, damaged and hostile."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from tests.kernels import PAGE_OFFSET, Machine, Types, words
from vmcheck.facts.ranges import EMPTY, RangeSet
from vmcheck.facts.topology import LostModule, LostPages, Modules, PageCount, PageKind, Task, Tasks
from vmcheck.kernel import btf, impact
from vmcheck.kernel.impact import lost_pages, modules, per_cpu_areas
from vmcheck.kernel.memory import SectionTable
from vmcheck.kernel.tasks import read_tasks

SLOTS = 16
STACK_PAGES = 4


def types() -> Types:
    made = Types()
    ulong, u32, u8 = (
        made.integer("long unsigned int", 8),
        made.integer("unsigned int", 4),
        made.integer("u8", 1),
    )
    pointer, char, number = made.pointer(), made.integer("char", 1, signed=True), made.integer("int", 4, True)
    xarray = made.struct("xarray", ("xa_lock", ulong), ("xa_head", pointer))
    made.struct("xa_node", ("shift", u8), ("slots", made.array(pointer, SLOTS)))
    idr = made.struct("idr", ("idr_rt", xarray))
    made.struct("pid_namespace", ("idr", idr))
    made.struct("pid", ("count", ulong), ("tasks", made.array(pointer, 4)))
    made.struct(
        "task_struct",
        ("stack", ulong),
        ("pid", u32),
        ("comm", made.array(char, 16)),
        ("pid_links", made.array(pointer, 8)),
    )
    made.struct("rq", ("clock", ulong), ("curr", pointer))
    counter = made.struct("", ("counter", number))
    made.add(btf.TYPEDEF, "atomic_t", counter)
    head = made.struct("list_head", ("next", pointer), ("prev", pointer))
    area = made.struct("module_memory", ("base", pointer), ("size", u32))
    made.struct(
        "module",
        ("state", ulong),
        ("list", head),
        ("name", made.array(char, 56)),
        ("mem", made.array(area, 2)),
    )
    made.enum("pageflags", PG_locked=0, PG_slab=7, PG_reserved=12, __NR_PAGEFLAGS=25)
    made.enum("zone_type", ZONE_DMA=0, ZONE_NORMAL=1, ZONE_MOVABLE=2, __MAX_NR_ZONES=3)
    reference = made.struct("zoneref", ("zone", pointer), ("idx", ulong))
    made.struct("zonelist", ("_zonerefs", made.array(reference, 4 * 3 + 1)))
    made.struct("page", ("flags", ulong), ("memcg_data", ulong))
    return made


@dataclass
class Tasked:
    """A kernel with these tasks, each with its task_struct, struct pid and stack on pages of their own."""

    names: dict[int, str]
    machine: Machine = field(default_factory=lambda: Machine(types()))
    structs: dict[int, int] = field(default_factory=dict)
    pids: dict[int, int] = field(default_factory=dict)
    stacks: dict[int, int] = field(default_factory=dict)
    leaves: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        machine = self.machine
        for pid, name in self.names.items():
            self.stacks[pid] = machine.on_its_own_page(bytes(4096 * STACK_PAGES))
            data = struct.pack("<QI16s", self.stacks[pid], pid, name.encode())
            self.structs[pid] = machine.on_its_own_page(data + bytes(64))
            link = self.structs[pid] + 28
            self.pids[pid] = machine.on_its_own_page(words(1, link, 0, 0, 0))
        for first in range(0, SLOTS * SLOTS, SLOTS):
            slots = [self.pids.get(first + i, 0) for i in range(SLOTS)]
            leaf = machine.on_its_own_page(b"\0" + words(*slots)) | 2 if any(slots) else 0
            self.leaves.append(leaf)
        root = machine.on_its_own_page(bytes([4]) + words(*self.leaves)) | 2
        machine.place(words(0, root), "init_pid_ns")
        machine.place(words(0, self.structs[next(iter(self.names))]), "runqueues")
        machine.place(words(0, 0), "__per_cpu_offset")
        machine.place(struct.pack("<i", 0), "panic_cpu")

    def read(self, directory: Path, missing: RangeSet = EMPTY, cpus: tuple[int, ...] = (0,)) -> Tasks:
        return read_tasks(self.machine.kernel(directory), missing, cpus)


def page_of(address: int, pages: int = 1) -> RangeSet:
    start = (address & ~0xFFF) - PAGE_OFFSET
    return RangeSet([(start, start + 4096 * pages)])


def whole(pid: int, name: str, cpu: int | None = None) -> Task:
    return Task(pid, name, cpu, stack_pages=STACK_PAGES)


class TestTasks:
    NAMES = ((37, "sh"), (1, "init"), (2, "kthreadd"), (40, "kexec"))

    def kernel(self) -> Tasked:
        return Tasked(dict(self.NAMES))

    def test_every_task_by_pid(self, tmp_path: Path) -> None:
        found = self.kernel().read(tmp_path)
        assert found == Tasks(
            (whole(1, "init"), whole(2, "kthreadd"), whole(37, "sh", 0), whole(40, "kexec")), panic_cpu=0
        )
        assert found.crashed == whole(37, "sh", 0)
        assert found.lost == ()

    def test_a_stack_in_missing_memory(self, tmp_path: Path) -> None:
        kernel = self.kernel()
        found = kernel.read(tmp_path, page_of(kernel.stacks[37], 2))
        assert found.lost == (Task(37, "sh", 0, False, STACK_PAGES, 2),)
        assert found.unread == ()

    def test_a_lost_task_struct_keeps_its_pid(self, tmp_path: Path) -> None:
        kernel = self.kernel()
        found = kernel.read(tmp_path, page_of(kernel.structs[40]))
        assert found.lost == (Task(40, "", None, task_struct_lost=True),)
        assert [task.pid for task in found.tasks] == [1, 2, 37, 40]

    def test_a_running_task_without_its_struct_pid_is_still_found(self, tmp_path: Path) -> None:
        kernel = self.kernel()
        found = kernel.read(tmp_path, page_of(kernel.pids[37]))
        assert found.crashed == whole(37, "sh", 0)
        assert found.unread == ("the struct pid of 1 PIDs lies in missing memory: 37",)

    def test_a_running_task_that_is_lost_with_its_struct_pid_has_no_pid(self, tmp_path: Path) -> None:
        kernel = self.kernel()
        found = kernel.read(tmp_path, page_of(kernel.pids[37]) | page_of(kernel.structs[37]))
        assert found.crashed == Task(None, "", 0, task_struct_lost=True)

    def test_a_lost_branch_of_the_table_costs_its_pids_and_no_others(self, tmp_path: Path) -> None:
        kernel = self.kernel()
        found = kernel.read(tmp_path, page_of(kernel.leaves[0]))
        assert [task.pid for task in found.tasks] == [37, 40]
        (told,) = found.unread
        assert told.startswith("PIDs 0 to 15: a node of the PID table cannot be read")

    def test_pages_that_the_dump_lacks_for_another_reason(self, tmp_path: Path) -> None:
        kernel = self.kernel()
        kernel.machine.lose(kernel.structs[2])
        assert kernel.read(tmp_path).tasks[1] == Task(2, "")

    def test_a_table_that_is_its_own_branch_ends(self, tmp_path: Path) -> None:
        kernel = self.kernel()
        root = kernel.machine.word(kernel.machine.symbols["init_pid_ns"] + 8)
        kernel.machine.put((root & ~3) + 1 + 8 * 5, words(root))
        assert [task.pid for task in kernel.read(tmp_path).tasks] == [1, 2, 37, 40]

    @pytest.mark.parametrize("entry", [0xFFFF900000000002, 0x1234567800000000, 1, 2**64 - 2])
    def test_wild_entries_of_the_table(self, tmp_path: Path, entry: int) -> None:
        kernel = self.kernel()
        root = kernel.machine.word(kernel.machine.symbols["init_pid_ns"] + 8)
        kernel.machine.put((root & ~3) + 1 + 8 * 7, words(entry))
        found = kernel.read(tmp_path)
        assert {1, 2, 37, 40} <= {task.pid for task in found.tasks}

    def test_names_are_bytes_of_a_stranger(self, tmp_path: Path) -> None:
        kernel = Tasked({1: "a\x1b[2J"})
        kernel.machine.put(kernel.structs[1] + 12, b"\xff\xfe\0junk")
        assert kernel.read(tmp_path).tasks[0].name == "\\xff\\xfe"

    def test_no_more_tasks_are_looked_at_than_is_believed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from vmcheck.kernel import tasks as module

        monkeypatch.setattr(module, "MAX_TASKS", 8)
        found = Tasked({pid: f"t{pid}" for pid in range(1, 33)}).read(tmp_path, cpus=())
        assert [task.pid for task in found.tasks] == [1, 2, 27, 28, 29, 30, 31, 32]
        assert found.unread == ("24 of 32 PIDs were not looked at",)


# struct page

PFN = 0x100000
"""The first page of the missing memory: 4 GiB."""
OLD = {
    "NUMBER(PG_slab)": "7",
    "NUMBER(PG_hwpoison)": "20",
    "NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)": "-129",
    "NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)": "-257",
}
"""Linux 6.1."""
NEW = {
    "NUMBER(PG_hwpoison)": "20",
    "NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)": "-268435456",
    "NUMBER(PAGE_OFFLINE_MAPCOUNT_VALUE)": "-251658240",
    "NUMBER(PAGE_HUGETLB_MAPCOUNT_VALUE)": "-201326592",
    "NUMBER(PAGE_SLAB_MAPCOUNT_VALUE)": "-184549376",
}
"""Linux 6.12."""
ANON, FILE = 0xFFFF888000001001, 0xFFFF888000001000


def page(
    flags: int = 0,
    head: int = 0,
    mapping: int = 0,
    mapcount: int = -1,
    count: int = 1,
    node: int = 0,
    zone: int = 1,
) -> bytes:
    """A struct page of 64 bytes; node and zone in the high bits of the flags, 2 bits each."""
    flags |= node << 62 | zone << 60
    return struct.pack("<QQQQQQiiQ", flags, head, 0, mapping, 0, 0, mapcount, count, 0)


FREE = page(count=0)


@dataclass
class Paged:
    """A kernel whose missing memory has these struct pages."""

    pages: list[bytes]
    numbers: dict[str, str] = field(default_factory=lambda: dict(OLD))
    machine: Machine = field(default_factory=lambda: Machine(types()))
    vmemmap: int = 0

    def __post_init__(self) -> None:
        self.machine.vmcoreinfo |= self.numbers | {
            "OFFSET(page.mapping)": "24",
            "OFFSET(page._mapcount)": "48",
            "OFFSET(page._refcount)": "52",
        }
        self.vmemmap = self.machine.place(b"".join(self.pages), align=4096)
        self.machine.memory += bytes(4096)

    @property
    def missing(self) -> RangeSet:
        return RangeSet([(PFN * 4096, (PFN + len(self.pages)) * 4096)])

    def page_struct(self, pfn: int, size: int) -> int | None:
        return self.vmemmap + (pfn - PFN) * size

    def look(self, directory: Path, missing: RangeSet | None = None) -> LostPages:
        missing = self.missing if missing is None else missing
        return lost_pages(self.machine.kernel(directory), cast(SectionTable, self), missing)


def kinds(found: LostPages) -> dict[PageKind, int]:
    return {count.kind: count.pages for count in found.counts}


class TestStructPages:
    @pytest.mark.parametrize(
        ("kind", "one"),
        [
            (PageKind.FREE, page(count=0)),
            (PageKind.FREE, page(mapcount=-129, count=0)),
            (PageKind.SLAB, page(flags=1 << 7)),
            (PageKind.ANONYMOUS, page(mapping=ANON)),
            (PageKind.ANONYMOUS, page(mapping=ANON | 2)),
            (PageKind.PAGE_CACHE, page(mapping=FILE)),
            (PageKind.PAGE_TABLE, page(mapcount=-513)),
            (PageKind.OFFLINE, page(mapcount=-257)),
            (PageKind.RESERVED, page(flags=1 << 12)),
            (PageKind.POISONED, page(flags=1 << 20, mapping=ANON)),
            (PageKind.KERNEL, page()),
            (PageKind.KERNEL, page(mapping=FILE | 2)),
            (PageKind.KERNEL, page(mapping=0x1234)),
        ],
    )
    def test_kinds_of_6_1(self, tmp_path: Path, kind: PageKind, one: bytes) -> None:
        assert kinds(Paged([one, FREE]).look(tmp_path)) in ({kind: 1, PageKind.FREE: 1}, {PageKind.FREE: 2})
        assert kinds(Paged([one]).look(tmp_path)) == {kind: 1}

    @pytest.mark.parametrize(
        ("kind", "one"),
        [
            (PageKind.FREE, page(mapcount=-268435456, count=0)),
            (PageKind.SLAB, page(mapcount=-184549376 + 17)),
            (PageKind.SLAB, page(mapcount=-184549376, count=0)),
            (PageKind.HUGETLB, page(mapcount=-201326592, mapping=FILE)),
            (PageKind.ANONYMOUS, page(mapping=ANON, mapcount=3)),
            (PageKind.KERNEL, page(flags=1 << 7)),
        ],
    )
    def test_kinds_of_6_12_whose_types_are_a_top_byte(
        self, tmp_path: Path, kind: PageKind, one: bytes
    ) -> None:
        numbers = {"NUMBER(PG_slab)": "40"}
        found = Paged([one], NEW | numbers).look(tmp_path)
        assert kinds(found) == {kind: 1}

    def test_tails_are_what_their_head_is(self, tmp_path: Path) -> None:
        kernel = Paged([page(flags=1 << 7), *[bytes(64)] * 3, FREE])
        for tail in range(1, 4):
            kernel.machine.put(kernel.vmemmap + 64 * tail, page(head=kernel.vmemmap | 1, count=0))
        assert kinds(kernel.look(tmp_path)) == {PageKind.SLAB: 4, PageKind.FREE: 1}

    def test_a_head_outside_the_missing_memory_is_looked_up(self, tmp_path: Path) -> None:
        kernel = Paged([page(flags=1 << 7), *[bytes(64)] * 3])
        for tail in range(1, 4):
            kernel.machine.put(kernel.vmemmap + 64 * tail, page(head=kernel.vmemmap | 1, count=0))
        rest = RangeSet([((PFN + 2) * 4096, (PFN + 4) * 4096)])
        assert kinds(kernel.look(tmp_path, rest)) == {PageKind.SLAB: 2}

    def test_a_head_that_is_nowhere(self, tmp_path: Path) -> None:
        wild = page(head=0x1234567812345679, count=0)
        assert kinds(Paged([wild]).look(tmp_path)) == {PageKind.KERNEL: 1}

    def test_node_and_zone(self, tmp_path: Path) -> None:
        found = Paged([page(node=3, zone=2), page(node=3, zone=2), page(node=1)]).look(tmp_path)
        assert found.counts == (
            PageCount(3, "Movable", PageKind.KERNEL, 2),
            PageCount(1, "Normal", PageKind.KERNEL, 1),
        )

    def test_struct_pages_that_are_missing_themselves(self, tmp_path: Path) -> None:
        kernel = Paged([FREE] * 64)
        both = kernel.missing | page_of(kernel.vmemmap)
        found = kernel.look(tmp_path, both)
        assert (found.looked_at, found.unread, found.counts) == (0, 65, ())

    def test_a_large_range_is_sampled_evenly_and_says_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(impact, "MAX_RUNS", 4)
        monkeypatch.setattr(impact, "RUN", 8)
        half = [page(mapping=ANON)] * 256 + [FREE] * 256
        found = Paged(half).look(tmp_path)
        assert found.sampled
        assert found.looked_at == 32
        assert found.share(PageKind.ANONYMOUS) == 0.5

    def test_without_its_numbers_nothing_is_told(self, tmp_path: Path) -> None:
        kernel = Paged([FREE])
        del kernel.machine.vmcoreinfo["OFFSET(page.mapping)"]
        with pytest.raises(LookupError, match=r"OFFSET\(page.mapping\)"):
            kernel.look(tmp_path)

    @pytest.mark.parametrize("size", ["0", "4096", "99999999999"])
    def test_a_size_of_struct_page_that_is_not_believed(self, tmp_path: Path, size: str) -> None:
        kernel = Paged([FREE])
        kernel.machine.vmcoreinfo["SIZE(page)"] = size
        with pytest.raises(LookupError, match=r"SIZE\(page\)"):
            kernel.look(tmp_path)


# Modules and per-CPU areas


class TestModules:
    def kernel(self, *names: str) -> tuple[Machine, dict[str, int], dict[str, int]]:
        """(machine, struct module by name, its memory by name): each on pages of its own."""
        machine = Machine(types())
        head = machine.place(bytes(16), "modules")
        areas = {name: machine.on_its_own_page(bytes(3 * 4096)) for name in names}
        places = {name: machine.on_its_own_page(bytes(128)) for name in names}
        ring = [head, *[place + 8 for place in places.values()]]
        for i, link in enumerate(ring):
            machine.put(link, words(ring[(i + 1) % len(ring)], ring[i - 1]))
        for name, place in places.items():
            machine.put(place + 24, name.encode().ljust(56, b"\0"))
            machine.put(place + 80, struct.pack("<QI", areas[name], 3 * 4096 - 5))
        return machine, places, areas

    def test_nothing_lost(self, tmp_path: Path) -> None:
        machine, _, _ = self.kernel("a", "b")
        assert modules(machine.kernel(tmp_path), EMPTY) == Modules(2, ())

    def test_a_module_that_lacks_pages(self, tmp_path: Path) -> None:
        machine, _, areas = self.kernel("a", "b")
        found = modules(machine.kernel(tmp_path), page_of(areas["b"] + 4096, 2))
        assert found == Modules(2, (LostModule("b", 3, 2),))

    def test_a_list_that_breaks_is_walked_from_both_ends(self, tmp_path: Path) -> None:
        machine, places, _ = self.kernel("a", "b", "c", "d")
        found = modules(machine.kernel(tmp_path), page_of(places["c"]))
        assert found.count == 3
        assert found.unread[0] == "a module's own struct lies in missing memory, and the list breaks there"

    def test_a_list_that_loops_ends(self, tmp_path: Path) -> None:
        machine, places, _ = self.kernel("a", "b", "c")
        machine.put(places["c"] + 8, words(places["b"] + 8, places["b"] + 8))
        found = modules(machine.kernel(tmp_path), EMPTY)
        assert found.count == 3
        assert "not its head" in found.unread[0]

    def test_a_list_of_wild_pointers_ends(self, tmp_path: Path) -> None:
        machine, _, _ = self.kernel("a")
        machine.put(machine.symbols["modules"], words(0xFFFF900000000000, 0x10))
        found = modules(machine.kernel(tmp_path), EMPTY)
        assert (found.count, len(found.unread)) == (0, 2)


def test_per_cpu_areas_in_missing_memory(tmp_path: Path) -> None:
    machine = Machine(types())
    areas = [machine.on_its_own_page(bytes(2 * 4096)) for _ in range(3)]
    machine.place(words(*[area - areas[0] for area in areas], *[0] * 8), "__per_cpu_offset")
    machine.symbols |= {"__per_cpu_start": areas[0], "__per_cpu_end": areas[0] + 2 * 4096}
    kernel = machine.kernel(tmp_path)
    cpus = frozenset(range(3))
    assert per_cpu_areas(kernel, page_of(areas[1]), cpus) == {1}
    assert per_cpu_areas(kernel, page_of(areas[2] + 4096), cpus) == {2}
    assert per_cpu_areas(kernel, EMPTY, cpus) == frozenset()
