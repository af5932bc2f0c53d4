# SPDX-License-Identifier: LGPL-2.1-or-later
"""``check --pages all``: every page is unpacked, and a damaged one is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders import COMPRESSION_FLAG, MiB, elf_vmcore, kdump_vmcore, pages, patched, ram, write
from vmcheck.facts.body import Verified
from vmcheck.facts.ranges import ADDRESS_LIMIT, RangeSet
from vmcheck.formats import open_dump
from vmcheck.operations.pages import verify_pages

COUNT = 600


def dump(compression: str) -> bytes:
    return kdump_vmcore([ram(MiB, MiB + COUNT * 4096, pages("ab" * (COUNT // 2)))], compression=compression)


@pytest.mark.parametrize("compression", COMPRESSION_FLAG)
def test_every_page_of_a_whole_dump_is_unpacked(tmp_path: Path, compression: str) -> None:
    plain = COUNT if compression == "none" else 0
    found = verify_pages([str(write(tmp_path / "vmcore", dump(compression)))])
    assert found == Verified(0, ADDRESS_LIMIT, COUNT, plain)


@pytest.mark.parametrize("compression", [name for name in COMPRESSION_FLAG if name != "none"])
def test_a_page_with_zeroed_data_is_damaged(tmp_path: Path, compression: str) -> None:
    path = write(tmp_path / "vmcore", dump(compression))
    with open_dump([path]) as opened:
        (descriptor,) = opened.memory._parts[0].table.descriptors(301, 1)  # type: ignore[attr-defined]
    write(path, patched(path.read_bytes(), descriptor.offset, bytes(descriptor.size)))
    found = verify_pages([str(path)])
    assert found.damaged == RangeSet([(MiB + 301 * 4096, MiB + 302 * 4096)])


def test_a_range_is_unpacked_alone(tmp_path: Path) -> None:
    path = str(write(tmp_path / "vmcore", dump("zlib")))
    found = verify_pages([path], MiB + 100 * 4096, MiB + 250 * 4096)
    assert found == Verified(MiB + 100 * 4096, MiB + 250 * 4096, 150)


def test_every_byte_of_an_elf_dump_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "vmcore", elf_vmcore([ram(MiB, MiB + 4 * 4096, pages("abcd"))]))
    assert verify_pages([str(path)]) == Verified(0, ADDRESS_LIMIT, 4, 4)
