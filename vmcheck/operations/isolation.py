# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run a function in a child process, so that its crash, hang or greed is one clear line.

drgn is C and reads a stranger's dump. The child is forked, so nothing is imported twice, and is
shut in (sandbox.py) before it begins.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import importlib
import io
import os
import pickle
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar

from vmcheck.budget import data_size
from vmcheck.errors import VmcheckError
from vmcheck.operations.sandbox import shut_in

T = TypeVar("T")

_PIPE_READ = 1 << 20
READER = ("vmcheck.kernel.read", "vmcheck.kernel.program", "vmcheck.kernel.impact", "vmcheck.kernel.tasks")
"""What a child that reads a kernel imports before it is shut in."""
LARGEST_ANSWER = 256 << 20
"""Bytes that a child may send back."""
TICK = 1.0
"""Seconds."""


class ChildDied(Exception):
    """The child was killed or took too long; the message says which."""


class Pending(Generic[T]):
    """What a child is working out. To be used in a ``with``, which leaves no child behind."""

    def __init__(self, child: int, receive: int, seconds: float) -> None:
        self._child, self._receive, self._seconds = child, receive, seconds
        self._deadline = time.monotonic() + seconds

    def __enter__(self) -> Pending[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child:
            self._kill()

    def result(self, tick: Callable[[], None] | None = None) -> T:
        """The child's answer. A VmcheckError or MemoryError that it raised is raised here.

        ``tick`` is called about once a second until it comes.

        Raises ChildDied where it was killed by a signal, answered too much or not in time. Any other
        exception is a bug: the child prints its traceback and RuntimeError is raised.
        """
        try:
            answer = self._receive_all(tick or (lambda: None))
        except BaseException:
            self._kill()
            raise
        if answer is None:
            self._kill()
            raise ChildDied(f"it did not end within {self._seconds:g} seconds")
        os.close(self._receive)
        _, status = os.waitpid(self._child, 0)
        self._child = 0
        if os.WIFSIGNALED(status):
            raise ChildDied(f"the reader was killed by {_name(os.WTERMSIG(status))}")
        if not answer:
            raise RuntimeError("the reader failed; its traceback is above")
        try:
            succeeded, result = _Values(io.BytesIO(answer)).load()
        except (pickle.UnpicklingError, EOFError, TypeError, ValueError, LookupError) as error:
            raise ChildDied(f"the reader's answer is refused: {error}") from None
        if not succeeded:
            raise result
        return result  # type: ignore[no-any-return]

    def _receive_all(self, tick: Callable[[], None]) -> bytes | None:
        """All that comes until the other end is closed; None at the deadline."""
        pieces: list[bytes] = []
        size = 0
        while True:
            left = max(0.0, self._deadline - time.monotonic())
            ready, _, _ = select.select([self._receive], [], [], min(left, TICK))
            if not ready:
                if not left:
                    return None
                tick()
                continue
            piece = os.read(self._receive, _PIPE_READ)
            if not piece:
                return b"".join(pieces)
            size += len(piece)
            if size > LARGEST_ANSWER:
                raise ChildDied(f"the reader answered more than {LARGEST_ANSWER >> 20} MiB")
            pieces.append(piece)

    def _kill(self) -> None:
        os.close(self._receive)
        os.kill(self._child, signal.SIGKILL)
        os.waitpid(self._child, 0)
        self._child = 0


def start(
    work: Callable[[], T],
    seconds: float,
    memory: int,
    modules: Sequence[str] = (),
    shut: bool = True,
) -> Pending[T]:
    """Begin ``work()`` in a forked child that may use ``memory`` bytes more than it has now.

    ``modules`` are imported there before it is shut in, so that their compiled form can be kept.
    Without ``shut`` it may open connections, as to a guest's QMP socket.
    """
    receive, send = os.pipe()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(receive)
        _work_and_exit(work, send, memory, modules, parent if shut else None)
    os.close(send)
    return Pending(child, receive, seconds)


def run_isolated(
    work: Callable[[], T], seconds: float, memory: int, modules: Sequence[str] = (), shut: bool = True
) -> T:
    """:func:`start`, and its answer."""
    with start(work, seconds, memory, modules, shut) as pending:
        return pending.result()


def _work_and_exit(
    work: Callable[[], T], send: int, memory: int, modules: Sequence[str], parent: int | None
) -> None:
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            for module in modules:
                importlib.import_module(module)
            # RLIMIT_DATA counts what is allocated, and not drgn's mapping of a vmlinux.
            _, most = resource.getrlimit(resource.RLIMIT_DATA)
            limit = data_size() + memory
            limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
            resource.setrlimit(resource.RLIMIT_DATA, (limit, most))
            if parent is not None:
                shut_in(parent)
            answer = pickle.dumps((True, work()))
        except (VmcheckError, MemoryError) as error:
            answer = pickle.dumps((False, error))
        except (OSError, ImportError) as error:
            answer = pickle.dumps((False, VmcheckError(f"the system refused: {error}")))
        while answer:
            answer = answer[os.write(send, answer) :]
        os._exit(0)
    except BaseException:
        with contextlib.suppress(BaseException):
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(1)


class _Values(pickle.Unpickler):
    """Values of vmcheck and arrays of numbers, and nothing that runs: the child may have been taken over."""

    def find_class(self, module: str, name: str) -> Any:
        found: Any = super().find_class(module, name)
        if module.startswith("vmcheck.") and isinstance(found, type) and _is_value(module, found):
            return found
        if module == "builtins" and name in ("MemoryError", "frozenset", "set", "bytearray"):
            return found
        if (module, name) in NUMPY:
            return found
        if (module, name) == ("builtins", "getattr"):
            return _member
        raise pickle.UnpicklingError(f"a reader may not send {module}.{name}")


def _member(kind: type, name: str) -> object:
    """How Python 3.11 pickles a member of an enumeration, and any Python a RangeSet, which checks itself."""
    if (kind.__module__, kind.__name__, name) == ("vmcheck.facts.ranges", "RangeSet", "from_bounds"):
        return getattr(kind, name)
    if not issubclass(kind, enum.Enum):
        raise pickle.UnpicklingError(f"a reader may not send a member of {kind.__name__}")
    return kind[name]


def _is_value(module: str, kind: type) -> bool:
    """Whether making one does nothing but hold what it is given."""
    frozen = dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    return frozen or issubclass(kind, (tuple, enum.Enum, VmcheckError)) or module.startswith("vmcheck.facts.")


NUMPY = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
}
"""How arrays come back, in numpy 1 and 2."""


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
