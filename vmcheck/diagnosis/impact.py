# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a loss means to somebody who has the dump and has to find out why the machine crashed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from vmcheck.errors import plain
from vmcheck.facts.case import Case
from vmcheck.facts.diagnosis import Certainty, Effect, Impact, Use
from vmcheck.facts.findings import Finding
from vmcheck.facts.quantities import count, cpu_list, size
from vmcheck.facts.topology import Loss, LostPages, Modules, NotKnown, PageKind, Task, Tasks, Unknown

CERTAIN, LIKELY = Certainty.CERTAIN, Certainty.LIKELY

KERNEL_DATA = (PageKind.SLAB, PageKind.PAGE_TABLE, PageKind.KERNEL, PageKind.RESERVED)
"""Whose loss cuts the walks of a debugger; the rest is memory of processes, or nothing."""
USER_DATA = (PageKind.ANONYMOUS, PageKind.PAGE_CACHE, PageKind.HUGETLB)
USER_LEVELS = 2 | 4 | 8
"""makedumpfile -d: cache, private cache and user pages, none of which is then in the dump."""
TASKS_NAMED = 5

Found = Mapping[str, tuple[Finding, ...]]


def impact(case: Case, found: Found) -> Impact | None:
    """None where neither memory nor registers are lost."""
    loss, tasks = case.topology.loss, case.topology.tasks
    recoverable = _cpus(found.get("cpu-without-note", ()))
    silent = _cpus(found.get("cpu-never-saved", ()))
    if loss is None and not recoverable and not silent:
        return None
    facts = [
        *_crashed(case, tasks),
        *_other_tasks(tasks),
        *_memory(loss, case.header.page_size),
        *_registers(recoverable, silent, tasks),
        *_crashed_whole(case, tasks),
        *_unseen(tasks),
    ]
    effects = sorted(
        _effects(case, found, recoverable, silent), key=lambda effect: list(Use).index(effect.use)
    )
    return Impact(
        facts[0] if facts else "what was lost is not known",
        tuple(facts[1:]),
        tuple(effects),
        loss,
        tasks,
        recoverable,
        silent,
    )


def _cpus(findings: Sequence[Finding]) -> tuple[int, ...]:
    return tuple(sorted({cpu for finding in findings for cpu in finding.cpus}))


# Tasks


def _name(case: Case | None, task: Task) -> str:
    """``sh (PID 384)``. Where the task_struct is lost, the PID may be in the CPU's note."""
    pid, name = task.pid, task.name
    if case is not None and task.cpu is not None:
        pid = _noted_pid(case, task.cpu) if pid is None else pid
        name = name or _logged_name(case, task.cpu, pid)
    number = "PID not known" if pid is None else f"PID {pid}"
    return f"{plain(name)} ({number})" if name else f"a task ({number})"


def _logged_name(case: Case, cpu: int, pid: int | None) -> str:
    """From ``CPU: 0 PID: 384 Comm: sh Kdump: loaded``, which dump_stack() prints in the crashing task."""
    if not isinstance(case.topology.log, str) or pid is None:
        return ""
    found = re.findall(
        rf"CPU: {cpu} (?:UID: \d+ )?PID: {pid} Comm: (.{{1,15}}?) (?:Kdump:|Not tainted|Tainted:)",
        case.topology.log,
    )
    return found[-1] if found else ""


def _noted_pid(case: Case, cpu: int) -> int | None:
    """pr_pid of the CPU's NT_PRSTATUS: crash_save_cpu() puts the running task's PID there."""
    try:
        notes = case.notes
    except NotKnown:
        return None
    for note in case.header.cpu_notes:
        if notes.cpu_of.get(note.position) == cpu:
            return note.pid
    return None


def _crashed(case: Case, tasks: Tasks | Unknown) -> Iterator[str]:
    if isinstance(tasks, Unknown) or (task := tasks.crashed) is None:
        return
    who = f"{_name(case, task)} on CPU {task.cpu}"
    if task.task_struct_lost:
        yield f"the crashing task, {who}, is lost: its task_struct lies in missing memory"
    elif task.lost_stack_pages:
        part = "" if task.lost_stack_pages == task.stack_pages else "a part of "
        yield f"{part}the kernel stack of the crashing task, {who}, is lost"


def _crashed_whole(case: Case, tasks: Tasks | Unknown) -> Iterator[str]:
    if isinstance(tasks, Tasks) and (task := tasks.crashed) and task not in tasks.lost and task.stack_pages:
        who = f"{_name(case, task)} on CPU {task.cpu}"
        yield f"the crashing task, {who}, is in the dump with its kernel stack"


def _other_tasks(tasks: Tasks | Unknown) -> Iterator[str]:
    if isinstance(tasks, Unknown):
        return
    others = [task for task in tasks.lost if task is not tasks.crashed]
    if others:
        named = [_name(None, task) for task in others[:TASKS_NAMED]]
        more = f" and {len(others) - TASKS_NAMED} more" if len(others) > TASKS_NAMED else ""
        yield (
            f"{len(others)} more of {count(len(tasks.tasks), 'task')} lack task_struct or kernel stack: "
            + ", ".join(named)
            + more
        )


def _unseen(tasks: Tasks | Unknown) -> Iterator[str]:
    if isinstance(tasks, Unknown):
        yield plain(f"the tasks could not be read: {tasks.why}")
        return
    for line in tasks.unread[:3]:
        yield plain(f"not every task could be seen: {line}")


# Memory


def _memory(loss: Loss | Unknown | None, page_size: int) -> Iterator[str]:
    if isinstance(loss, Unknown):
        yield plain(f"it is not known what the missing memory held: {loss.why}")
    if not isinstance(loss, Loss):
        return
    yield from _pages(loss.pages, page_size)
    if isinstance(loss.per_cpu_areas, frozenset) and loss.per_cpu_areas:
        yield f"the per-CPU areas of CPU {cpu_list(loss.per_cpu_areas)} are lost: runqueues, current tasks"
    if isinstance(loss.modules, Modules):
        for module in loss.modules.lost[:TASKS_NAMED]:
            yield f"module {plain(module.name)} lacks {module.lost_pages} of its {module.pages} pages"
        if loss.modules.unread:
            yield plain(f"not every module could be seen: {loss.modules.unread[0]}")
    if not isinstance(loss.memmap, Unknown) and loss.memmap:
        yield f"the struct pages of {size(loss.memmap.size)} of memory that is in the dump are lost"


def _pages(pages: LostPages | Unknown, page_size: int) -> Iterator[str]:
    if isinstance(pages, Unknown):
        yield plain(f"it is not known what the missing pages were: {pages.why}")
        return
    if not pages.looked_at:
        yield "it is not known what the missing pages were: their struct pages are missing with them"
        return
    shares = [(pages.share(kind), kind) for kind in PageKind]
    shares_named = [
        f"{size(round(share * pages.pages) * page_size)} {kind.value}"
        for share, kind in sorted(shares, key=lambda each: -each[0])
        if share
    ]
    about = f", by a sample of {pages.looked_at:,} of {pages.pages:,} pages" if pages.sampled else ""
    yield f"of {size(pages.pages * page_size)} missing{about}: " + ", ".join(shares_named)
    if pages.unread:
        unread = size(pages.unread * page_size)
        yield f"the struct pages of {unread} are missing themselves, as with memmap_on_memory"


def kernel_data(pages: LostPages | Unknown) -> bool | None:
    """Whether kernel data is among the missing pages; None: not known."""
    if isinstance(pages, Unknown) or not pages.looked_at:
        return None
    if any(pages.share(kind) for kind in KERNEL_DATA):
        return True
    return None if pages.sampled or pages.unread else False


# Registers


def _registers(recoverable: Sequence[int], silent: Sequence[int], tasks: Tasks | Unknown) -> Iterator[str]:
    if recoverable:
        yield (
            f"the registers of CPU {cpu_list(recoverable)} are in no note, and can be recovered: "
            "they lie in crash_notes"
        )
    if silent:
        ran = ""
        if isinstance(tasks, Tasks):
            named = [_name(None, task) for task in tasks.tasks if task.cpu in silent]
            ran = f"; running there: {', '.join(named[:TASKS_NAMED])}" if named else ""
        yield f"the registers of CPU {cpu_list(silent)} are nowhere: they were never saved{ran}"


# What commands give


def _effects(case: Case, found: Found, recoverable: Sequence[int], silent: Sequence[int]) -> Iterator[Effect]:
    loss, tasks = case.topology.loss, case.topology.tasks
    yield from _stack_effects(tasks)
    yield from _task_effects(tasks)
    if isinstance(loss, Loss):
        yield from _memory_effects(loss, case.header.dump_level)
    yield from _register_effects(found, recoverable, silent)
    if isinstance(case.topology.log, str):
        yield Effect("log", "crash", Use.SAFE, CERTAIN, "the kernel log was read whole")
        yield Effect("get_dmesg(prog)", "drgn", Use.SAFE, CERTAIN, "the kernel log was read whole")


def _stack_effects(tasks: Tasks | Unknown) -> Iterator[Effect]:
    if isinstance(tasks, Unknown) or (task := tasks.crashed) is None:
        return
    trace = "prog.crashed_thread().stack_trace()"
    if task.task_struct_lost:
        why = "the crashing task's task_struct lies in missing memory"
        yield Effect("bt", "crash", Use.FAILS, CERTAIN, why)
        yield Effect(trace, "drgn", Use.FAILS, CERTAIN, why)
    elif task.lost_stack_pages:
        why = "the crashing task's kernel stack lies in missing memory"
        yield Effect("bt", "crash", Use.FAILS, CERTAIN, why)
        yield Effect(
            trace,
            "drgn",
            Use.MISLEADS,
            CERTAIN,
            "the trace is cut without an error: it ends after the frames that the registers tell",
        )
    elif task.stack_pages:
        why = "the crashing task and its kernel stack are in the dump"
        yield Effect("bt", "crash", Use.SAFE, LIKELY, why)
        yield Effect(trace, "drgn", Use.SAFE, LIKELY, why)


def _task_effects(tasks: Tasks | Unknown) -> Iterator[Effect]:
    if isinstance(tasks, Unknown):
        return
    walk = "for_each_task(prog)"
    structs = sum(task.task_struct_lost for task in tasks.tasks)
    stacks = [task for task in tasks.tasks if task.lost_stack_pages and task is not tasks.crashed]
    if tasks.pid_table_lost:
        lost = "a part of the PID table is missing"
        yield Effect("ps", "crash", Use.PARTIAL, CERTAIN, f"{lost}: those tasks are not listed")
        yield Effect(walk, "drgn", Use.FAILS, LIKELY, f"{lost}: the walk ends in a FaultError")
    elif structs:
        lost = f"{count(structs, 'task_struct')} missing"
        yield Effect("ps", "crash", Use.PARTIAL, CERTAIN, f"{lost}: those tasks are not listed")
        why = f"{lost}: the walk gives their addresses, and what is read there is a FaultError"
        yield Effect(walk, "drgn", Use.PARTIAL, CERTAIN, why)
    elif not tasks.unread:
        yield Effect(walk, "drgn", Use.SAFE, CERTAIN, "every task_struct is in the dump")
    if stacks:
        why = f"the kernel stacks of {count(len(stacks), 'task')} are missing"
        yield Effect("foreach bt", "crash", Use.PARTIAL, CERTAIN, why)


def _memory_effects(loss: Loss, dump_level: int | None) -> Iterator[Effect]:
    pages = loss.pages
    if isinstance(pages, LostPages) and pages.share(PageKind.SLAB):
        why = "slab pages are missing, and their free lists with them"
        yield Effect("kmem -s", "crash", Use.PARTIAL, CERTAIN, f"{why}: reports invalid freepointers")
        yield Effect("slab_cache_for_each_allocated_object()", "drgn", Use.FAILS, LIKELY, why)
    filtered_anyway = dump_level is not None and dump_level & USER_LEVELS == USER_LEVELS
    if isinstance(pages, LostPages) and any(pages.share(kind) for kind in USER_DATA) and not filtered_anyway:
        why = "pages of processes or of files are missing"
        yield Effect("rd -u, vtop", "crash", Use.PARTIAL, CERTAIN, why)
        yield Effect("access_process_vm()", "drgn", Use.PARTIAL, CERTAIN, why)
    if isinstance(pages, LostPages) and pages.looked_at and not pages.unread:
        why = "the struct pages of the missing memory are in the dump"
        yield Effect("kmem -p", "crash", Use.SAFE, LIKELY, why)
    elif isinstance(pages, LostPages) and pages.unread:
        yield Effect("kmem -p", "crash", Use.PARTIAL, CERTAIN, "struct pages are missing")
    if isinstance(loss.modules, Modules):
        if loss.modules.lost or loss.modules.unread:
            why = "memory of modules is missing"
            yield Effect("mod", "crash", Use.PARTIAL, CERTAIN, why)
            yield Effect("for_each_module(prog)", "drgn", Use.PARTIAL, LIKELY, why)
        elif loss.modules.count:
            yield Effect("mod", "crash", Use.SAFE, LIKELY, "no memory of a module is missing")
    if isinstance(loss.per_cpu_areas, frozenset) and loss.per_cpu_areas:
        why = f"the per-CPU areas of CPU {cpu_list(loss.per_cpu_areas)} are missing"
        yield Effect("runq", "crash", Use.FAILS, CERTAIN, why)
        yield Effect("per_cpu()", "drgn", Use.FAILS, CERTAIN, why)


def _register_effects(found: Found, recoverable: Sequence[int], silent: Sequence[int]) -> Iterator[Effect]:
    for finding in found.get("notes-shifted", ()):
        yield Effect(
            "help -r, bt -a",
            "crash",
            Use.MISLEADS,
            CERTAIN,
            "registers are shown for the wrong CPU: "
            + "; ".join(plain(line) for line in finding.evidence[:4]),
        )
    if recoverable and "notes-shifted" not in found:
        why = f"CPU {cpu_list(recoverable)} has no note: registers not collected"
        yield Effect("help -r", "crash", Use.PARTIAL, CERTAIN, why)
    if recoverable:
        yield Effect(
            f"prog.stack_trace(cpu_curr(prog, {recoverable[0]}))",
            "drgn",
            Use.SAFE,
            LIKELY,
            "drgn takes the registers from crash_notes, not from the dump's notes",
        )
    if silent:
        why = f"CPU {cpu_list(silent)} never saved its registers"
        yield Effect(f"bt -c {silent[0]}", "crash", Use.FAILS, LIKELY, why)
        yield Effect(f"prog.stack_trace(cpu_curr(prog, {silent[0]}))", "drgn", Use.FAILS, CERTAIN, why)
