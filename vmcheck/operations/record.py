# SPDX-License-Identifier: LGPL-2.1-or-later
"""This kernel, or a collected tree -> a Snapshot: drgn's where it may look, else /proc and /sys."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from vmcheck.errors import UnreadableFile, VmcheckError
from vmcheck.facts.topology import CrashImage, Topology, Unknown
from vmcheck.formats import elfcorehdr
from vmcheck.operations.examine import in_child
from vmcheck.operations.preflight import CannotLook, opened
from vmcheck.records.snapshot import Snapshot
from vmcheck.records.sysfs import crash_kernel, read_text, sysfs_topology


def record(root: str | None = None) -> Snapshot:
    """What the running kernel has now, or had when the tree at ``root`` was collected.

    Raises VmcheckError where a tree shows neither memory nor CPUs.
    """
    if root is not None:
        return _collected(Path(root))
    try:
        snapshot = in_child(_read)
    except CannotLook as closed:
        topology = sysfs_topology()
        snapshot = Snapshot(0, "", None, replace(topology, remarks=(*topology.remarks, str(closed))), None)
    reserved = crash_kernel().reserved
    return replace(
        snapshot,
        recorded=int(time.time()),
        node=os.uname().nodename,
        topology=replace(snapshot.topology, crash_reserved=reserved),
    )


def _read() -> Snapshot:
    from vmcheck.operations.examine import read_kernel

    with opened(None) as (kernel, memory):
        topology = read_kernel(kernel, memory, log=False)
        vmcoreinfo = kernel.vmcoreinfo_notes[0].decode("utf-8", "backslashreplace")
        described = None
        if isinstance(topology.crash_image, CrashImage):
            try:
                described = elfcorehdr.read(memory, topology.crash_image.segments).described
            except UnreadableFile:
                described = None
        # sysctl_bootid is left out with the log, and is plainer to read here.
        boot_id = (read_text(Path("/"), "proc/sys/kernel/random/boot_id") or "").strip()
        if boot_id:
            topology = replace(topology, boot_id=boot_id)
        return Snapshot(0, "", vmcoreinfo, topology, described)


def _collected(root: Path) -> Snapshot:
    topology = sysfs_topology(root)
    facts: tuple[object, ...] = (topology.resources, topology.blocks, topology.online_cpus)
    if all(isinstance(fact, Unknown) for fact in facts):
        raise VmcheckError(f"{root}: neither proc/iomem nor sys/devices/system is there: {_first(topology)}")
    collected = max((_modified(root / name) for name in ("", "proc/iomem")), default=0)
    node = (read_text(root, "proc/sys/kernel/hostname", "etc/hostname", "hostname") or "").strip()
    return Snapshot(max(0, collected), node, None, topology, None)


def _modified(path: Path) -> int:
    """Seconds since the epoch; 0 where it is not there."""
    try:
        return int(path.stat().st_mtime)
    except OSError:
        return 0


def _first(topology: Topology) -> str:
    return topology.resources.why if isinstance(topology.resources, Unknown) else ""
