# SPDX-License-Identifier: LGPL-2.1-or-later
"""The threads of a kernel whose own structures may be missing.

``init_task.tasks`` is one long chain, and a task_struct in missing memory cuts it. The PID
table is a tree: what is missing there costs one branch, and ``struct pid`` still tells the
PID of a thread whose task_struct is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from drgn import FaultError, Object, Type, offsetof, sizeof

from vmcheck.facts.ranges import RangeSet
from vmcheck.facts.topology import Task, Tasks
from vmcheck.kernel.program import Kernel

MAX_TASKS = 8192
"""Threads looked at, a second or two: a quarter of them the oldest, the rest the youngest."""
MAX_RADIX_TREE_NODES = 1 << 16
MAX_PIDS = 1 << 18
MAX_CPUS = 1 << 13
XA_CHUNK_SIZE = 64
MAX_TASK_STRUCT = 1 << 16
"""Bytes. Debian's have 6 to 10 KiB."""


@dataclass(frozen=True)
class _Layout:
    """Offsets in bytes, and where a struct lies in memory."""

    task: int
    """sizeof(struct task_struct)."""
    stack: int
    pid: int
    comm: int
    pid_links: int
    pid_tasks: int
    """In struct pid: its threads, the thread of that very PID first (PIDTYPE_PID is 0)."""

    @classmethod
    def of(cls, task: Type, pid: Type) -> _Layout:
        offset = {name: offsetof(task, name) for name in ("stack", "pid", "comm", "pid_links")}
        return cls(task=min(sizeof(task), MAX_TASK_STRUCT), pid_tasks=offsetof(pid, "tasks"), **offset)


def read_tasks(kernel: Kernel, missing: RangeSet, cpus: Iterable[int]) -> Tasks:
    """Every thread, and which of them have something in ``missing`` memory.

    Raises LookupError without types, FaultError where the PID table itself is lost.
    """
    prog = kernel.prog
    layout = _Layout.of(prog.type("struct task_struct"), prog.type("struct pid"))
    memory = _Memory(kernel, missing)
    unread: list[str] = []
    running = dict(_running(kernel, cpus, unread))
    holes: list[str] = []
    pids = _pids(memory, prog["init_pid_ns"].idr.idr_rt.xa_head, holes)
    addresses = _tasks_of_pids(memory, layout, pids, holes, unread)
    # Idle tasks are in no PID table, and a lost part of the table hides others.
    found: dict[int, int | None] = dict.fromkeys(running)
    found |= addresses
    tasks = [_task(memory, layout, address, pid, running.get(address)) for address, pid in found.items()]
    tasks.sort(key=lambda task: (task.pid is None, task.pid or 0, task.cpu or 0))
    return Tasks(tuple(tasks), _panic_cpu(kernel), (*unread, *holes), pid_table_lost=bool(holes))


class _Missing(Exception):
    """Memory that is not in the dump because no header describes it."""


class _Memory:
    """Virtual memory read page by page, and never where it is known to be missing."""

    def __init__(self, kernel: Kernel, missing: RangeSet) -> None:
        self.kernel = kernel
        self._missing = missing
        self._verdicts: dict[int, bool] = {}

    def _page(self, address: int) -> tuple[int, bool]:
        """Its physical address and whether that is missing. Raises FaultError without a mapping."""
        physical = self.kernel.physical(address)
        page = physical - physical % self.kernel.header.page_size
        if page not in self._verdicts:
            self._verdicts[page] = page in self._missing
        return physical, self._verdicts[page]

    def pages(self, address: int, size: int) -> Iterator[bool]:
        """Of each page that ``size`` bytes touch, whether it is missing. Nothing of them is read."""
        page_size = self.kernel.header.page_size
        for page in range(address - address % page_size, address + size, page_size):
            yield self._page(page)[1]

    def read(self, address: int, size: int) -> bytes:
        """Raises _Missing, or FaultError for what else cannot be read."""
        data = b""
        while size:
            physical, missing = self._page(address)
            if missing:
                raise _Missing("it lies in missing memory")
            length = min(size, -address % self.kernel.header.page_size or self.kernel.header.page_size)
            data += self.kernel.prog.read(physical, length, True)
            address, size = address + length, size - length
        return data

    def words(self, address: int, count: int) -> list[int]:
        width, order = self.kernel.header.bits // 8, "<" if self.kernel.header.byteorder == "little" else ">"
        return [int(word) for word in np.frombuffer(self.read(address, count * width), f"{order}u{width}")]


def _tasks_of_pids(
    memory: _Memory, layout: _Layout, walk: Iterator[tuple[int, int]], holes: list[str], unread: list[str]
) -> dict[int, int]:
    """PID by the address of its task_struct. A struct pid that cannot be read is one of the ``holes``."""
    pids = sorted(islice(walk, MAX_PIDS))
    if len(pids) > MAX_TASKS:
        unread.append(f"{len(pids) - MAX_TASKS} of {len(pids)} PIDs were not looked at")
        pids = pids[: MAX_TASKS // 4] + pids[-MAX_TASKS // 4 * 3 :]
    found, lost = {}, []
    for number, address in pids:
        try:
            if link := memory.words(address + layout.pid_tasks, 1)[0]:
                found[link - layout.pid_links] = number
        except _Missing:
            lost.append(number)
        except FaultError as error:
            holes.append(f"struct pid of PID {number}: {error}")
    if lost:
        few = ", ".join(map(str, lost[:8])) + (", ..." if len(lost) > 8 else "")
        holes.append(f"the struct pid of {len(lost)} PIDs lies in missing memory: {few}")
    return found


def _pids(memory: _Memory, head: Object, holes: list[str]) -> Iterator[tuple[int, int]]:
    """(PID, address of its struct pid) from the radix tree that ``head`` is the root of."""
    node_type = head.prog_.type("struct xa_node")
    shift, slots = offsetof(node_type, "shift"), offsetof(node_type, "slots")
    lengths = [member.type.length or 0 for member in node_type.members or () if member.name == "slots"]
    fanout = min(lengths[0], XA_CHUNK_SIZE)
    pending, seen = [(int(head), 0, 0)], set[int]()
    while pending:
        entry, first, last = pending.pop()
        # include/linux/xarray.h: xa_is_node() has 2 in its low bits and is no small number.
        if entry & 3 == 0 and entry:
            yield first, entry
        if entry & 3 != 2 or entry <= 4096 or entry in seen or len(seen) >= MAX_RADIX_TREE_NODES:
            continue
        seen.add(entry)
        try:
            bits = memory.read(entry - 2 + shift, 1)[0]
            words = memory.words(entry - 2 + slots, fanout)
        except (FaultError, _Missing) as error:
            which = f"PIDs {first} to {last}" if last else "all PIDs"
            holes.append(f"{which}: a node of the PID table cannot be read: {error}")
            continue
        if bits < 32:
            firsts = (first + (slot << bits) for slot in range(fanout))
            pending += [
                (word, child, child + (1 << bits) - 1)
                for word, child in zip(words, firsts, strict=True)
                if word
            ]


def _running(kernel: Kernel, cpus: Iterable[int], unread: list[str]) -> Iterator[tuple[int, int]]:
    """(task_struct, CPU) of what each CPU's runqueue says is running."""
    runqueues = kernel.prog["runqueues"].address_
    offsets = kernel.prog["__per_cpu_offset"]
    curr = offsetof(kernel.prog.type("struct rq"), "curr")
    assert runqueues is not None
    for cpu in sorted(cpus)[:MAX_CPUS]:
        try:
            address = (runqueues + int(offsets[cpu]) + curr) % (1 << kernel.header.bits)
            yield int(kernel.words(address, 1)[0]), cpu
        except FaultError as error:
            unread.append(f"the runqueue of CPU {cpu}: {error}")


def _task(memory: _Memory, layout: _Layout, address: int, pid: int | None, cpu: int | None) -> Task:
    """One thread, as far as it can be read."""
    name, pages = "", list[bool]()
    try:
        if any(memory.pages(address, layout.task)):
            return Task(pid, "", cpu, task_struct_lost=True)
        if pid is None:
            order = "little" if memory.kernel.header.byteorder == "little" else "big"
            pid = int.from_bytes(memory.read(address + layout.pid, 4), order)  # type: ignore[arg-type]
        name = memory.read(address + layout.comm, 16).split(b"\0")[0].decode("utf-8", "backslashreplace")
        stack = memory.words(address + layout.stack, 1)[0]
        header = memory.kernel.header
        size = header.arch.stack_size(header.page_size)
        pages = list(memory.pages(stack, size)) if stack and size else []
    except FaultError:
        pass
    return Task(pid, name, cpu, stack_pages=len(pages), lost_stack_pages=sum(pages))


def _panic_cpu(kernel: Kernel) -> int | None:
    try:
        cpu = int(kernel.prog["panic_cpu"].counter)
    except (LookupError, FaultError):
        return None
    # include/linux/kernel.h: PANIC_CPU_INVALID is -1.
    return cpu if cpu >= 0 else None
