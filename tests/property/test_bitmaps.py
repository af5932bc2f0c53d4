# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bitmaps against the oracle: one bit after the other."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import write
from vmcheck.errors import UnreadableFile
from vmcheck.facts.ranges import RangeSet
from vmcheck.formats import bitmap
from vmcheck.formats.bitmap import read_bitmap
from vmcheck.formats.file import StoredFile

PAGE = 4096

# Long runs, as memory has, and noise, as a filtered dump has.
runs = st.tuples(st.sampled_from([b"\0", b"\xff"]), st.integers(1, 200)).map(lambda run: run[0] * run[1])
bitmaps = st.lists(st.one_of(runs, st.binary(min_size=1, max_size=20)), min_size=1, max_size=8).map(b"".join)


def one_bit_after_the_other(data: bytes, pages: int) -> RangeSet:
    frames = [pfn for pfn in range(pages) if data[pfn // 8] >> pfn % 8 & 1]
    return RangeSet([(pfn * PAGE, (pfn + 1) * PAGE) for pfn in frames])


@settings(deadline=5000)
@given(
    data=bitmaps,
    chunk=st.sampled_from([8, 16, 64, 1 << 20]),
    before=st.integers(0, 30),
    extra=st.integers(0, 7),
)
def test_every_bit_counts_and_none_beyond(data: bytes, chunk: int, before: int, extra: int) -> None:
    pages = max(0, 8 * len(data) - extra)
    with TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(bitmap, "CHUNK", chunk)
        path = write(Path(directory) / "bitmap", b"\xff" * before + data + b"\xff")
        with StoredFile(path) as file:
            found = read_bitmap(file, before, pages, PAGE, "the bitmap")
    assert found == one_bit_after_the_other(data, pages)


@pytest.mark.parametrize("offset", [0, 4096, 4099])
def test_a_hole_ends_a_run(tmp_path: Path, offset: int) -> None:
    """Of a sparse bitmap only the two pieces that hold something are read."""
    path = write(tmp_path / "bitmap", bytes(offset) + b"\xff" * 10)
    os.truncate(path, offset + (1 << 30))
    with path.open("r+b") as file:
        file.seek(offset + (1 << 29))
        file.write(b"\x01")
    with StoredFile(path, record=True) as sparse:
        found = read_bitmap(sparse, offset, 8 << 30, PAGE, "the bitmap")
        assert found == RangeSet([(0, 80 * PAGE), ((8 << 29) * PAGE, ((8 << 29) + 1) * PAGE)])
        assert sparse.extents.size < 4 << 20


def test_no_memory_is_as_torn_as_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cap on the ranges bounds the memory that a hostile bitmap can cost."""
    monkeypatch.setattr(bitmap, "MOST_RANGES", 1000)
    path = write(tmp_path / "bitmap", b"\x55" * 1000)
    with (
        StoredFile(path) as file,
        pytest.raises(UnreadableFile, match=r"the first bitmap has more than 1000 runs of pages"),
    ):
        read_bitmap(file, 0, 8000, PAGE, "the first bitmap")
