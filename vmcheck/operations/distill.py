# SPDX-License-Identifier: LGPL-2.1-or-later
"""A dump small enough to attach to a ticket: its real headers and the memory that a check reads.

Nothing is rewritten. A check is run while the file offsets that it reads are recorded, and
just those are copied, to the same offsets of a file of the same size: headers, notes,
bitmaps and page descriptors are the dump's own, and the rest is holes.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from vmcheck.errors import PageNotStored, VmcheckError
from vmcheck.facts.ranges import RangeSet
from vmcheck.formats import Dump, Memory, flattened, open_dump
from vmcheck.formats.file import DumpFile
from vmcheck.operations.examine import in_child
from vmcheck.operations.outputs import permissions, replacing

_CHUNK = 1 << 20
_BLOCK = 4096
"""Bytes: what a file system can leave as a hole."""


@dataclass(frozen=True)
class Distilled:
    """What was written."""

    pages: int
    """Of memory that were kept."""
    size: int
    """Bytes that ls -l shows: the dump's own size unless flattened."""
    copied: int
    """Bytes that are no holes."""


@dataclass(frozen=True)
class Kept:
    """What of a dump is kept."""

    extents: RangeSet
    """File offsets."""
    patches: Mapping[int, bytes]
    """By file offset, what stands there instead of the dump's bytes."""
    pages: int
    """Of memory."""


def distill(
    paths: Sequence[str],
    output: str,
    symbols: str | None = None,
    flattened_form: bool = False,
    redact: bool = False,
) -> Distilled:
    """Write what a check of a dump reads to ``output``: a sparse file, or a ``makedumpfile -F`` stream.

    With ``symbols``, the kernel's own types and symbols are not read and so not kept: the
    result is much smaller, and every check of it needs that file. With ``redact``, host
    name, command line and kernel log are blanked. Raises VmcheckError.
    """
    if len(paths) != 1:
        raise VmcheckError(f"{paths[0]}: the parts of a split dump are distilled one at a time")
    with open_dump(paths, record=True) as dump:
        kept = _what_a_check_reads(dump, symbols, redact)
        # It has the kernel's memory: nobody may read it who may not read the dump.
        with replacing(output, permissions(paths[0])) as file:
            copied = (_write_flattened if flattened_form else _write_sparse)(dump.files[0], kept, file)
            file.flush()
            return Distilled(kept.pages, os.fstat(file.fileno()).st_size, copied)


class _Recorder:
    """Memory that remembers which pages were read."""

    def __init__(self, memory: Memory, page_size: int) -> None:
        self._memory = memory
        self._page_size = page_size
        self.pages: set[int] = set()

    def read(self, address: int, size: int) -> bytes:
        data = self._memory.read(address, size)
        first = address // self._page_size
        self.pages.update(range(first, (address + size - 1) // self._page_size + 1))
        return data


def _what_a_check_reads(dump: Dump, symbols: str | None, redact: bool) -> Kept:
    header = dump.header

    def read() -> Kept:
        from vmcheck.operations.examine import read_kernel

        memory = _Recorder(dump.memory, header.page_size)
        read_kernel(header, memory, symbols, log=not redact)
        extents = dump.files[0].extents
        patches = dump.memory.mark() | (_blanked(dump, memory.pages, symbols) if redact else {})
        patched = RangeSet((place, place + len(patch)) for place, patch in patches.items())
        return Kept(extents | patched, patches, len(memory.pages))

    return in_child(read)


def _blanked(dump: Dump, pages: set[int], symbols: str | None) -> dict[int, bytes]:
    """Patches that blank in headers and kept pages what identifies the machine."""
    from vmcheck.kernel.identity import identity
    from vmcheck.kernel.program import Kernel

    page_size = dump.header.page_size
    types_and_symbols = _Recorder(dump.memory, page_size)
    kernel = Kernel(dump.header, types_and_symbols, symbols)
    constants = frozenset(types_and_symbols.pages)
    found = identity(kernel)
    patches = dict(dump.memory.header_patches())
    for page in sorted(pages):
        data = _stored_part(dump.memory, page * page_size, page_size)
        clean = found.blanked(data, constant=page in constants)
        if clean != data:
            patches.update(dump.memory.page_patches(page * page_size, clean))
    return patches


def _stored_part(memory: Memory, address: int, size: int) -> bytes:
    """A page, or its beginning where a segment does not fill its last page."""
    try:
        return memory.read(address, size)
    except PageNotStored as absent:
        end = address if absent.address is None else absent.address
        return memory.read(address, end - address) if end > address else b""


def _pieces(source: DumpFile, kept: Kept) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) in rising order, patched, without blocks of zeros."""
    places = sorted(kept.patches)
    longest = max(map(len, kept.patches.values()), default=0)
    for start, end in kept.extents:
        for offset in range(start, end, _CHUNK):
            data = bytearray(source.read(offset, min(_CHUNK, end - offset)))
            first, last = bisect_right(places, offset - longest), bisect_left(places, offset + len(data))
            for place in places[first:last]:
                _patch(data, place - offset, kept.patches[place])
            yield from _without_zeros(offset, bytes(data))


def _patch(data: bytearray, place: int, patch: bytes) -> None:
    """Lay ``patch`` over ``data`` where they meet; ``place`` may lie before it."""
    begin, end = max(place, 0), min(place + len(patch), len(data))
    if begin < end:
        data[begin:end] = patch[begin - place : end - place]


def _without_zeros(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    begin = None
    for block in range(-(offset % _BLOCK), len(data), _BLOCK):
        place = max(0, block)
        if any(data[place : block + _BLOCK]):
            begin = place if begin is None else begin
        elif begin is not None:
            yield offset + begin, data[begin:place]
            begin = None
    if begin is not None:
        yield offset + begin, data[begin:]


def _write_sparse(source: DumpFile, kept: Kept, file: BinaryIO) -> int:
    copied = 0
    for offset, data in _pieces(source, kept):
        copied += os.pwrite(file.fileno(), data, offset)
    file.truncate(source.size)
    return copied


def _write_flattened(source: DumpFile, kept: Kept, file: BinaryIO) -> int:
    file.write(flattened.START.pack(flattened.SIGNATURE, 1, 1).ljust(flattened.START_SIZE, b"\0"))
    copied = end = 0
    for offset, data in _pieces(source, kept):
        copied += file.write(flattened.RECORD.pack(offset, len(data)) + data)
        end = offset + len(data)
    if end < source.size:
        # The stream's last byte tells how long the dump is.
        file.write(flattened.RECORD.pack(source.size - 1, 1) + b"\0")
    file.write(flattened.RECORD.pack(flattened.END_FLAG, flattened.END_FLAG))
    return copied
