# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every input is opened here: a file of the expected kind and size, or one line that says why not."""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path

from vmcheck.errors import UnreadableFile

KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a symbolic link",
}


class WrongKind(UnreadableFile):
    """What is there is no regular file; ``kind`` says what it is."""

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


def open_descriptor(
    path: str | Path, follow: bool = True, folder: int | None = None, devices: bool = False
) -> int:
    """A descriptor to read ``path``, which is relative to the open ``folder`` if one is given.

    Without ``follow``, the last part of ``path`` may be no symbolic link. With ``devices``, a block
    device is a file too. Raises WrongKind for pipes, sockets, devices and directories, which could
    wait for ever or have no end, and UnreadableFile for what cannot be opened.
    """
    try:
        # The kind is asked first, because opening some devices does something; and again, because
        # another file may have taken the place since.
        _refuse(path, os.stat(path, dir_fd=folder, follow_symlinks=follow).st_mode, devices)
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | (0 if follow else os.O_NOFOLLOW)
        descriptor = os.open(path, flags, dir_fd=folder)
    except OSError as error:
        raise UnreadableFile(f"{path}: {os.strerror(error.errno or 0)}") from None
    except ValueError:
        raise UnreadableFile(f"{path}: not a file name") from None
    try:
        _refuse(path, os.fstat(descriptor).st_mode, devices)
    except WrongKind:
        os.close(descriptor)
        raise
    return descriptor


def _refuse(path: str | Path, mode: int, devices: bool) -> None:
    if not stat.S_ISREG(mode) and not (devices and stat.S_ISBLK(mode)):
        kind = KINDS.get(stat.S_IFMT(mode), "no file")
        raise WrongKind(f"{path}: {kind}, and a regular file is needed", kind)


def open_input(path: str | Path, follow: bool = True, folder: int | None = None) -> BufferedReader:
    """As :func:`open_descriptor`, as a file object."""
    return os.fdopen(open_descriptor(path, follow, folder), "rb")


def read_input(path: str | Path, most: int, folder: int | None = None) -> bytes:
    """The whole file. Raises UnreadableFile where it has more than ``most`` bytes, and as above."""
    with open_input(path, folder=folder) as file:
        try:
            data = file.read(most + 1)
        except OSError as error:
            raise UnreadableFile(f"{path}: {os.strerror(error.errno or 0)}") from None
    if len(data) > most:
        raise UnreadableFile(f"{path}: larger than {most:,} bytes, the most that is read of such a file")
    return data
