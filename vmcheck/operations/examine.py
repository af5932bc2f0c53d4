# SPDX-License-Identifier: LGPL-2.1-or-later
"""A dump's files -> its Report: the one way from bytes to verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from vmcheck.budget import DEFAULT, Budget, data_size, within
from vmcheck.errors import VmcheckError
from vmcheck.facts.body import Body, Verified
from vmcheck.facts.case import Case
from vmcheck.facts.header import DumpHeader
from vmcheck.facts.topology import Topology, Unknown, nothing_known
from vmcheck.formats import Dump, is_executable, open_dump
from vmcheck.operations.isolation import READER, ChildDied, Pending, start

if TYPE_CHECKING:
    from vmcheck.check import Report
    from vmcheck.kernel.program import Memory
    from vmcheck.records.snapshot import Snapshot

T = TypeVar("T")

READING = "reading the crashed kernel's memory"
DEBUGINFO_MEMORY = 4 << 30
"""Bytes where a vmlinux is read: drgn's index of its DWARF has 0.6 to 2 GB."""


class Examination:
    """One check, whose kernel is being read by a child: to be used in a ``with``."""

    def __init__(
        self,
        paths: Sequence[str],
        symbols: str | None = None,
        progress: Callable[[str], None] | None = None,
        budget: Budget = DEFAULT,
        verified: Verified | None = None,
    ) -> None:
        """``paths`` are a dump's file, or the parts of one ``makedumpfile --split`` dump.

        ``symbols`` is a vmlinux with debuginfo or a small symbol file. ``progress`` is called with
        what begins, and again while that lasts. Raises VmcheckError where the headers cannot be
        read, and OverBudget here or in the ``with`` where ``budget`` is exceeded.
        """
        self._paths = paths
        self._budget = budget
        self._progress = progress or (lambda step: None)
        self._progress("reading the dump's headers")
        with ExitStack() as opened:
            began = data_size()
            opened.enter_context(within(budget, str(paths[0])))
            dump = opened.enter_context(open_dump(paths))
            self.header = dump.header
            memory = budget.memory - (data_size() - began)
            if symbols and is_executable(symbols):
                memory = max(memory, DEBUGINFO_MEMORY)
            self._progress(READING)
            self._pending: Pending[tuple[Topology, Body]] = opened.enter_context(
                start(
                    lambda: _read(dump, symbols, verified),
                    budget.seconds * budget.KERNEL,
                    max(memory, 0),
                    READER,
                )
            )
            self._opened = opened.pop_all()

    def __enter__(self) -> Examination:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._opened.__exit__(kind, error, trace)

    def report(self, witness: tuple[str, Snapshot] | None = None, files: Sequence[str] = ()) -> Report:
        """The report, once the kernel is read. Raises VmcheckError where the symbols do not fit.

        ``witness`` is a recorded topology and its name. ``files`` are logs and sos reports, to be
        compared with the dump; those beside it are too.
        """
        # A third of a check is imports: these are done while another processor reads the kernel.
        from vmcheck.check import check
        from vmcheck.records.witnesses import testimony
        from vmcheck.rules import rules

        rules()
        body: Body | Unknown
        try:
            topology, body = answer(self._pending, lambda: self._progress(READING))
        except KernelUnreadable as error:
            topology, body = nothing_known(self.header, str(error)), Unknown(str(error))
        witnesses = []
        if witness is not None:
            from vmcheck.records.comparison import hear

            name, snapshot = witness
            topology, compared = hear(self.header, topology, snapshot, name)
            witnesses.append(compared)
        self._progress("applying the rules")
        case = Case(self.header, topology, body)
        seconds = self._budget.seconds * self._budget.RECORDS
        return check(case, [*witnesses, *testimony(case, self._paths[0], files, seconds)])


def examine(
    paths: Sequence[str],
    symbols: str | None = None,
    progress: Callable[[str], None] | None = None,
    witness: tuple[str, Snapshot] | None = None,
    files: Sequence[str] = (),
    budget: Budget = DEFAULT,
) -> Report:
    """Check one dump: see :class:`Examination`. Raises VmcheckError."""
    with Examination(paths, symbols, progress, budget) as examination:
        return examination.report(witness, files)


def _read(dump: Dump, symbols: str | None, verified: Verified | None) -> tuple[Topology, Body]:
    topology, body = read_kernel(dump.header, dump.memory, symbols), dump.memory.body()
    if verified is None:
        return topology, body
    body = replace(
        body,
        unpacked=verified.pages,
        damaged=body.damaged | verified.damaged,
        defects=(*body.defects, *verified.defects),
        verified=verified,
    )
    if not body.damaged:
        return topology, body
    from vmcheck.kernel.program import NoWayIn
    from vmcheck.kernel.read import Reading

    with suppress(NoWayIn):
        uses = Reading(dump.header, dump.memory, symbols).uses(topology, body.damaged)
        body = replace(body, uses=uses)
    return topology, body


class KernelUnreadable(VmcheckError):
    """Reading the kernel's memory crashed, hung or wanted too much."""


def answer(pending: Pending[T], tick: Callable[[], None] | None = None) -> T:
    """A reader's answer. Raises KernelUnreadable, and what it raised of VmcheckError."""
    try:
        return pending.result(tick)
    except ChildDied as death:
        raise KernelUnreadable(f"reading the kernel's memory failed: {death}") from None
    except MemoryError:
        raise KernelUnreadable("reading the kernel's memory failed: it wanted too much memory") from None


def in_child(
    read: Callable[[], T],
    tick: Callable[[], None] | None = None,
    seconds: float = DEFAULT.seconds,
    memory: int = DEBUGINFO_MEMORY,
    shut: bool = True,
) -> T:
    """``read()``, which reads a kernel's memory, where its crash does no harm.

    ``tick`` is called about once a second meanwhile.
    Raises KernelUnreadable and what ``read`` raises of VmcheckError.
    """
    with start(read, seconds, memory, READER, shut) as pending:
        return answer(pending, tick)


def read_kernel(header: DumpHeader, memory: Memory, symbols: str | None = None, log: bool = True) -> Topology:
    """What a kernel had, and what the missing memory was. Uses drgn: to be called in a child.

    Without ``log``, the kernel log is left alone. Raises VmcheckError for an unfit ``symbols`` file.
    """
    from vmcheck.kernel.program import NoWayIn
    from vmcheck.kernel.read import Reading

    try:
        reading = Reading(header, memory, symbols)
    except NoWayIn as error:
        return nothing_known(header, str(error))
    topology = reading.topology(log)
    case = Case(header, topology)
    return reading.loss(topology, case.missing) if case.wants_loss else topology
