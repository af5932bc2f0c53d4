# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every stored page of a dump unpacked, in a child process for each processor."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from vmcheck.budget import DEFAULT
from vmcheck.errors import VmcheckError
from vmcheck.facts.body import Verified
from vmcheck.facts.ranges import ADDRESS_LIMIT, RangeSet
from vmcheck.formats import open_dump
from vmcheck.formats.page_check import joined
from vmcheck.operations.isolation import ChildDied, Pending, start

LIBRARIES = {"lzo": ("lzallright",), "snappy": ("cramjam",), "zstd": ("zstandard",)}
MOST_PAGES, LEAST_PAGES = 1 << 17, 1 << 12
"""Of one piece of the work."""
SECONDS = 600.0
"""For one piece: 128 Ki pages take about 3 s."""


class Interrupted(VmcheckError):
    """The user stopped it; the message says how to go on."""


def verify_pages(
    paths: Sequence[str],
    first: int = 0,
    last: int = ADDRESS_LIMIT,
    progress: Callable[[str], None] | None = None,
    processes: int | None = None,
) -> Verified:
    """Unpack all stored pages with physical addresses in ``[first, last)``.

    Memory is bounded: a child holds a few MiB of the file. Raises VmcheckError where the headers cannot
    be read, and Interrupted with the range that is left where the user stops it.
    """
    tell = progress or (lambda step: None)
    processes = processes or len(os.sched_getaffinity(0))
    with open_dump(paths) as dump:
        header, memory = dump.header, dump.memory
        stored = (header.stored - header.cut) & RangeSet([(first, last)])
        total = stored.size // header.page_size
        most = min(MOST_PAGES, max(LEAST_PAGES, -(-total // (4 * processes))))
        work = deque(_pieces(stored, most * header.page_size))
        modules = LIBRARIES.get(header.compression or "", ())
        waiting: deque[tuple[tuple[int, int], Pending[Verified]]] = deque()
        found, done = Verified(first, last), first
        with ExitStack() as children:
            try:
                while work or waiting:
                    while work and len(waiting) <= processes:
                        piece = work.popleft()
                        child = start(
                            lambda piece=piece: memory.verify(*piece),  # type: ignore[misc]
                            SECONDS,
                            DEFAULT.memory,
                            modules,
                        )
                        waiting.append((piece, children.enter_context(child)))
                    piece, child = waiting.popleft()
                    found, done = joined(found, _answer(piece, child)), piece[1]
                    tell(f"unpacking pages: {found.pages:,} of {total:,}, up to {done:#x}")
            except KeyboardInterrupt:
                damaged = found.damaged.size // header.page_size
                raise Interrupted(
                    f"stopped: {found.pages:,} of {total:,} pages are unpacked, {damaged:,} of them damaged; "
                    f"go on with --pages all --pages-from {done:#x}"
                ) from None
    return replace(found, start=first, end=last)


def _answer(piece: tuple[int, int], child: Pending[Verified]) -> Verified:
    try:
        return child.result()
    except ChildDied as death:
        why = f"unpacking the pages of [{piece[0]:#x}, {piece[1]:#x}) failed: {death}"
        raise VmcheckError(why) from None


def _pieces(stored: RangeSet, size: int) -> Iterator[tuple[int, int]]:
    """Bounds of about ``size`` stored bytes each, in rising order."""
    if not stored:
        return
    before = np.cumsum(np.append(0, stored.ends - stored.starts))
    begin = int(stored.starts[0])
    for position in range(size, int(before[-1]), size):
        run = int(np.searchsorted(before, position, side="right")) - 1
        end = int(stored.starts[run]) + position - int(before[run])
        yield begin, end
        begin = end
    yield begin, int(stored.end)
