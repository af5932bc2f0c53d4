# SPDX-License-Identifier: LGPL-2.1-or-later
"""Page bitmaps, in bulk: 16 TiB of memory is 512 MiB of bits."""

from __future__ import annotations

import numpy as np

from vmcheck.errors import UnreadableFile
from vmcheck.facts.ranges import Bounds, RangeSet
from vmcheck.formats.file import DumpFile

CHUNK = 1 << 20
"""Bytes: few calls for a large bitmap, and the passes over a chunk stay in the processor's cache."""
MOST_RANGES = 1 << 24
ZERO = np.zeros(1, dtype="<i8")
"""The first word of a hole, whose others add nothing."""


def read_bitmap(file: DumpFile, offset: int, pages: int, page_size: int, what: str) -> RangeSet:
    """Memory whose bit is set. Bit n of byte m is PFN ``8 * m + n``, low bit first.

    Only the places where a bit differs from the one before it are looked at: a word that
    continues its predecessor's last bit, as nearly all do, costs one comparison.
    """
    found: list[Bounds] = []
    total = 0
    fill = np.int64(0)
    """All ones while the bits run set, as the last one of the chunk before did."""
    start, size = 0, -(-pages // 8)
    while start < size:
        # Of a sparse file, such as distill writes, only what is there is read.
        hole = min(file.next_data(offset + start) - offset, size) // 8 * 8
        if hole > start:
            length = hole - start
            words = ZERO
        else:
            length = min(CHUNK, size - start)
            chunk = file.read(offset + start, length)
            if start + length == size:
                chunk = _without_bits_after(chunk, pages - 8 * start)
            words = np.frombuffer(chunk, dtype="<i8")
        toggles = _toggles(words, fill)
        fill = words[-1] >> 63
        total += len(toggles)
        if total > 2 * MOST_RANGES:
            raise UnreadableFile(
                f"{file.name}: {what} has more than {MOST_RANGES} runs of pages: it is not a bitmap of memory"
            )
        found.append(toggles + 8 * start)
        start += length
    if fill:
        found.append(np.array([pages], dtype=np.int64))
    bounds = np.concatenate(found) if found else np.empty(0, dtype=np.int64)
    return RangeSet.from_bounds(bounds * page_size)


def _toggles(words: Bounds, fill: np.int64) -> Bounds:
    """Positions of the bits that differ from the bit before them."""
    fills = np.empty_like(words)
    fills[0] = fill
    np.right_shift(words[:-1], 63, out=fills[1:])
    changing = np.flatnonzero(words != fills)
    if not len(changing):
        return changing
    changed = words[changing]
    edges = changed ^ ((changed << 1) | (fills[changing] & 1))
    edge_bytes = edges.astype("<i8", copy=False).view(np.uint8)
    edged = np.flatnonzero(edge_bytes != 0)
    bits = np.flatnonzero(np.unpackbits(edge_bytes[edged], bitorder="little").view(np.bool_))
    byte = edged[bits >> 3]
    return np.asarray(changing[byte >> 3] * 64 + (byte & 7) * 8 + (bits & 7))


def _without_bits_after(chunk: bytes, bits: int) -> bytes:
    """``chunk`` as whole words, clear from bit ``bits`` on."""
    whole, rest = divmod(bits, 8)
    chunk = chunk[:whole] + (bytes([chunk[whole] & ((1 << rest) - 1)]) if rest else b"")
    return chunk + bytes(-len(chunk) % 8)
