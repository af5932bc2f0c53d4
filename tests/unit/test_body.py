# SPDX-License-Identifier: LGPL-2.1-or-later
"""Dumps that were interrupted, damaged or given in part: none of them is COMPLETE."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from fixtures.capture import captures
from tests.builders import MiB, kdump_vmcore, pages, patched, ram, split, write
from tests.dumps import real_dumps
from vmcheck.check import Report, Verdict
from vmcheck.facts.body import Body
from vmcheck.facts.diagnosis import Certainty
from vmcheck.facts.ranges import EMPTY, RangeSet
from vmcheck.formats import open_dump
from vmcheck.formats.page_chain import PageChain
from vmcheck.operations.examine import examine

DESC = struct.Struct("<QIIQ")
PAGES = 64


def built() -> bytes:
    return kdump_vmcore([ram(MiB, MiB + PAGES * 4096, pages("ab" * (PAGES // 2)))], compression="zlib")


def table_of(data: bytes) -> int:
    """Where the table of page_desc begins: each of its entries points behind it."""
    for place in range(4096, len(data), 4096):
        offset, size, flags, _ = DESC.unpack_from(data, place)
        if offset == place + PAGES * 24 and 0 < size <= 4096 and flags in (0, 1):
            return place
    raise AssertionError("no table")


DUMP = built()
TABLE = table_of(DUMP)


def body(tmp_path: Path, data: bytes) -> Body:
    with open_dump([write(tmp_path / "vmcore", data)]) as dump:
        return dump.memory.body()


def page(number: int, count: int = 1) -> RangeSet:
    return RangeSet([(MiB + number * 4096, MiB + (number + count) * 4096)])


def test_a_whole_dump_has_nothing_amiss(tmp_path: Path) -> None:
    assert body(tmp_path, DUMP) == Body(pages=PAGES, unpacked=PAGES)


@pytest.mark.parametrize("written", [0, 1, 40, PAGES - 1])
def test_page_descs_that_were_never_written_are_a_capture_that_was_interrupted(
    tmp_path: Path, written: int
) -> None:
    found = body(tmp_path, patched(DUMP, TABLE + 24 * written, bytes(24 * (PAGES - written))))
    assert found.never_written == page(written, PAGES - written)
    assert found.damaged == EMPTY


@pytest.mark.parametrize(("first", "count"), [(0, 1), (5, 3), (PAGES - 2, 1)])
def test_page_descs_that_are_zero_in_the_middle_are_damage(tmp_path: Path, first: int, count: int) -> None:
    found = body(tmp_path, patched(DUMP, TABLE + 24 * first, bytes(24 * count)))
    assert (found.never_written, found.damaged) == (EMPTY, page(first, count))


@pytest.mark.parametrize(
    ("desc", "why"),
    [
        ((TABLE - 8, 100, 1, 0), "points into the table itself"),
        ((len(DUMP) - 8, 4, 0x40, 0), "has flags that are not known"),
        ((len(DUMP) - 8, 0, 1, 0), "has a size of 0"),
    ],
)
def test_an_impossible_page_desc_is_damage(tmp_path: Path, desc: tuple[int, int, int, int], why: str) -> None:
    found = body(tmp_path, patched(DUMP, TABLE + 24 * 7, DESC.pack(*desc)))
    assert found.damaged == page(7)
    assert why in found.defects[0]


def desc(number: int) -> tuple[int, int, int, int]:
    return DESC.unpack_from(DUMP, TABLE + 24 * number)


def with_descs(changes: dict[int, tuple[int, int, int, int]]) -> bytes:
    data = DUMP
    for number, new in changes.items():
        data = patched(data, TABLE + 24 * number, DESC.pack(*new))
    return data


def test_two_page_descs_that_changed_places_are_damage(tmp_path: Path) -> None:
    """Each is possible, and its data unpack: to those of the other page."""
    found = body(tmp_path, with_descs({7: desc(20), 20: desc(7)}))
    assert found.damaged == page(7) | page(20)
    assert "its data do not lie between those of its neighbours, as in 4 places" in found.defects[0]


@pytest.mark.parametrize("change", [8, -8, 100])
def test_a_page_desc_that_points_elsewhere_in_the_data_is_damage(tmp_path: Path, change: int) -> None:
    offset, *rest = desc(30)
    found = body(tmp_path, with_descs({30: (offset + change, *rest)}))  # type: ignore[dict-item]
    assert found.damaged & page(30) == page(30)


def test_a_page_desc_whose_size_is_another_is_damage(tmp_path: Path) -> None:
    offset, size, *rest = desc(30)
    found = body(tmp_path, with_descs({30: (offset, size - 1, *rest)}))  # type: ignore[dict-item]
    assert found.damaged & page(30) == page(30)


def test_the_links_of_a_table_are_the_same_in_pieces() -> None:
    """The table is read in pieces, and its first page of zeros is shared."""
    columns = [("offset", "u8"), ("size", "u4")]
    table = np.array([(10, 5), (100, 50), (150, 50), (10, 5), (999, 50), (250, 50), (0, 0), (77, 1)], columns)
    for cut in range(1, len(table)):
        chain = PageChain(10, loose=False)
        for first, piece in ((0, table[:cut]), (cut, table[cut:])):
            chain.add(piece, first, piece["offset"] == 0)
        assert (chain.pages(), chain.number) == ([4], 2)


def test_a_page_desc_that_points_past_the_end_is_a_truncated_file(tmp_path: Path) -> None:
    data = patched(DUMP, TABLE + 24 * 7, DESC.pack(len(DUMP) - 1, 100, 1, 0))
    found = examine([str(write(tmp_path / "vmcore", data))])
    assert {"truncated-file", "damaged-pages"} & set(dict(found.named_findings))


def test_data_that_do_not_unpack_are_damage(tmp_path: Path) -> None:
    offset, size, *_ = DESC.unpack_from(DUMP, TABLE + 24 * 9)
    found = body(tmp_path, patched(DUMP, offset, bytes(size)))
    assert found.damaged == page(9)
    assert found.unpacked == PAGES - 1


@pytest.mark.parametrize("flip", [7, 30, 63])
def test_one_bit_of_the_second_bitmap_is_told_by_the_table_s_length(tmp_path: Path, flip: int) -> None:
    """Every page behind it is read one page_desc too early."""
    with open_dump([write(tmp_path / "whole", DUMP)]) as dump:
        bitmap = dump.memory._parts[0].disk.bitmap_offset + dump.memory._parts[0].disk.bitmap_size // 2  # type: ignore[attr-defined]
    place = bitmap + (256 + flip) // 8
    found = body(tmp_path, patched(DUMP, place, bytes([DUMP[place] ^ 1 << flip % 8])))
    assert "the second bitmap has" in found.defects[0]


def test_a_file_that_grows_while_it_is_read_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "vmcore", DUMP)
    with open_dump([path]) as dump:
        with path.open("ab") as file:
            file.write(b"more")
        assert (
            dump.memory.body().changed
            == f"it had {len(DUMP):,} bytes when it was opened, and has {len(DUMP) + 4:,} now"
        )


def test_a_file_that_is_rewritten_in_place_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "vmcore", DUMP)
    with open_dump([path]) as dump:
        os.utime(path, ns=(1, 1))
        assert dump.memory.body().changed == "it was written to"


def test_a_part_of_a_split_dump_that_was_not_given_is_missing(tmp_path: Path) -> None:
    parts = split(2, loads=[ram(0, PAGES * 4096, pages("ab" * (PAGES // 2)))])
    alone = examine([str(write(tmp_path / "part1", parts[0]))])
    assert (alone.named_findings[0][0], alone.verdict) == ("split-part-missing", Verdict.INCOMPLETE)
    paths = [str(write(tmp_path / f"part{number}", data)) for number, data in enumerate(parts)]
    assert "split-part-missing" not in dict(examine(paths).named_findings)


def test_the_page_of_zeros_of_a_part_lies_behind_the_room_for_all_page_descs(tmp_path: Path) -> None:
    some_zeros = (pages("a") + bytes(4096) + pages("b")) * (PAGES // 3)
    parts = split(2, loads=[ram(0, len(some_zeros), some_zeros)], compression="zlib")
    paths = [write(tmp_path / f"part{number}", data) for number, data in enumerate(parts)]
    with open_dump(paths) as dump:
        assert dump.memory.body().defects == ()


# Real dumps.


def real(name: str) -> bytes:
    for path in real_dumps():
        if str(path).endswith(f"{name}/vmcore"):
            return path.read_bytes()
    pytest.skip(f"no {name} beside the project")


def untrue(report: Report) -> list[str]:
    """Causes that are certain, in a dump whose damage alone is true."""
    causes = report.diagnosis.causes if report.diagnosis else ()
    return [cause.name for cause in causes if cause.certainty is Certainty.CERTAIN]


DAMAGE = ["table zeroed", "table cut", "data zeroed", "bitmap bit", "table swapped", "tail zeroed"]


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_copy_of_a_whole_dump_is_never_complete(tmp_path: Path, kind: str, seed: int) -> None:
    chosen = random.Random(f"{kind}{seed}")
    data = bytearray(real("debian-6.1/whole"))
    path = write(tmp_path / "whole", bytes(data))
    with open_dump([path]) as dump:
        part = dump.memory._parts[0]  # type: ignore[attr-defined]
        start, end = part.table.offset_of(0), part.table.end
        bitmap = part.disk.bitmap_offset + part.disk.bitmap_size // 2
    sector = start + chosen.randrange((end - start) // 4096 - 1) * 4096
    if kind == "table zeroed":
        data[sector : sector + 4096] = bytes(4096)
    elif kind == "table cut":
        data[sector:end] = bytes(end - sector)
    elif kind == "data zeroed":
        # 1% of the data, in one place.
        size = (len(data) - end) // 100
        place = end + chosen.randrange(len(data) - end - size)
        data[place : place + size] = bytes(size)
    elif kind == "bitmap bit":
        data[bitmap + chosen.randrange(256, 4000)] ^= 1 << chosen.randrange(8)
    elif kind == "table swapped":
        size = chosen.randrange(1, 64) * 8
        place = start + chosen.randrange(end - start - size)
        data[place : place + size] = chosen.randbytes(size)
    else:
        data[-len(data) // 20 :] = bytes(len(data) // 20 + 1)[: len(data) // 20]
    report = examine([str(write(tmp_path / "damaged", bytes(data)))])
    assert report.verdict is not Verdict.COMPLETE
    assert untrue(report) == []


def test_a_header_version_that_has_no_notes_switches_nothing_off(tmp_path: Path) -> None:
    """header_version 6 made 3: the registers of CPU 2 are missing, and were not asked for."""
    data = patched(real("debian-6.1/cpu-added-in-the-middle"), 8, b"\3")
    assert examine([str(write(tmp_path / "vmcore", data))]).verdict is not Verdict.COMPLETE


def test_a_note_of_a_damaged_name_is_no_proof_that_a_cpu_came_late(tmp_path: Path) -> None:
    """One letter of CORE: the note is there, and unread."""
    whole = next(each for each in captures() if each.name == "5.10.0-46-amd64/fresh")
    data = whole.vmcore.read_bytes()
    report = examine([str(write(tmp_path / "vmcore", patched(data, data.rindex(b"CORE\0"), b"CNRE")))])
    assert report.verdict is not Verdict.COMPLETE
    assert untrue(report) == []
