# SPDX-License-Identifier: LGPL-2.1-or-later
"""Causes -> steps: so that the next dump is whole, and what can still be done with this one."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from vmcheck.diagnosis.causes import Found
from vmcheck.diagnosis.distributions import POLICIES, UNKNOWN, distribution
from vmcheck.facts.case import Case
from vmcheck.facts.diagnosis import Cause, Conclusion, Step
from vmcheck.facts.quantities import cpu_list
from vmcheck.facts.topology import CrashImage, Tasks, Topology, Unknown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Remedy:
    """A step of remedies.toml. Every condition that it has must hold."""

    causes: tuple[Cause, ...]
    """One of them was found."""
    text: str
    commands: tuple[str, ...] = ()
    distributions: tuple[str, ...] = ()
    """The kernel is one of theirs; ``unknown`` is one too. Empty: of any."""
    kernel_updates: bool | None = None
    """Whether this kernel can update elfcorehdr itself (CONFIG_CRASH_HOTPLUG)."""
    machine_can_update: bool | None = None
    """Whether any release of the kernel can, on this machine."""


def remedy(row: Mapping[str, Any]) -> Remedy:
    """A row of remedies.toml. An unknown name is a ValueError, an unknown key a TypeError."""
    if wrong := set(row.get("distributions", ())) - POLICIES:
        raise ValueError(f"no distribution is named {sorted(wrong)[0]!r}; possible: {sorted(POLICIES)}")
    lists = {key: tuple(value) for key, value in row.items() if isinstance(value, list)}
    return Remedy(**{**row, **lists, "causes": tuple(map(Cause, row["causes"]))})


@lru_cache(maxsize=1)
def remedies() -> tuple[Remedy, ...]:
    """remedies.toml, in its order."""
    content = Path(__file__).with_name("remedies.toml").read_text("utf-8")
    return tuple(map(remedy, tomllib.loads(content)["remedy"]))


def next_dump(case: Case, causes: Sequence[Conclusion]) -> Iterator[Step]:
    """What to do so that the next dump is whole, in the order to do it."""
    names = {cause.name for cause in causes}
    its = distribution(case)
    updates = _kernel_updates(case.topology)
    can_update = case.header.arch.kernel_updates_since is not None
    for each in remedies():
        if (
            names.intersection(each.causes)
            and (not each.distributions or (its.policy if its else UNKNOWN) in each.distributions)
            and each.kernel_updates in (None, updates)
            and each.machine_can_update in (None, can_update)
        ):
            yield Step(each.text, each.commands)


def _kernel_updates(topology: Topology) -> bool | None:
    """Whether the kernel has CONFIG_CRASH_HOTPLUG; None: not known."""
    image = topology.crash_image
    if isinstance(image, CrashImage):
        return image.hotplug_support is not None
    return None if isinstance(topology.crash_hotplug, Unknown) else topology.crash_hotplug


def this_dump(case: Case, found: Found) -> Iterator[Step]:
    """What can still be done with this dump."""
    log = case.topology.log
    if {"undescribed-ram", "undescribed-boot-ram", "truncated-file", "incomplete-flag"} & set(found):
        tasks = case.topology.tasks
        lost = isinstance(tasks, Tasks) and tasks.crashed in tasks.lost
        if lost and isinstance(log, str) and "Call Trace:" in log:
            yield Step(
                "the kernel log has the call trace of the crash, which the dump's stacks no longer give",
                ("crash> log", "drgn: print(get_dmesg(prog).decode())"),
            )
    if "cpu-without-note" in found:
        cpus = [cpu for finding in found["cpu-without-note"] for cpu in finding.cpus]
        yield Step(
            f"the registers of CPU {cpu_list(cpus)} are in the dump's memory: drgn takes them from there",
            (f"drgn: prog.stack_trace(cpu_curr(prog, {cpus[0]}))",),
        )
    if "undescribed-ram" in found or "undescribed-boot-ram" in found:
        yield Step(
            "the missing memory was never read and cannot be had back from this file; a snapshot of the "
            "virtual machine, or another dump of the same crash, would be the only source"
        )
    if "described-without-ram" in found:
        yield Step("ignore what a tool reads from the ranges that were removed")
    if "truncated-file" in found:
        yield Step("compare the file's size with the original's before anything else, and copy it again")
