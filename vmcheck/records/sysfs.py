# SPDX-License-Identifier: LGPL-2.1-or-later
"""What /proc and /sys say, of this machine or in a tree that was collected from another."""

from __future__ import annotations

import itertools
import os
import re
import stat
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

from vmcheck.exclusions import CRASH_KERNEL_REASON, LOW_MEMORY, LOW_MEMORY_REASON, Exclusion
from vmcheck.ranges import ADDRESS_LIMIT, RangeSet
from vmcheck.topology import Blocks, MemoryAccount, Resources, Topology, Unknown

LARGEST = 64 << 20
"""Bytes of one file. /proc/iomem of 262,144 memory blocks has 10 MB."""


def read_text(root: Path, *paths: str) -> str | None:
    """The first of ``paths`` that can be read; None where none can."""
    for path in paths:
        try:
            # A collected tree may be a stranger's: opening a FIFO there must not hang.
            descriptor = os.open(root / path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb", buffering=0) as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    continue
                # /proc/sys refuses to be asked for much at once.
                pieces = iter(lambda: file.read(1 << 16), b"")
                data = b"".join(itertools.islice(pieces, LARGEST >> 12))
                return data.decode("utf-8", "backslashreplace")
        except OSError:
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
    kernel_updates: frozenset[str]
    """``memory``, ``cpu``: of what the kernel says that user space need not reload for it."""


def crash_kernel(root: Path = Path("/")) -> CrashKernel:
    # Linux 7.0 moved the files to /sys/kernel/kexec and left links behind.
    loaded = _number(read_text(root, "sys/kernel/kexec_crash_loaded", "sys/kernel/kexec/crash_loaded"))
    updates = {
        kind
        for kind in ("memory", "cpu")
        if _number(read_text(root, f"sys/devices/system/{kind}/crash_hotplug")) == 1
    }
    return CrashKernel(
        reserved=_number(read_text(root, "sys/kernel/kexec_crash_size", "sys/kernel/kexec/crash_size")),
        loaded=None if loaded is None else bool(loaded),
        fadump=_number(read_text(root, "sys/kernel/fadump/enabled", "sys/kernel/fadump_enabled")) == 1,
        fadump_registered=_number(
            read_text(root, "sys/kernel/fadump/registered", "sys/kernel/fadump_registered")
        )
        == 1,
        fadump_made_after=_number(read_text(root, "sys/kernel/fadump/hotplug_ready")) == 1,
        kernel_updates=frozenset(updates),
    )


IOMEM_LINE = re.compile(r"\s*([0-9a-f]{1,16})-([0-9a-f]{1,16}) : (.*)")
MOST_BLOCKS = 1 << 20


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
        resources=_resources(iomem),
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
        crash_hotplug=any(
            read_text(root, f"sys/devices/system/{kind}/crash_hotplug") is not None
            for kind in ("memory", "cpu")
        ),
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


def _resources(iomem: str | None) -> Resources | Unknown:
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
        names = [each.name for each in folder.iterdir() if re.fullmatch(r"memory\d{1,15}", each.name)]
    except (OSError, ValueError):
        return Unknown("/sys/devices/system/memory is not there")
    if not size or not names:
        return Unknown("/sys/devices/system/memory has no memory blocks")
    places: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    unread = []
    for name in names[:MOST_BLOCKS]:
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
    if not re.fullmatch(r"\d{1,6}(-\d{1,6})?(,\d{1,6}(-\d{1,6})?)*", text):
        return Unknown(f"/{path} is not there" if not text else f"/{path} is {text[:40]!r}")
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _build_id(root: Path) -> str | Unknown:
    """From the kernel's own ELF notes: NT_GNU_BUILD_ID, type 3 of "GNU"."""
    try:
        notes = (root / "sys/kernel/notes").read_bytes()[:4096]
    except OSError:
        return Unknown("/sys/kernel/notes is not there")
    order = "<" if sys.byteorder == "little" else ">"
    if (place := notes.find(struct.pack(order + "I", 3) + b"GNU\0")) >= 4:
        (size,) = struct.unpack_from(order + "I", notes, place - 4)
        if 8 <= size <= 64:
            return notes[place + 8 : place + 8 + size].hex()
    return Unknown("/sys/kernel/notes has no build ID")
