# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every output is made here: a file that appears whole or not at all, and replaces no dump."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from vmcheck.errors import UnreadableFile, VmcheckError
from vmcheck.files import open_input

ANYONE = 0o666
"""Permission bits of a file that is nobody's secret, before the umask."""


class CannotWrite(VmcheckError):
    """An output cannot be written, or must not be."""


def forbid_overwriting(output: str, inputs: Sequence[str]) -> None:
    """Refuse an output that is one of the inputs, by whatever name or link, or any dump."""
    for path in inputs:
        with contextlib.suppress(OSError, ValueError):
            if Path(output).samefile(path):
                raise CannotWrite(f"{output}: is the input {path}, which is never overwritten")
    forbid_overwriting_dumps(output)


def forbid_overwriting_dumps(output: str) -> None:
    """Refuse an output that is a dump already: a slip of the keyboard must not cost one."""
    if not os.path.lexists(output):
        return
    # numpy comes with it, which a new output can do without.
    from vmcheck.formats import is_dump

    with contextlib.suppress(UnreadableFile, OSError), open_input(output) as file:
        if is_dump(file.read(32)):
            raise CannotWrite(f"{output}: is a dump, which is never overwritten")


def permissions(path: str) -> int:
    """The permission bits of an input, for what is made of its content."""
    try:
        return stat.S_IMODE(Path(path).stat().st_mode) & ANYONE
    except (OSError, ValueError):
        return ANYONE


@contextlib.contextmanager
def replacing(output: str, mode: int = ANYONE) -> Iterator[BinaryIO]:
    """A new file, which becomes ``output`` in one step if all went well.

    It has the permission bits of ``mode``, less the umask or those that the file it replaces
    lacks. A symbolic link at ``output`` is replaced and its target is left alone, unless that is
    a device or a pipe, such as /dev/stdout's: into those it is written at once. Raises CannotWrite.
    """
    path = Path(output)
    try:
        try:
            folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except ValueError as error:
            raise CannotWrite(f"{output}: cannot be written: {error}") from None
        try:
            with _made(output, path.name, folder, mode) as file:
                yield file
        finally:
            os.close(folder)
    except OSError as error:
        raise CannotWrite(f"{output}: cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def _made(output: str, name: str, folder: int, mode: int) -> Iterator[BinaryIO]:
    found = _status(name, folder, follow=False)
    if not _is_replaced(name, folder) or _is_descriptor(output, found):
        with os.fdopen(os.open(name, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY, dir_fd=folder), "wb") as file:
            yield file
        return
    forbid_overwriting_dumps(output)
    unfinished = f".vmcheck-{os.urandom(8).hex()}"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(unfinished, flags, mode, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if found is not None and stat.S_ISREG(found.st_mode):
                os.fchmod(descriptor, mode & stat.S_IMODE(found.st_mode))
            yield file
        os.replace(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(unfinished, dir_fd=folder)
        raise


def _status(name: str, folder: int, follow: bool) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=follow)
    except FileNotFoundError:
        return None


def _is_replaced(name: str, folder: int) -> bool:
    """Whether a new file takes the place: not that of a device, a pipe or a folder."""
    target = _status(name, folder, follow=True)
    return target is None or stat.S_ISREG(target.st_mode)


def _is_descriptor(output: str, found: os.stat_result | None) -> bool:
    """Whether it is an open file of this process, as /dev/stdout and /dev/fd/3 are."""
    if found is None or not stat.S_ISLNK(found.st_mode):
        return False
    places = os.path.realpath(Path(output).parent), str(Path(output).readlink())
    return any(place.startswith("/proc/") for place in places)
