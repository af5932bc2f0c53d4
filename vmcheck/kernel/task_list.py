# SPDX-License-Identifier: LGPL-2.1-or-later
"""Names and PIDs of processes, where struct task_struct is not known.

init_task's comm is "swapper" or "swapper/0". ``tasks`` is a list head before it: the one whose
neighbours, taken back by the same offset, have a printable comm all the way round. The PID is where
the first two tasks have 1 and 2 and no two tasks have the same. The list is walked from both ends,
for a task in missing memory cuts it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from drgn import FaultError

from vmcheck.facts.topology import Task, Tasks
from vmcheck.kernel.program import Kernel

MAX_TASK_STRUCT = 12 << 10
"""Bytes of task_struct that comm is looked for in; x86_64 with all debugging has it below 8 KiB."""
TASK_COMM_LEN = 16
MAX_TASKS = 1 << 13
"""Of each end of the list."""


class _Found(NamedTuple):
    address: int
    comm: str


class _Cut(NamedTuple):
    """Tasks from the list's begin, from its end, and where it could not be followed."""

    first: list[_Found]
    last: list[_Found]
    unread: tuple[str, ...]


def read_task_list(kernel: Kernel) -> Tasks:
    """Thread group leaders. Raises LookupError where no list has the shape, FaultError without init_task."""
    init = None if kernel.symbols is None else kernel.symbols.address("init_task")
    if init is None:
        raise LookupError("kallsyms has no init_task")
    data = kernel.read(init, MAX_TASK_STRUCT)
    match = re.search(rb"swapper(/0)?\0", data)
    if match is None:
        raise LookupError("init_task has no comm")
    comm, word = match.start(), kernel.header.bits // 8
    words = np.frombuffer(data[: comm // word * word], _order(kernel) + f"u{word}").tolist()
    lists = [
        cut
        for place in range(len(words) - 1)
        if (cut := _list(kernel, init, place * word, words[place], words[place + 1], comm)) is not None
    ]
    if not lists:
        raise LookupError("init_task has no list of tasks of a known shape")
    cut = max(lists, key=lambda each: len(each.first) + len(each.last))
    found = [*cut.first, *cut.last]
    pid = _pid_offset(kernel, found, comm)
    tasks = tuple(
        Task(number, each.comm) for each, number in zip(found, _pids(kernel, found, pid), strict=True)
    )
    unread = cut.unread if pid is not None else (*cut.unread, "where task_struct has the PID is not known")
    return Tasks(tuple(sorted(tasks, key=lambda task: (task.pid is None, task.pid or 0))), None, unread)


def _order(kernel: Kernel) -> str:
    return "<" if kernel.header.byteorder == "little" else ">"


def _list(kernel: Kernel, init: int, offset: int, after: int, before: int, comm: int) -> _Cut | None:
    """The list whose head is at ``offset`` of init_task, if it is one of tasks."""
    word, head = kernel.header.bits // 8, init + offset
    half = 1 << (kernel.header.bits - 1)
    if after in (0, head) or after < half or before < half or after % word or before % word:
        return None
    first, broken = _walk(kernel, head, after, head, offset, comm, forwards=True)
    if first is None:
        return None
    if broken is None:
        return _Cut(first, [], ())
    last, again = _walk(kernel, head, before, head, offset, comm, forwards=False)
    if last is None or (not first and not last):
        return None
    return _Cut(first, last[::-1], tuple(filter(None, (broken, again))))


def _walk(
    kernel: Kernel, head: int, node: int, previous: int, offset: int, comm: int, forwards: bool
) -> tuple[list[_Found] | None, str | None]:
    """Tasks up to where the list cannot be read, and why; no tasks where it is no list of them."""
    word = kernel.header.bits // 8
    found: list[_Found] = []
    seen: set[int] = set()
    while node != head:
        if node in seen:
            return None, None
        if len(found) == MAX_TASKS:
            return found, f"more than {MAX_TASKS} tasks were not looked at"
        seen.add(node)
        try:
            links = [int(value) for value in kernel.words(node, 2)]
            text = _comm(kernel.read(node - offset + comm, TASK_COMM_LEN))
        except FaultError as error:
            return found, f"the task at {node - offset:#x}: {error}"
        forward, back = links if forwards else links[::-1]
        if back != previous or text is None or node % word:
            return None, None
        found.append(_Found(node - offset, text))
        node, previous = forward, node
    return found, None


def _comm(data: bytes) -> str | None:
    match = re.match(rb"([\x20-\x7e]{1,15})\0", data)
    return match[1].decode() if match else None


def _pid_offset(kernel: Kernel, found: list[_Found], comm: int) -> int | None:
    """Where the tasks have their PID: 1 and 2 in the first two, and different in all."""
    rows = list(_rows(kernel, found, comm // 4 * 4))
    if len(rows) < 3:
        return None
    table = np.frombuffer(b"".join(rows), _order(kernel) + "u4").reshape(len(rows), -1)
    ordered = np.sort(table, axis=0)
    different = (np.diff(ordered.astype(np.int64), axis=0) > 0).all(axis=0)
    places = np.flatnonzero((table[0] == 1) & (table[1] == 2) & different & (ordered[-1] < 1 << 22))
    # tgid follows pid, and leaders have the same in both.
    return 4 * int(places[0]) if len(places) else None


def _rows(kernel: Kernel, found: list[_Found], size: int) -> Iterator[bytes]:
    for each in found[:256]:
        try:
            yield kernel.read(each.address, size)
        except FaultError:
            continue


def _pids(kernel: Kernel, found: list[_Found], offset: int | None) -> Iterator[int | None]:
    for each in found:
        try:
            yield (
                None
                if offset is None
                else int.from_bytes(kernel.read(each.address + offset, 4), kernel.header.byteorder)
            )
        except FaultError:
            yield None
