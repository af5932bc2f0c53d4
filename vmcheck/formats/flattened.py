# SPDX-License-Identifier: LGPL-2.1-or-later
"""``makedumpfile -F``: a dump as a stream of (offset, size, bytes) records.

makedumpfile writes this where it cannot seek, and QEMU's dump-guest-memory does for its
kdump-zlib. The header's last state comes last, so later records overwrite earlier ones.
"""

from __future__ import annotations

import struct
from bisect import bisect_right

import numpy as np
import numpy.typing as npt

from vmcheck.errors import UnreadableFile
from vmcheck.facts.ranges import distinct
from vmcheck.formats.file import DumpFile, Window

# makedumpfile.h: struct makedumpfile_header, which fills MAX_SIZE_MDF_HEADER bytes.
SIGNATURE = b"makedumpfile\0\0\0\0"
START_SIZE = 4096
START = struct.Struct(">16sqq")
RECORD = struct.Struct(">qq")
"""struct makedumpfile_data_header: offset and buf_size, big-endian on every machine."""
END_FLAG = -1

MOST_RECORDS = 1 << 22
"""makedumpfile writes 256 KiB a record: a dump of 1 TiB."""
MOST_OVERLAPS = 1 << 25
OFFSET_LIMIT = 1 << 62
WINDOW = 4096

Int64s = npt.NDArray[np.int64]


class FlattenedFile(DumpFile):
    """The file that ``makedumpfile -R`` would make of the stream. What no record wrote reads as zeros."""

    def __init__(self, stream: DumpFile, record: bool = False) -> None:
        self._stream = stream
        offsets, sizes, sources, ended = _records(stream)
        self.cut = not ended
        self._offsets, self._ends, self._sources = _painted(stream.name, offsets, sizes, sources)
        if not self._ends:
            raise UnreadableFile(f"{stream.name}: the flattened stream was cut before its first record")
        super().__init__(stream.name, self._ends[-1], record)

    def _read(self, offset: int, size: int) -> bytes:
        end = offset + size
        piece = bisect_right(self._offsets, offset) - 1
        if piece >= 0 and end <= self._ends[piece]:
            return self._stream.read(self._sources[piece] + offset - self._offsets[piece], size)
        result = bytearray(size)
        for each in range(max(piece, 0), bisect_right(self._offsets, end - 1)):
            first, last = max(offset, self._offsets[each]), min(end, self._ends[each])
            if first < last:
                source = self._sources[each] + first - self._offsets[each]
                result[first - offset : last - offset] = self._stream.read(source, last - first)
        return bytes(result)

    def next_data(self, offset: int) -> int:
        piece = bisect_right(self._offsets, offset) - 1
        if piece >= 0 and offset < self._ends[piece]:
            return offset
        return self._offsets[piece + 1] if piece + 1 < len(self._offsets) else self.size

    def has_gaps(self, start: int, end: int) -> bool:
        # makedumpfile -F writes every byte; vmcheck distill leaves out what no check reads.
        at = start
        for piece in range(
            max(0, bisect_right(self._offsets, start) - 1), bisect_right(self._offsets, end - 1)
        ):
            if self._offsets[piece] > at:
                return True
            at = max(at, self._ends[piece])
        return at < end

    def changed(self) -> str:
        return self._stream.changed()

    def close(self) -> None:
        self._stream.close()


def _records(stream: DumpFile) -> tuple[Int64s, Int64s, Int64s, bool]:
    """Each record's offset and size in the dump, and where its bytes are in the stream."""
    if stream.size < START_SIZE:
        raise UnreadableFile(
            f"{stream.name}: the flattened stream's header has {START_SIZE} bytes, and the file {stream.size}"
        )
    _, type_, version = START.unpack(stream.read(0, START.size))
    if (type_, version) != (1, 1):
        raise UnreadableFile(
            f"{stream.name}: a flattened stream of type {type_}, version {version}; known is 1, 1"
        )
    window = Window(stream, stream.size, WINDOW)
    found: list[tuple[int, int, int]] = []
    position, size = START_SIZE, 0
    ended = False
    while position + RECORD.size <= stream.size:
        # Behind a large record nothing but the next one's header is of use.
        source = stream if size > WINDOW else window
        offset, size = RECORD.unpack(source.read(position, RECORD.size))
        if offset == size == END_FLAG:
            ended = True
            break
        if offset < 0 or size <= 0 or offset + size > OFFSET_LIMIT:
            raise UnreadableFile(
                f"{stream.name}: the flattened record at {position:#x} has offset {offset:#x}, size {size:#x}"
            )
        if len(found) >= MOST_RECORDS:
            raise UnreadableFile(f"{stream.name}: more than {MOST_RECORDS} records in the flattened stream")
        position += RECORD.size
        held = min(size, stream.size - position)
        if held:
            found.append((offset, held, position))
        position += size
    offsets, sizes, sources = np.array(found, dtype=np.int64).reshape(-1, 3).T
    return offsets, sizes, sources, ended


def _painted(
    name: str, offsets: Int64s, sizes: Int64s, sources: Int64s
) -> tuple[list[int], list[int], list[int]]:
    """Disjoint pieces in rising order: start and end in the dump, and start in the stream.

    Later records paint over earlier ones, cell by cell between any two bounds.
    """
    ends = offsets + sizes
    bounds = distinct(np.concatenate([offsets, ends]))
    first, last = np.searchsorted(bounds, offsets), np.searchsorted(bounds, ends)
    if int((last - first).sum()) > MOST_OVERLAPS:
        raise UnreadableFile(f"{name}: the records of the flattened stream overlap each other too often")
    painter = np.full(max(len(bounds) - 1, 0), -1, dtype=np.int64)
    for record, (begin, end) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        painter[begin:end] = record
    cells = np.flatnonzero(painter >= 0)
    record_of = painter[cells]
    starts = bounds[cells]
    return (
        starts.tolist(),
        bounds[cells + 1].tolist(),
        (sources[record_of] + starts - offsets[record_of]).tolist(),
    )
