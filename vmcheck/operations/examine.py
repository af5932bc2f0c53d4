# SPDX-License-Identifier: LGPL-2.1-or-later
"""A dump's files -> its Report: the one road from bytes to verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from vmcheck.errors import VmcheckError
from vmcheck.formats import Dump, open_dump
from vmcheck.isolation import ChildDied, nothing, run_isolated
from vmcheck.topology import Topology, nothing_known

if TYPE_CHECKING:
    from vmcheck.check import Report
    from vmcheck.records.snapshot import Snapshot

T = TypeVar("T")

KERNEL_SECONDS = 120.0
"""The longest that reading a kernel may take. A 262,144-block topology takes under 2 s."""
KERNEL_ADDRESS_SPACE = 8 << 30
"""Bytes. drgn maps a vmlinux of 0.6 to 2 GB and keeps as much again; without one it needs 0.5 GB."""


def examine(
    paths: Sequence[str],
    symbols: str | None = None,
    progress: Callable[[str], None] | None = None,
    witness: tuple[str, Snapshot] | None = None,
    files: Sequence[str] = (),
    meanwhile: Callable[[], None] = nothing,
) -> Report:
    """Check one dump: its file, or the parts of one ``makedumpfile --split`` dump.

    ``symbols`` is a vmlinux with debuginfo or a small symbol file. ``progress`` is told
    what begins. ``witness`` is a recorded topology and what to call it. ``files`` are logs and
    sos reports, to be compared with the dump; those beside it are too. ``meanwhile`` is called
    while the kernel is asked. Raises VmcheckError where the headers or the symbols cannot be read.
    """
    tell = progress or (lambda step: None)
    tell("reading the dump's headers")
    with open_dump(paths) as dump:
        tell("asking the crashed kernel")
        topology = _ask_kernel(dump, symbols, meanwhile)
    from vmcheck.check import check
    from vmcheck.records.witnesses import testimony
    from vmcheck.rules import Case

    witnesses = []
    if witness is not None:
        from vmcheck.witness import hear

        name, snapshot = witness
        topology, compared = hear(dump.header, topology, snapshot, name)
        witnesses.append(compared)
    tell("applying the rules")
    case = Case(dump.header, topology)
    return check(case, [*witnesses, *testimony(case, paths[0], files)])


class KernelUnreadable(VmcheckError):
    """Reading the kernel's memory crashed, hung or wanted too much."""


def in_child(read: Callable[[], T], meanwhile: Callable[[], None] = nothing) -> T:
    """``read()``, which reads a kernel's memory, where its crash does no harm.

    ``meanwhile()`` is done here. Raises KernelUnreadable and what ``read`` raises of VmcheckError.
    """
    try:
        return run_isolated(read, KERNEL_SECONDS, KERNEL_ADDRESS_SPACE, meanwhile)
    except ChildDied as death:
        raise KernelUnreadable(f"reading the kernel's memory failed: {death}") from None
    except MemoryError:
        raise KernelUnreadable("reading the kernel's memory failed: it wanted too much memory") from None


def _ask_kernel(dump: Dump, symbols: str | None, meanwhile: Callable[[], None]) -> Topology:
    """The topology of the kernel in a dump's memory."""

    def read() -> Topology:
        from vmcheck.kernel import read_topology

        return read_topology(dump.header, dump.memory, symbols)

    def import_the_rest() -> None:
        # A third of a check is imports: these are done while another processor reads the kernel.
        import vmcheck.check
        import vmcheck.records.witnesses
        import vmcheck.rules

        vmcheck.rules.rules()
        meanwhile()

    try:
        return in_child(read, import_the_rest)
    except KernelUnreadable as error:
        return nothing_known(dump.header, str(error))
