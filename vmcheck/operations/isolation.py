# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run a function in a child process, so that its crash, hang or greed is one clear line.

drgn is C and reads a stranger's dump. The child is forked, so nothing is imported twice.
"""

from __future__ import annotations

import os
import pickle
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import TypeVar

from vmcheck.errors import VmcheckError

T = TypeVar("T")

_PIPE_READ = 1 << 20


class ChildDied(Exception):
    """The child was killed or took too long; the message says which."""


def nothing() -> None:
    pass


def run_isolated(
    work: Callable[[], T], seconds: float, address_space: int, meanwhile: Callable[[], None] = nothing
) -> T:
    """``work()``, done in a forked child that may use ``address_space`` bytes.

    ``meanwhile()`` is done here, while the child works.

    A VmcheckError or MemoryError that it raises is raised here. Raises ChildDied where it
    was killed by a signal or did not answer within ``seconds``. Any other exception is a
    bug: the child prints its traceback and RuntimeError is raised.
    """
    receive, send = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(receive)
        _work_and_exit(work, send, address_space)
    os.close(send)
    deadline = time.monotonic() + seconds
    try:
        meanwhile()
        answer = _receive_all(receive, deadline)
    finally:
        os.close(receive)
        # Either it has closed its end and is about to exit, or it is to be stopped.
        if sys.exc_info()[0] is not None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    if answer is None:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if answer is None:
        raise ChildDied(f"it did not end within {seconds:g} seconds")
    if os.WIFSIGNALED(status):
        raise ChildDied(f"the reader was killed by {_name(os.WTERMSIG(status))}")
    if not answer:
        raise RuntimeError("the reader failed; its traceback is above")
    succeeded, result = pickle.loads(answer)
    if not succeeded:
        raise result
    return result  # type: ignore[no-any-return]


def _work_and_exit(work: Callable[[], T], send: int, address_space: int) -> None:
    try:
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        space = address_space if most == resource.RLIM_INFINITY else min(address_space, most)
        resource.setrlimit(resource.RLIMIT_AS, (space, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            answer = pickle.dumps((True, work()))
        except (VmcheckError, MemoryError) as error:
            answer = pickle.dumps((False, error))
        while answer:
            answer = answer[os.write(send, answer) :]
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _receive_all(receive: int, deadline: float) -> bytes | None:
    """All that comes until the other end is closed; None at the deadline."""
    pieces: list[bytes] = []
    while True:
        ready, _, _ = select.select([receive], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        piece = os.read(receive, _PIPE_READ)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
