# SPDX-License-Identifier: LGPL-2.1-or-later
"""Any change to a kernel's memory, or to the file it is in: a report or one line, and nothing else.

Where a kernel is read it is read apart, as a check does it, so that a crash of drgn, a
hang or greed fails a test here and does not end the tests.
"""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.capture import Capture, captures
from tests.fuzz.readers import Corrupted, machine_with_everything
from tests.kernels import PAGE_OFFSET, Machine, words
from vmcheck.check import Report, check
from vmcheck.errors import VmcheckError
from vmcheck.facts.case import Case
from vmcheck.facts.header import DumpHeader
from vmcheck.formats import Dump, open_dump
from vmcheck.operations import examine
from vmcheck.operations.examine import read_kernel
from vmcheck.operations.isolation import run_isolated
from vmcheck.report import terminal
from vmcheck.report.document import to_json

SECONDS = 30.0
SPACE = 4 << 30
SLOW = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]

Edit = tuple[int, bytes]


def sound(report: Report) -> int:
    """Whether every renderer can show the report: the size of its JSON."""
    assert "\x1b" not in terminal.render(report, 100)
    return len(to_json(report))


# Kernels laid out by hand.

MACHINE = machine_with_everything()
INTERESTING = [
    *(0, 1, 2, 3, 2**64 - 1, 2**63, 2**32, 2**31 - 1, 0x7FFFFFFFFFFFFFFF, PAGE_OFFSET, 0xFFFFFFFF80000000),
    *(0x2003, 0x83, 0x80000083, 0x8000000000000083),
]


@st.composite
def word_edits(draw: st.DrawFn) -> list[Edit]:
    """Words of the machine's memory put to odd values, or to the address of another word."""
    last = len(MACHINE.memory) // 8 - 1
    places = st.integers(0x1000 // 8, last).map(lambda word: 8 * word)
    used = [n for n in range(0, len(MACHINE.memory), 8) if any(MACHINE.memory[n : n + 8])]
    values = st.one_of(
        st.sampled_from(INTERESTING),
        places.map(lambda place: place + PAGE_OFFSET),
        places.map(lambda place: place + PAGE_OFFSET + 2),
        st.integers(0, 2**64 - 1),
    )
    edits = st.tuples(st.one_of(st.sampled_from(used), places), values)
    return [(place, words(value)) for place, value in draw(st.lists(edits, min_size=1, max_size=6))]


@pytest.fixture(scope="module")
def machine_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[DumpHeader, str]:
    directory = tmp_path_factory.mktemp("machine")
    header, symbols = MACHINE.header(directory), MACHINE.symbol_file(directory)
    # Once here, so that not every child has to import what is imported late.
    assert sound(check(Case(header, read_kernel(header, MACHINE, symbols)))) > 100
    return header, symbols


@settings(max_examples=40, deadline=None, suppress_health_check=SLOW)
@given(edits=word_edits(), lost=st.sets(st.integers(1, len(MACHINE.memory) // 4096), max_size=2))
def test_any_change_to_a_small_kernels_memory_is_survived(
    edits: list[Edit], lost: set[int], machine_files: tuple[DumpHeader, str]
) -> None:
    header, symbols = machine_files
    changed = Machine()
    changed.memory = bytearray(MACHINE.memory)
    changed.lost = lost
    for place, data in edits:
        changed.memory[place : place + len(data)] = data

    def work() -> int:
        return sound(check(Case(header, read_kernel(header, changed, symbols))))

    assert run_isolated(work, SECONDS, SPACE) > 100


@settings(max_examples=25, deadline=None, suppress_health_check=SLOW)
@given(
    edits=st.lists(
        st.tuples(
            st.integers(0, 1 << 16), st.one_of(st.binary(min_size=1, max_size=4), st.just(b"\xff" * 4))
        ),
        min_size=1,
        max_size=6,
    )
)
def test_any_change_to_a_kernels_types_is_survived(
    edits: list[Edit], machine_files: tuple[DumpHeader, str], tmp_path: Path
) -> None:
    header, _ = machine_files
    changed = Machine()
    types = bytearray(MACHINE.types.section())
    for place, data in edits:
        at = place % (len(types) - 4)
        types[at : at + len(data)] = data
    changed.memory, changed.symbols, changed.btf = MACHINE.memory, MACHINE.symbols, bytes(types)
    symbols = changed.symbol_file(tmp_path)

    def work() -> int:
        return sound(check(Case(header, read_kernel(header, changed, symbols))))

    assert run_isolated(work, SECONDS, SPACE) > 100


# Real kernels.

REAL = [
    capture
    for capture in captures()
    if capture.name
    in (
        "5.10.0-46-amd64/mem-and-cpu-added",
        "6.1.0-56-amd64/memory-and-cpu-added",
        "7.2.13+deb14-amd64/memory-and-cpu-added",
    )
]
every_capture = pytest.mark.parametrize("capture", REAL, ids=lambda capture: capture.name.split("-")[0])


@cache
def opened(capture: Capture) -> tuple[Dump, list[tuple[int, int]]]:
    """The dump, and every read that a check of it does."""
    dump = open_dump([capture.vmcore])
    memory = Corrupted(dump.memory, {})
    assert sound(check(Case(dump.header, read_kernel(dump.header, memory, capture.symbols)))) > 100
    return dump, sorted(set(memory.reads))


def test_the_captures_that_are_corrupted_are_there() -> None:
    assert len(REAL) == 3


def test_a_corrupted_memory_has_the_new_bytes_and_the_old_ones() -> None:
    dump, reads = opened(REAL[0])
    address = next(address for address, size in reads if size == 8)
    old = dump.memory.read(address, 8)
    memory = Corrupted(dump.memory, {address + 6: b"abcd", address - 1: b"xy"})
    assert memory.read(address, 8) == b"y" + old[1:6] + b"ab"
    assert memory.read(address + 8, 1) == b"c"


@every_capture
@settings(max_examples=6, deadline=None, suppress_health_check=SLOW)
@given(data=st.data())
def test_any_change_to_a_real_kernels_memory_is_survived(capture: Capture, data: st.DataObject) -> None:
    dump, reads = opened(capture)
    place = st.sampled_from(reads).flatmap(
        lambda read: st.integers(0, read[1] - 1).map(lambda offset: (read[0] + offset) & ~7)
    )
    odd = st.one_of(
        st.sampled_from(INTERESTING).map(words),
        st.binary(min_size=1, max_size=16),
        # What stands elsewhere: pointers to the wrong structure, and loops.
        place.map(lambda address: dump.memory.read(address, 8)),
    )
    edits = data.draw(st.dictionaries(place, odd, min_size=1, max_size=8))

    def work() -> int:
        topology = read_kernel(dump.header, Corrupted(dump.memory, edits), capture.symbols)
        return sound(check(Case(dump.header, topology)))

    assert run_isolated(work, SECONDS, SPACE) > 100


@settings(max_examples=8, deadline=None, suppress_health_check=SLOW)
@given(
    edits=st.lists(
        st.tuples(
            st.one_of(st.integers(0, 1 << 13), st.integers(0, 1 << 20)),
            st.one_of(st.binary(min_size=1, max_size=8), st.just(struct.pack(">q", -1)), st.just(bytes(8))),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_any_change_to_a_distilled_file_is_survived(edits: list[Edit]) -> None:
    capture = REAL[1]
    assert capture.symbols
    stream = bytearray(capture.vmcore.read_bytes())
    for place, data in edits:
        at = place % (len(stream) - len(data))
        stream[at : at + len(data)] = data
    with TemporaryDirectory() as directory:
        path = Path(directory) / "vmcore"
        path.write_bytes(stream)
        try:
            report = examine.examine([str(path)], capture.symbols)
        except VmcheckError as error:
            told = str(error)
        else:
            told = f"{sound(report)} bytes"
    assert told
    assert "\n" not in told
