# SPDX-License-Identifier: LGPL-2.1-or-later
"""Any change to any byte of a small dump: a DumpHeader or a VmcheckError, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.builders import RawNote, elf_vmcore, flattened, kdump_vmcore, pages, ram, split, write
from vmcheck.errors import PageNotStored, VmcheckError
from vmcheck.facts.header import DumpHeader
from vmcheck.facts.ranges import EMPTY
from vmcheck.formats import Dump, open_dump

LOADS = [ram(0x1000, 0x4000, pages("ab")), ram(0x8000, 0x10000, pages("cd") + bytes(4096))]
NOTES = [RawNote("QEMU", 0, bytes(8)), RawNote("LINUX", 0x700, bytes(16))]

DUMPS: dict[str, Sequence[bytes]] = {
    "elf64": [elf_vmcore(LOADS, [1, 2], notes=NOTES)],
    "elf32-big": [elf_vmcore(LOADS, [1], machine="ppc64", bits=32, byteorder="big")],
    "elf-extended-phnum": [elf_vmcore(LOADS, extended_phnum=True)],
    "kdump-zlib": [kdump_vmcore(LOADS, [1, 2], notes=NOTES, eraseinfo=b"erase x\n")],
    "kdump-lzo": [kdump_vmcore(LOADS, [1], compression="lzo", header_version=5)],
    "kdump-snappy": [kdump_vmcore(LOADS, compression="snappy", header_version=3)],
    "kdump-zstd": [kdump_vmcore(LOADS, compression="zstd", header_version=1)],
    "kdump32": [kdump_vmcore(LOADS, [1], machine="i686", bits=32)],
    "kdump32-big": [kdump_vmcore(LOADS, [1], machine="ppc64", bits=32, byteorder="big")],
    "flattened-elf": [flattened(elf_vmcore(LOADS, [1]))],
    "flattened-kdump": [flattened(kdump_vmcore(LOADS, [1]))],
    "split": split(2, loads=LOADS, pids=[1]),
}

Change = Callable[[bytes], bytes]
IN_THE_HEADERS = st.integers(0, 6 * 4096)
INTERESTING = st.sampled_from(
    [
        *(byte * length for byte in (b"\0", b"\xff") for length in (1, 4, 8)),
        *(b"\x7f", b"\x80", b"\0\0\0\1", b"\1\0\0\0", b"\xff\xff\xff\x7f"),
        *(bytes(7) + b"\x40", b"\x40" + bytes(7), b"\xff" * 7 + b"\x7f"),
    ]
)


@st.composite
def overwritten(draw: st.DrawFn) -> Change:
    """Some bytes replaced, within the headers for the most part."""
    places = draw(
        st.lists(
            st.tuples(IN_THE_HEADERS, st.one_of(INTERESTING, st.binary(min_size=1, max_size=8))),
            min_size=1,
            max_size=4,
        )
    )

    def change(data: bytes) -> bytes:
        for offset, new in places:
            at = offset % (len(data) + 1)
            data = (data[:at] + new + data[at + len(new) :])[: len(data)]
        return data

    return change


truncated = st.integers(0, 1 << 20).map(lambda at: lambda data: data[: at % (len(data) + 1)])
removed = st.tuples(IN_THE_HEADERS, st.integers(1, 64)).map(
    lambda place: lambda data: data[: place[0]] + data[sum(place) :]
)
changes = st.lists(st.one_of(overwritten(), overwritten(), truncated, removed), min_size=1, max_size=2)


def read(dump: Dump, address: int, size: int) -> bytes | PageNotStored:
    try:
        return dump.memory.read(address, size)
    except PageNotStored as why:
        return why


def outcome(paths: Sequence[Path]) -> Dump | VmcheckError:
    try:
        return open_dump(paths)
    except VmcheckError as error:
        return error


def survive(directory: Path, parts: Sequence[bytes]) -> None:
    dump = outcome([write(directory / f"vmcore.{part}", data) for part, data in enumerate(parts)])
    if isinstance(dump, VmcheckError):
        assert "\n" not in str(dump)
        return
    with dump:
        header = dump.header
        assert isinstance(header, DumpHeader)
        assert header.cut - header.stored == EMPTY
        assert 0 <= header.expected_size <= 1 << 64
        dict(header.vmcoreinfo)
        places = [start for start, _ in list(header.described)[:20]] + [0, 0x7000, 1 << 40, 1 << 61]
        for address, size in [(place, 8) for place in places] + [(0x1FF8, 16), (0x1000, 0xF000)]:
            answer = read(dump, address, size)
            if isinstance(answer, PageNotStored):
                assert answer.address is not None
                assert address & -header.page_size <= answer.address < address + size
            else:
                assert len(answer) == size


@pytest.mark.parametrize("name", DUMPS)
@settings(max_examples=60, deadline=5000, suppress_health_check=[HealthCheck.too_slow])
@given(changes=changes)
@example(changes=[])
def test_any_change_to_a_dump_is_survived(name: str, changes: list[Change]) -> None:
    first, *others = DUMPS[name]
    for change in changes:
        first = change(first)
    with TemporaryDirectory() as directory:
        survive(Path(directory), [first, *others])


@pytest.mark.parametrize("name", DUMPS)
def test_a_dump_cut_anywhere_is_survived(name: str, tmp_path: Path) -> None:
    first, *others = DUMPS[name]
    for size in [*range(0, 700, 3), *range(700, len(first), 171)]:
        survive(tmp_path, [first[:size], *others])


@settings(max_examples=200, deadline=5000)
@given(st.binary(max_size=300), st.sampled_from([b"", b"\x7fELF", b"KDUMP   ", b"makedumpfile\0\0\0\0"]))
def test_any_bytes_are_a_dump_or_one_line(data: bytes, signature: bytes) -> None:
    with TemporaryDirectory() as directory:
        survive(Path(directory), [signature + data])
