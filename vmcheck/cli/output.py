# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where output goes: standard output, or a file that is replaced whole or left alone."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from vmcheck.errors import VmcheckError

STDOUT = "-"

Tell = Callable[[str], None] | None
"""Where to say what is going on."""


class CannotWrite(VmcheckError):
    """An output cannot be written, or must not be."""


def forbid_overwriting(output: str, inputs: Sequence[str]) -> None:
    """Refuse an output that is one of the inputs, by whatever name or link."""
    for path in inputs:
        with contextlib.suppress(OSError):
            if output != STDOUT and Path(output).samefile(path):
                raise CannotWrite(f"{output}: is the input {path}, which is never overwritten")


def write(output: str, content: bytes) -> None:
    """To standard output for ``-``, else to a file."""
    if output == STDOUT:
        to_stdout(content)
        return
    with replacing(output) as path:
        path.write_bytes(content)


@contextlib.contextmanager
def replacing(output: str) -> Iterator[Path]:
    """A path to write to, which becomes ``output`` in one step if all went well."""
    target = Path(os.path.realpath(output))
    try:
        if target.exists() and not stat.S_ISREG(target.stat().st_mode):
            # A device or a FIFO: there is nothing to replace.
            yield target
            return
        unfinished = target.with_name(f".{target.name[:200]}.{os.getpid()}")
        try:
            yield unfinished
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise CannotWrite(f"{output}: cannot be written: {error.strerror or error}") from error


def to_stdout(content: bytes) -> None:
    """A reader that went away, such as ``head``, is no error: the exit status is still the verdict."""
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        _discard_stdout()
    except OSError as error:
        _discard_stdout()
        raise CannotWrite(f"standard output: cannot be written: {error.strerror or error}") from error


def _discard_stdout() -> None:
    """Python flushes standard output once more as it exits, and would fail once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


@contextlib.contextmanager
def progress() -> Iterator[Tell]:
    """Where to tell what is going on: a line on standard error after the first second, on a terminal only.

    A timer signal and not a thread: the kernel is asked in a forked child.
    """
    if not sys.stderr.isatty():
        yield None
        return
    started, doing = time.monotonic(), ""

    def tell(message: str) -> None:
        nonlocal doing
        doing = message
        if time.monotonic() - started >= 1:
            print(f"\r\033[K{doing[:200]}...", end="", file=sys.stderr, flush=True)

    def on_alarm(_signal: int, _frame: FrameType | None) -> None:
        if doing:
            tell(doing)

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 1.01)
    try:
        yield tell
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if time.monotonic() - started >= 1:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
