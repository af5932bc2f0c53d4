# SPDX-License-Identifier: LGPL-2.1-or-later
"""A dump's bytes, by offset. Every byte that vmcheck reads of a dump is read here."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType

import numpy as np

from vmcheck.errors import UnreadableFile
from vmcheck.facts.ranges import RangeSet
from vmcheck.files import WrongKind, open_descriptor

STANDARD_INPUT = "-"
SAVE_IT_FIRST = "a dump is read at many offsets: save it to a file first, then give that file"

EXTENTS_BEFORE_MERGING = 1 << 16


class DumpFile:
    """A file of ``size`` bytes. Reads are exact and bounds-checked.

    With ``record``, it keeps the extents that were read: ``vmcheck distill`` copies
    just those, so a reader reads no more than it needs.
    """

    cut = False
    """Known to end too early, whatever the headers say."""

    def __init__(self, name: str, size: int, record: bool = False) -> None:
        self.name = name
        self.size = size
        self.record = record
        self._extents: list[tuple[int, int]] = []

    def read(self, offset: int, size: int) -> bytes:
        if offset < 0 or size < 0 or offset + size > self.size:
            raise UnreadableFile(
                f"{self.name}: {size} bytes at {offset:#x} are past the end of the file ({self.size:#x})"
            )
        if self.record:
            self._extents.append((offset, offset + size))
            if len(self._extents) > EXTENTS_BEFORE_MERGING:
                self._extents = list(self.extents)
        return self._read(offset, size)

    def _read(self, offset: int, size: int) -> bytes:
        raise NotImplementedError

    def next_data(self, offset: int) -> int:
        """Where a hole that begins at ``offset`` ends; ``offset`` itself where there is none."""
        return offset

    def has_gaps(self, start: int, end: int) -> bool:
        """Whether a part of ``[start, end)`` is in no record of a stream, as vmcheck distill leaves it."""
        return False

    def changed(self) -> str:
        """How the file differs from what it was when it was opened; empty where it does not."""
        return ""

    @property
    def extents(self) -> RangeSet:
        """File offsets read so far, where they are recorded."""
        bounds = np.array(self._extents, dtype=np.int64).reshape(-1, 2)
        return RangeSet.from_arrays(bounds[:, 0], bounds[:, 1])

    def close(self) -> None:
        pass

    def __enter__(self) -> DumpFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class StoredFile(DumpFile):
    """A file on a disk, or a disk: some systems dump to a raw partition."""

    def __init__(self, path: str | Path, record: bool = False) -> None:
        name = str(path)
        if name == STANDARD_INPUT:
            raise UnreadableFile(f"standard input cannot be a dump: {SAVE_IT_FIRST}")
        try:
            self._descriptor = open_descriptor(name, devices=True)
        except WrongKind as wrong:
            folder = wrong.kind == "a directory"
            advice = ": give the vmcore file inside it" if folder else f", and {SAVE_IT_FIRST}"
            raise UnreadableFile(f"{name}: {wrong.kind}{advice}") from None
        # A block device's st_size is 0.
        super().__init__(name, os.lseek(self._descriptor, 0, os.SEEK_END), record)
        self._written = os.fstat(self._descriptor).st_mtime_ns
        if not self.size:
            self.close()
            raise UnreadableFile(f"{name}: the file is empty (0 bytes): the dump was never written")

    def _read(self, offset: int, size: int) -> bytes:
        try:
            data = os.pread(self._descriptor, size, offset)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise UnreadableFile(f"{self.name}: {size} bytes at {offset:#x}: {reason}") from None
        if len(data) == size:
            return data
        if not data:
            raise UnreadableFile(f"{self.name}: ends at {offset:#x} now, and had {self.size:#x} when opened")
        # Linux reads at most 0x7ffff000 bytes at once.
        return data + self._read(offset + len(data), size - len(data))

    def next_data(self, offset: int) -> int:
        try:
            return os.lseek(self._descriptor, offset, os.SEEK_DATA)
        except OSError as error:
            # ENXIO: nothing but a hole up to the end. A file system may not know SEEK_DATA.
            return self.size if error.errno == errno.ENXIO else offset

    def changed(self) -> str:
        size, status = os.lseek(self._descriptor, 0, os.SEEK_END), os.fstat(self._descriptor)
        if size != self.size:
            return f"it had {self.size:,} bytes when it was opened, and has {size:,} now"
        return "it was written to" if status.st_mtime_ns != self._written else ""

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Window:
    """Many small reads of a file in rising order, as few larger ones of ``width`` bytes."""

    def __init__(self, file: DumpFile, end: int, width: int) -> None:
        self._file = file
        self._end = end
        self._width = width
        self._start = 0
        self._bytes = b""

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes, which must lie before the window's ``end``."""
        begin = offset - self._start
        if begin < 0 or begin + size > len(self._bytes):
            self._bytes = self._file.read(offset, min(max(size, self._width), self._end - offset))
            self._start, begin = offset, 0
        return self._bytes[begin : begin + size]
