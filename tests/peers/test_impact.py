# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the impact foretells of a fresh capture, beside what crash, drgn and the kernel's counters say."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import drgn
import pytest

from tests.peers.fresh import LOST, Captures, Fresh, debuginfo
from vmcheck.facts.diagnosis import Use
from vmcheck.facts.topology import Loss, LostPages, PageKind, known
from vmcheck.kernel.tasks import MAX_TASK_STRUCT

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lost(captures: Captures) -> Fresh:
    return captures[LOST]


def foretold(lost: Fresh, tool: str, command: str) -> Use:
    diagnosis = lost.report.diagnosis
    assert diagnosis is not None
    assert diagnosis.impact is not None
    (use,) = (each.use for each in diagnosis.impact.effects if (each.tool, each.command) == (tool, command))
    return use


def program(lost: Fresh) -> drgn.Program:
    prog = drgn.Program()
    prog.set_core_dump(str(lost.vmcore))
    prog.load_debug_info([str(debuginfo(lost))])
    return prog


def test_bt_in_crash_fails_where_it_is_said_to(lost: Fresh, tmp_path: Path) -> None:
    crash = shutil.which("crash")
    if crash is None:
        pytest.skip("no crash here")
    script = tmp_path / "commands"
    script.write_text("bt\nquit\n")
    command = [crash, "-s", "--no_scroll", "-i", str(script), str(debuginfo(lost)), str(lost.vmcore)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False).stdout
    frames = [line for line in said.splitlines() if line.lstrip().startswith("#")]
    use = foretold(lost, "crash", "bt")
    if use is Use.FAILS:
        # crash 8.0.2 says "read of stack at ... failed", or takes another task, or does not start.
        assert not any("sysrq_handle_crash" in frame for frame in frames)
    elif use is Use.SAFE:
        assert any("panic" in frame for frame in frames)


def test_the_trace_in_drgn_is_cut_where_it_is_said_to_be(lost: Fresh) -> None:
    prog = program(lost)
    use = foretold(lost, "drgn", "prog.crashed_thread().stack_trace()")
    if use is Use.FAILS:
        with pytest.raises((drgn.FaultError, LookupError)):
            prog.crashed_thread().stack_trace()
        return
    names = [frame.name for frame in prog.crashed_thread().stack_trace()]
    if use is Use.MISLEADS:
        assert "sysrq_handle_crash" not in names
    elif use is Use.SAFE:
        assert "sysrq_handle_crash" in names


def test_the_walk_over_tasks_in_drgn(lost: Fresh) -> None:
    from drgn.helpers.linux.pid import for_each_task

    prog = program(lost)
    use = foretold(lost, "drgn", "for_each_task(prog)")
    if use is Use.FAILS:
        with pytest.raises(drgn.FaultError):
            list(for_each_task(prog))
    tasks = known(lost.topology.tasks)
    if use is Use.PARTIAL:
        size = prog.type("struct task_struct").size
        unreadable = 0
        for task in for_each_task(prog):
            try:
                prog.read(task.value_(), min(size or 0, MAX_TASK_STRUCT))
            except drgn.FaultError:
                unreadable += 1
        assert unreadable == sum(task.task_struct_lost for task in tasks.tasks if task.pid != 0)
    elif use is Use.SAFE:
        walked = sorted(int(task.pid) for task in for_each_task(prog))
        assert walked == sorted(task.pid for task in tasks.tasks if task.pid)


def test_free_pages_are_those_that_the_zone_counts(lost: Fresh) -> None:
    """Where missing memory is all of a zone, NR_FREE_PAGES and the CPUs' lists count its free pages."""
    from drgn.helpers.linux.cpumask import for_each_online_cpu
    from drgn.helpers.linux.mmzone import for_each_online_pgdat
    from drgn.helpers.linux.percpu import per_cpu_ptr

    loss = lost.topology.loss
    assert isinstance(loss, Loss)
    assert isinstance(loss.pages, LostPages)
    if loss.pages.sampled:
        pytest.skip("the pages are a sample")
    prog = program(lost)
    page_size = lost.header.page_size
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
