# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where output goes: standard output, or a file that is replaced whole or left alone."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator

from vmcheck.operations.outputs import CannotWrite, replacing

STDOUT = "-"

Tell = Callable[[str], None] | None
"""Where to say what is going on."""


def write(output: str, content: bytes) -> None:
    """To standard output for ``-``, else to a file."""
    if output == STDOUT:
        to_stdout(content)
        return
    with replacing(output) as file:
        file.write(content)


def say(line: str) -> None:
    to_stdout(f"{line}\n".encode("utf-8", "backslashreplace"))


def complain(line: str) -> None:
    """A line on standard error, if anybody can read it."""
    with contextlib.suppress(OSError, ValueError):
        print(line, file=sys.stderr, flush=True)


def reopen_closed_streams() -> None:
    """Standard streams that are closed, as under a daemon, become /dev/null.

    Else the first files opened would have their numbers, and be written to.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)


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

    What takes long says again and again what it does: a thread or a timer would be in its way.
    """
    if not sys.stderr.isatty():
        yield None
        return
    started = time.monotonic()

    def tell(message: str) -> None:
        if time.monotonic() - started >= 1:
            with contextlib.suppress(OSError):
                print(f"\r\033[K{message[:200]}...", end="", file=sys.stderr, flush=True)

    try:
        yield tell
    finally:
        if time.monotonic() - started >= 1:
            with contextlib.suppress(OSError):
                print("\r\033[K", end="", file=sys.stderr, flush=True)
