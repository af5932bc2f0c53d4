# SPDX-License-Identifier: LGPL-2.1-or-later
"""Headers of large machines: program header tables and page bitmaps, read in this process."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.inputs import Inputs, tool
from benchmarks.measure import Row, command, compared
from tests.builders import PAGE, GiB, MiB, TiB, elf_vmcore, ram
from vmcheck.facts.header import DumpHeader
from vmcheck.facts.ranges import RangeSet
from vmcheck.formats import read_header
from vmcheck.formats.bitmap import CHUNK, read_bitmap
from vmcheck.formats.elf import PROGRAM_HEADER, PT_LOAD
from vmcheck.formats.file import StoredFile

PT_LOADS = (5, 8_192, 100_000)
"""100,000 need section header 0 to count them (PN_XNUM)."""
EHDR_SIZE = 64
MEMORY = {"64 GiB": 64 * GiB, "1 TiB": TiB, "16 TiB": 16 * TiB}
MOST_TIMES_READING = 3.0
STORED_RUNS = {
    "64 GiB": (5_000, 1 << 16),
    "1 TiB": (20_000, 1 << 18),
    "16 TiB": (80_000, 1 << 20),
}
"""Runs of pages that a dump of level 31 keeps: soon after boot, and after months of use.

The lab's dumps, soon after boot, have 75 for each GiB.
"""
LONGEST_RUN = 16
"""Pages; the shortest is one."""


def program_headers(inputs: Inputs) -> Iterator[Row]:
    readelf = tool("readelf", "binutils")
    for count in PT_LOADS:
        loads = max(5, count // inputs.scale)
        path = write_elf(inputs.folder / f"{loads}-loads", loads)
        yield compared(
            f"header of an ELF with {loads:,} PT_LOADs, in-process",
            partial(_read_header, path, loads),
            "`readelf -lW`, whole run",
            command([readelf, "-lW", path]),
            inputs.repetitions,
            at_most=1,
        )
        path.unlink()


def bitmaps(inputs: Inputs) -> Iterator[Row]:
    for machine, size in MEMORY.items():
        pages = size // PAGE // inputs.scale
        for runs in STORED_RUNS[machine]:
            path = write_bitmaps(inputs.folder / "bitmaps", pages, runs // inputs.scale)
            yield compared(
                f"both bitmaps of a machine of {machine}, {pages // 4 / MiB:,.0f} MiB, {runs:,} runs",
                partial(_read_bitmaps, path, pages),
                "numpy reading their bytes",
                partial(_read_with_numpy, path),
                inputs.repetitions,
                at_most=MOST_TIMES_READING,
            )
            path.unlink()


def write_elf(path: Path, loads: int) -> Path:
    """A raw vmcore with a PT_LOAD for every other 64 KiB of memory. Its memory is a hole in the file."""
    step = 1 << 17
    data = bytearray(
        elf_vmcore(
            loads=[ram(start, start + step // 2) for start in range(0, loads * step, step)],
            pids=[1],
            extended_phnum=loads > 65_000,
        )
    )
    layout = np.dtype([(name, "<" + kind) for name, kind in PROGRAM_HEADER[64]])
    table = np.frombuffer(data, layout, loads + 1, EHDR_SIZE)
    end = -(-len(data) // PAGE) * PAGE
    filled = table[table["p_type"] == PT_LOAD]
    filled["p_filesz"] = filled["p_memsz"]
    filled["p_offset"] = end + np.arange(loads) * (step // 2)
    table[table["p_type"] == PT_LOAD] = filled
    del table
    path.write_bytes(data)
    with path.open("r+b") as file:
        file.truncate(end + loads * (step // 2))
    return path


def write_bitmaps(path: Path, pages: int, runs: int) -> Path:
    """The two bitmaps of a kdump-compressed file, one after the other.

    The first has four ranges of memory. The second has what level 31 keeps: the array of
    struct page, a sixty-fourth of the memory, as one block, and ``runs`` short runs.
    """
    first = _bitmap(pages)
    for start, end in ((0, 0.04), (0.05, 0.5), (0.5625, 0.9), (0.95, 1)):
        first[int(start * pages / 8) : int(end * pages / 8)] = 0xFF
    second = _bitmap(pages)
    rng = np.random.default_rng(2)
    starts = rng.integers(0, pages - LONGEST_RUN, runs)
    for position, lengths in enumerate(np.tile(rng.integers(1, LONGEST_RUN + 1, runs), (LONGEST_RUN, 1))):
        there = starts[lengths > position] + position
        np.bitwise_or.at(second, there >> 3, (1 << (there & 7)).astype(np.uint8))
    second[pages // 16 : pages // 16 + pages // 64 // 8] = 0xFF
    with path.open("wb") as file:
        first.tofile(file)
        second.tofile(file)
    return path


def _bitmap(pages: int) -> npt.NDArray[np.uint8]:
    return np.zeros(pages // 8, np.uint8)


def _read_header(path: Path, loads: int) -> DumpHeader:
    header = read_header([path])
    assert header.segments is not None
    assert len(header.segments.p_paddr) == loads
    return header


def _read_bitmaps(path: Path, pages: int) -> tuple[RangeSet, RangeSet]:
    with StoredFile(path) as file:
        return (
            read_bitmap(file, 0, pages, PAGE, "the first bitmap"),
            read_bitmap(file, pages // 8, pages, PAGE, "the second bitmap"),
        )


def _read_with_numpy(path: Path) -> None:
    """As vmcheck does, a piece at a time: the whole at once takes longer, for want of cache."""
    with path.open("rb") as file:
        while len(np.fromfile(file, np.uint64, CHUNK // 8)):
            pass
