# SPDX-License-Identifier: LGPL-2.1-or-later
"""A dump's files -> its Report: the one road from bytes to verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vmcheck.check import Report, check
from vmcheck.formats import Dump, open_dump
from vmcheck.isolation import ChildDied, run_isolated
from vmcheck.ranges import RangeSet
from vmcheck.rules import Case
from vmcheck.topology import Topology, nothing_known

KERNEL_SECONDS = 120.0
"""The longest that reading a kernel may take. A 262,144-block topology takes under 2 s."""
KERNEL_ADDRESS_SPACE = 16 << 30
"""Bytes. drgn maps a vmlinux of 0.6 to 2 GB several times over; without one it needs 0.2 GB."""


def examine(
    paths: Sequence[str], symbols: str | None = None, progress: Callable[[str], None] | None = None
) -> Report:
    """Check one dump: its file, or the parts of one ``makedumpfile --split`` dump.

    ``symbols`` is a vmlinux with debuginfo or a small symbol file. ``progress`` is told
    what begins. Raises VmcheckError where the headers or the symbols cannot be read.
    """
    tell = progress or (lambda step: None)
    tell("reading the dump's headers")
    with open_dump(paths) as dump:
        tell("asking the crashed kernel")
        topology, _ = ask_kernel(dump, symbols)
    tell("applying the rules")
    return check(Case(dump.header, topology))


def ask_kernel(dump: Dump, symbols: str | None = None) -> tuple[Topology, tuple[RangeSet, ...]]:
    """The topology of the kernel in a dump, and the extents of each of its files that were read for it."""

    def read() -> tuple[Topology, tuple[RangeSet, ...]]:
        from vmcheck.kernel import read_topology

        topology = read_topology(dump.header, dump.memory, symbols)
        return topology, tuple(file.extents for file in dump.files)

    try:
        return run_isolated(read, KERNEL_SECONDS, KERNEL_ADDRESS_SPACE)
    except ChildDied as death:
        why = f"reading the kernel's memory failed: {death}"
    except MemoryError:
        why = "reading the kernel's memory failed: it wanted more memory than it may have"
    return nothing_known(dump.header, why), tuple(file.extents for file in dump.files)
