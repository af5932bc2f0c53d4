# SPDX-License-Identifier: LGPL-2.1-or-later
"""Page bitmaps, in bulk: 16 TiB of memory is 512 MiB of bits."""

from __future__ import annotations

import numpy as np

from vmcheck.errors import UnreadableFile
from vmcheck.formats.file import DumpFile
from vmcheck.ranges import Bounds, RangeSet

CHUNK = 1 << 18
"""Bytes, so that the passes over a chunk stay in the processor's cache."""
MOST_RANGES = 1 << 24


def read_bitmap(file: DumpFile, offset: int, pages: int, page_size: int, what: str) -> RangeSet:
    """Memory whose bit is set. Bit n of byte m is PFN ``8 * m + n``, low bit first.

    Only the places where a bit differs from the one before it are looked at: a word that
    continues its predecessor's last bit, as nearly all do, costs one comparison.
    """
    found: list[Bounds] = []
    total = 0
    fill = np.int64(0)
    """All ones while the bits run set, as the last one of the chunk before did."""
    size = -(-pages // 8)
    for start in range(0, size, CHUNK):
        chunk = file.read(offset + start, min(CHUNK, size - start))
        if start + CHUNK >= size:
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
    bits = np.flatnonzero(np.unpackbits(edges.astype("<i8", copy=False).view(np.uint8), bitorder="little"))
    return np.asarray(changing[bits >> 6] * 64 + (bits & 63))


def _without_bits_after(chunk: bytes, bits: int) -> bytes:
    """``chunk`` as whole words, clear from bit ``bits`` on."""
    whole, rest = divmod(bits, 8)
    chunk = chunk[:whole] + (bytes([chunk[whole] & ((1 << rest) - 1)]) if rest else b"")
    return chunk + bytes(-len(chunk) % 8)
