# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the impact foretells, beside what crash and drgn do with the same dump, and the kernel's counters.

Real dumps are looked for below VMCHECK_DUMPS, their vmlinux as ``vmlinux-RELEASE`` below
VMCHECK_VMLINUX, which is /usr/lib/debug by default. A distilled dump has not what crash needs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import drgn
import pytest

from vmcheck.check import Report
from vmcheck.diagnosis import Impact, Use
from vmcheck.examine import examine
from vmcheck.topology import Loss, LostPages, PageKind, Tasks


@cache
def examined(path: Path) -> Report:
    return examine([str(path)])


def stale_dumps() -> list[Path]:
    folder = os.environ.get("VMCHECK_DUMPS")
    found = sorted(Path(folder).rglob("vmcore")) if folder else []
    return [path for path in found if isinstance(examined(path).topology.loss, Loss)]


def vmlinux(path: Path) -> Path:
    release = examined(path).topology.release
    folder = Path(os.environ.get("VMCHECK_VMLINUX", "/usr/lib/debug"))
    found = next(folder.rglob(f"vmlinux-{release}"), None) if folder.exists() else None
    if found is None:
        pytest.skip(f"no vmlinux-{release} below VMCHECK_VMLINUX ({folder})")
    return found


none = pytest.param(None, marks=pytest.mark.skip(reason="no vmcore that lacks memory below VMCHECK_DUMPS"))
stale = pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=f"{path.parent.parent.name}/{path.parent.name}") for path in stale_dumps()]
    or [none],
)


def impact(path: Path) -> Impact:
    told = examined(path).diagnosis
    assert told is not None
    assert told.impact is not None
    return told.impact


def foretold(path: Path, tool: str, command: str) -> Use | None:
    return next(
        (each.use for each in impact(path).effects if (each.tool, each.command) == (tool, command)), None
    )


def program(path: Path) -> drgn.Program:
    prog = drgn.Program()
    prog.set_core_dump(str(path))
    prog.load_debug_info([str(vmlinux(path))])
    return prog


@stale
def test_bt_in_crash_fails_where_it_is_said_to(path: Path, tmp_path: Path) -> None:
    crash = shutil.which("crash")
    if crash is None:
        pytest.skip("no crash here")
    script = tmp_path / "commands"
    script.write_text("bt\nquit\n")
    command = [crash, "-s", "--no_scroll", "-i", str(script), str(vmlinux(path)), str(path)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False).stdout
    frames = [line for line in said.splitlines() if line.lstrip().startswith("#")]
    use = foretold(path, "crash", "bt")
    if use is Use.FAILS:
        # crash 8.0.2 says "read of stack at ... failed", or takes another task, or does not start.
        assert not any("sysrq_handle_crash" in frame for frame in frames)
    elif use is Use.SAFE:
        assert any("panic" in frame for frame in frames)


@stale
def test_the_trace_in_drgn_is_cut_where_it_is_said_to_be(path: Path) -> None:
    prog = program(path)
    use = foretold(path, "drgn", "prog.crashed_thread().stack_trace()")
    if use is Use.FAILS:
        with pytest.raises((drgn.FaultError, LookupError)):
            prog.crashed_thread().stack_trace()
        return
    names = [frame.name for frame in prog.crashed_thread().stack_trace()]
    if use is Use.MISLEADS:
        assert "sysrq_handle_crash" not in names
    elif use is Use.SAFE:
        assert "sysrq_handle_crash" in names


@stale
def test_the_walk_over_tasks_in_drgn(path: Path) -> None:
    from drgn.helpers.linux.pid import for_each_task

    prog = program(path)
    use = foretold(path, "drgn", "for_each_task(prog)")
    if use is Use.FAILS:
        with pytest.raises(drgn.FaultError):
            list(for_each_task(prog))
    elif use is Use.SAFE:
        tasks = examined(path).topology.tasks
        assert isinstance(tasks, Tasks)
        walked = sorted(int(task.pid) for task in for_each_task(prog))
        assert walked == sorted(task.pid for task in tasks.tasks if task.pid)


@stale
def test_free_pages_are_those_that_the_zone_counts(path: Path) -> None:
    """Where missing memory is all of a zone, NR_FREE_PAGES and the CPUs' lists count its free pages."""
    from drgn.helpers.linux.cpumask import for_each_online_cpu
    from drgn.helpers.linux.mmzone import for_each_online_pgdat
    from drgn.helpers.linux.percpu import per_cpu_ptr

    loss = examined(path).topology.loss
    assert isinstance(loss, Loss)
    assert isinstance(loss.pages, LostPages)
    if loss.pages.sampled:
        pytest.skip("the pages are a sample")
    prog = program(path)
    page_size = examined(path).header.page_size
    spans = [(start // page_size, (end - start) // page_size) for start, end in loss.memory]
    for node in for_each_online_pgdat(prog):
        for zone in node.node_zones:
            if (int(zone.zone_start_pfn), int(zone.present_pages)) not in spans:
                continue
            free = prog.constant("NR_FREE_PAGES")
            counted = int(zone.vm_stat[free].counter)
            for cpu in for_each_online_cpu(prog):
                counted += int(per_cpu_ptr(zone.per_cpu_pageset, cpu).count)
                counted += int(per_cpu_ptr(zone.per_cpu_zonestats, cpu).vm_stat_diff[free])
            name = zone.name.string_().decode()
            told = sum(
                each.pages
                for each in loss.pages.counts
                if (each.node, each.zone, each.kind) == (int(node.node_id), name, PageKind.FREE)
            )
            # A page or two were on their way when the CPUs stopped.
            assert abs(told - counted) <= 4
            return
    pytest.skip("no zone has just the missing memory")
