# SPDX-License-Identifier: LGPL-2.1-or-later
"""What /proc and /sys say, of this machine or in a tree that was collected from another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LARGEST = 64 << 20
"""Bytes of one file. /proc/iomem of 262,144 memory blocks has 10 MB."""


def read_text(root: Path, *paths: str) -> str | None:
    """The first of ``paths`` that can be read; None where none can."""
    for path in paths:
        try:
            with (root / path).open("rb") as file:
                return file.read(LARGEST).decode("utf-8", "backslashreplace")
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
