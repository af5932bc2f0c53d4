# SPDX-License-Identifier: LGPL-2.1-or-later
"""What /proc and /sys say, of this machine or in a tree that was collected from another."""

from __future__ import annotations

import itertools
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from vmcheck.errors import UnreadableFile
from vmcheck.facts.exclusions import CRASH_KERNEL_REASON, LOW_MEMORY, LOW_MEMORY_REASON, Exclusion
from vmcheck.facts.quantities import parsed_cpu_list
from vmcheck.facts.ranges import ADDRESS_LIMIT, RangeSet
from vmcheck.facts.topology import Blocks, MemoryAccount, Resources, Topology, Unknown
from vmcheck.files import open_descriptor, open_input
from vmcheck.formats.notes import gnu_build_id

LARGEST = 64 << 20
"""Bytes of one file. /proc/iomem of 262,144 memory blocks has 10 MB."""


def read_text(root: Path, *paths: str) -> str | None:
    """The first of ``paths`` that can be read; None where none can."""
    for path in paths:
        try:
            descriptor = open_descriptor(root / path)
            with os.fdopen(descriptor, "rb", buffering=0) as file:
                # /proc/sys refuses to be asked for much at once.
                pieces = iter(lambda: file.read(1 << 16), b"")
                data = b"".join(itertools.islice(pieces, LARGEST >> 12))
                return data.decode("utf-8", "backslashreplace")
        except (OSError, UnreadableFile):
            continue
    return None


def _number(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


@dataclass(frozen=True)
class CrashKernel:
    """How this kernel is prepared to crash; no root is needed to know."""

    reserved: int | None
    """Bytes (crashkernel=). None: this kernel has no kexec, or /sys was not collected."""
    loaded: bool | None
    fadump: bool
    """POWER's firmware-assisted dump is enabled, and takes the place of kdump."""
    fadump_registered: bool
    fadump_made_after: bool
    """fadump's header is made after the crash, and cannot be stale."""
    hotplug: bool | Unknown
    """The kernel can update elfcorehdr itself (CONFIG_CRASH_HOTPLUG)."""


def crash_kernel(root: Path = Path("/")) -> CrashKernel:
    # Linux 7.0 moved the files to /sys/kernel/kexec and left links behind.
    loaded = _number(read_text(root, "sys/kernel/kexec_crash_loaded", "sys/kernel/kexec/crash_loaded"))
    return CrashKernel(
        reserved=_number(read_text(root, "sys/kernel/kexec_crash_size", "sys/kernel/kexec/crash_size")),
        loaded=None if loaded is None else bool(loaded),
        fadump=_number(read_text(root, "sys/kernel/fadump/enabled", "sys/kernel/fadump_enabled")) == 1,
        fadump_registered=_number(
            read_text(root, "sys/kernel/fadump/registered", "sys/kernel/fadump_registered")
        )
        == 1,
        fadump_made_after=_number(read_text(root, "sys/kernel/fadump/hotplug_ready")) == 1,
        hotplug=_crash_hotplug(root),
    )


def _crash_hotplug(root: Path) -> bool | Unknown:
    # Since Linux kernel commit 88a6f8994421 (in v6.6), with CONFIG_CRASH_HOTPLUG.
    files = [f"sys/devices/system/{kind}/crash_hotplug" for kind in ("memory", "cpu")]
    if any(read_text(root, file) is not None for file in files):
        return True
    if root == Path("/"):
        return False
    return Unknown("/sys/devices/system/*/crash_hotplug is not in the tree: absent, or not collected")


IOMEM_LINE = re.compile(r"\s*([0-9a-f]{1,16})-([0-9a-f]{1,16}) : (.*)")
MOST_BLOCKS = 1 << 20
LARGEST_BLOCK = 1 << 50
"""Bytes."""


def sysfs_topology(root: Path = Path("/")) -> Topology:
    """What /proc and /sys tell of a kernel's memory and CPUs. Nothing is raised for what they do not."""
    iomem = read_text(root, "proc/iomem")
    release = (read_text(root, "proc/sys/kernel/osrelease") or "").strip()
    boot_id = (read_text(root, "proc/sys/kernel/random/boot_id") or "").strip()
    kernel = crash_kernel(root)
    unseen = Unknown("/proc and /sys do not show it")
    return Topology(
        source="/proc and /sys" if root == Path("/") else f"/proc and /sys, collected in {root.name}",
        release=release or Unknown("/proc/sys/kernel/osrelease is not there"),
        build_id=_build_id(root),
        symbols_build_id=None,
        sections=unseen,
        resources=iomem_resources(iomem),
        blocks=_blocks(root),
        excluded=_excluded(iomem, read_text(root, "proc/cpuinfo") or ""),
        possible_cpus=_cpus(root, "possible"),
        present_cpus=_cpus(root, "present"),
        online_cpus=_cpus(root, "online"),
        saved_notes=unseen,
        crash_image=None if kernel.loaded is False else unseen,
        crash_reserved=kernel.reserved,
        log=unseen,
        page_offset=unseen,
        filtered_slab=unseen,
        banner=(read_text(root, "proc/version") or "").strip() or unseen,
        boot_id=boot_id or Unknown("/proc/sys/kernel/random/boot_id is not there"),
        crash_hotplug=kernel.hotplug,
        tasks=unseen,
    )


def _named(iomem: str | None) -> list[tuple[int, int, str]] | Unknown:
    """/proc/iomem's lines as (start, end, name), at any depth; its ends are the last byte's."""
    if iomem is None:
        return Unknown("/proc/iomem is not there")
    found = []
    for line in iomem.splitlines():
        if match := IOMEM_LINE.fullmatch(line):
            start, end = int(match[1], 16), int(match[2], 16) + 1
            if start < end <= ADDRESS_LIMIT:
                found.append((start, end, match[3]))
    # Without CAP_SYS_ADMIN every line is 00000000-00000000 (r_show() in kernel/resource.c).
    if found and all(end == 1 for _, end, _ in found):
        return Unknown("/proc/iomem has only zeros: it was read without root")
    return found or Unknown("/proc/iomem has no line that can be read")


def iomem_resources(iomem: str | None) -> Resources | Unknown:
    """System RAM of /proc/iomem's text."""
    lines = _named(iomem)
    if isinstance(lines, Unknown):
        return lines
    ram = [(start, end) for start, end, name in lines if re.fullmatch(r"System RAM( \(.*\))?", name)]
    driver = [(start, end) for start, end, name in lines if name.startswith("System RAM (")]
    return Resources(MemoryAccount("/proc/iomem", RangeSet(ram)), RangeSet(driver))


def _excluded(iomem: str | None, cpuinfo: str) -> tuple[Exclusion, ...] | Unknown:
    lines = _named(iomem)
    if isinstance(lines, Unknown):
        return lines
    found = [Exclusion(LOW_MEMORY_REASON, LOW_MEMORY)] if re.search(r"^flags\s*:", cpuinfo, re.M) else []
    for name, reason in (("Crash kernel", CRASH_KERNEL_REASON), ("GART", "GART aperture")):
        if ranges := RangeSet((start, end) for start, end, each in lines if each == name):
            found.append(Exclusion(reason, ranges))
    return tuple(found)


def _blocks(root: Path) -> Blocks | Unknown:
    folder = root / "sys/devices/system/memory"
    try:
        size = int((read_text(root, "sys/devices/system/memory/block_size_bytes") or "").strip(), 16)
        with os.scandir(folder) as entries:
            found = itertools.islice(entries, MOST_BLOCKS)
            names = [each.name for each in found if re.fullmatch(r"memory\d{1,15}", each.name)]
    except (OSError, ValueError):
        return Unknown("/sys/devices/system/memory is not there")
    if not names:
        return Unknown("/sys/devices/system/memory has no memory blocks")
    if not 0 < size <= LARGEST_BLOCK:
        return Unknown(f"/sys/devices/system/memory/block_size_bytes is {size:#x}, which no machine has")
    places: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    unread = []
    for name in names:
        state = read_text(root, f"sys/devices/system/memory/{name}/state")
        start = int(name.removeprefix("memory")) * size
        if state is None:
            unread.append(f"{name}/state is not there")
        elif start + size <= ADDRESS_LIMIT:
            places[state.strip() == "online"].append((start, start + size))
    account = MemoryAccount("memory blocks", RangeSet(places[True]), tuple(unread[:8]))
    return Blocks(size, account, RangeSet(places[False]))


def _cpus(root: Path, mask: str) -> frozenset[int] | Unknown:
    """A mask as the kernel prints it: ``0-1,3``."""
    path = f"sys/devices/system/cpu/{mask}"
    text = (read_text(root, path) or "").strip()
    cpus = parsed_cpu_list(text)
    if cpus is None:
        return Unknown(f"/{path} is not there" if not text else f"/{path} is {text[:40]!r}")
    return cpus


def _build_id(root: Path) -> str | Unknown:
    """From the kernel's own ELF notes: NT_GNU_BUILD_ID, type 3 of "GNU"."""
    try:
        with open_input(root / "sys/kernel/notes") as file:
            notes = file.read(4096)
    except (OSError, UnreadableFile):
        return Unknown("/sys/kernel/notes is not there")
    return gnu_build_id(notes, sys.byteorder) or Unknown("/sys/kernel/notes has no build ID")
