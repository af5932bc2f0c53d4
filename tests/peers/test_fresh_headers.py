# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fresh captures as readelf and libkdumpfile read them, raw and compressed by makedumpfile.

libkdumpfile is sid's, through its own Python bindings (pykdumpfile) and sid's own Python.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.peers.fresh import LOST, MIDDLE, REMOVED, UPDATED, WHOLE, Captures, Wanted
from tests.peers.programs import bounded, here, of_suite, root_of, version_of
from vmcheck.facts.case import Case
from vmcheck.facts.header import DumpHeader, Segment
from vmcheck.facts.ranges import EMPTY, RangeSet
from vmcheck.formats import open_dump

pytestmark = pytest.mark.lab

PAGE = 4096

PYKDUMPFILE = """
import json, sys
import kdumpfile
from kdumpfile.exceptions import NoDataError
context = kdumpfile.Context()
context.open(sys.argv[1])
def pages(bitmap):
    found, at = [], 0
    while True:
        try:
            start = bitmap.find_set(at)
        except NoDataError:
            return found
        at = bitmap.find_clear(start)
        found.append((start, at))
attributes = context.attr
print(json.dumps({
    "memory": pages(attributes["memory.pagemap"]),
    "stored": pages(attributes["file.pagemap"]),
    "max_pfn": attributes["max_pfn"],
    "notes": [
        attributes[f"cpu.{n}.PRSTATUS"].get().hex() for n in range(attributes["cpu.number"])
    ],
    "release": attributes["linux.uts.release"],
}))
"""


@pytest.fixture(params=[WHOLE, LOST, MIDDLE, UPDATED, REMOVED], ids=str)
def wanted(request: pytest.FixtureRequest) -> Wanted:
    found: Wanted = request.param
    return found


class TestReadelf:
    def test_segments(self, captures: Captures, wanted: Wanted) -> None:
        _, said = bounded([*here("readelf"), "-lW", str(captures[wanted].vmcore)], seconds=30)
        lines = re.findall(r"^  LOAD" + r" +(0x[0-9a-f]+)" * 5, said, re.MULTILINE)
        assert lines
        theirs = [Segment(*(int(field, 16) for field in line)) for line in lines]
        assert theirs == list(captures[wanted].header.segments)

    def test_notes(self, captures: Captures, wanted: Wanted) -> None:
        _, said = bounded([*here("readelf"), "-nW", str(captures[wanted].vmcore)], seconds=30)
        lines = re.findall(r"^  (\w+) +(0x[0-9a-f]+)\t", said, re.MULTILINE)
        assert lines
        ours = [(note.name, note.descsz) for note in captures[wanted].header.notes]
        assert [(name, int(size, 16)) for name, size in lines] == ours


@dataclass(frozen=True)
class Dump:
    path: Path
    header: DumpHeader

    def by_libkdumpfile(self) -> dict[str, Any]:
        home = root_of("sid", "python3-libkdumpfile") / "usr"
        command = [*of_suite("sid", "python3-libkdumpfile", "python3"), "-c", PYKDUMPFILE, str(self.path)]
        environment = {"PYTHONHOME": str(home), "PYTHONPATH": str(home / "lib/python3/dist-packages")}
        status, said = bounded(command, seconds=60, environment=environment)
        assert status == 0, said
        found: dict[str, Any] = json.loads(said)
        return found


class TestLibkdumpfile:
    @pytest.fixture(params=["raw", "compressed"])
    def dump(self, request: pytest.FixtureRequest, captures: Captures, wanted: Wanted) -> Dump:
        if request.param == "raw":
            return Dump(captures[wanted].vmcore, captures[wanted].header)
        command = of_suite("sid", "makedumpfile", "makedumpfile")
        dressed = captures.dressed(wanted, command, version_of(command, r"version (\S+)", "-v"))
        return Dump(dressed.path, dressed.report.header)

    def test_it_has_the_same_pages_and_notes(self, dump: Dump) -> None:
        told = dump.by_libkdumpfile()
        header = dump.header
        assert in_bytes(told["memory"]) == header.described.aligned_outward(PAGE)
        assert in_bytes(told["stored"]) == header.stored.aligned_outward(PAGE)
        assert told["max_pfn"] * PAGE == header.described.end
        assert told["notes"] == [note.descriptor.hex() for note in header.cpu_notes]

    def test_it_numbers_cpus_by_their_notes(self, captures: Captures) -> None:
        """Known disagreement: cpu.N is the N-th note. Without symbols it cannot know better."""
        fresh = captures[MIDDLE]
        told = Dump(fresh.vmcore, fresh.header).by_libkdumpfile()
        cpu_of = Case(fresh.header, fresh.topology).notes.cpu_of
        assert cpu_of == {0: 0, 1: 1, 2: 3}
        assert told["notes"][2] == fresh.header.cpu_notes[2].descriptor.hex()


def in_bytes(pages: list[tuple[int, int]]) -> RangeSet:
    return RangeSet((start * PAGE, end * PAGE) for start, end in pages)


def test_a_real_proc_vmcore_dressed_by_makedumpfile(captures: Captures, tmp_path: Path) -> None:
    """-E keeps runs of up to 255 pages that -c leaves out, if not told to drop zeros (-d 1)."""
    path = captures[LOST].vmcore
    for option in ("-E", "-c"):
        command = [*here("makedumpfile"), option, "-d", "30", str(path), str(tmp_path / option)]
        assert bounded(command, seconds=120)[0] == 0
    with open_dump([path]) as raw, open_dump([tmp_path / "-E"]) as elf, open_dump([tmp_path / "-c"]) as kdump:
        page_size = raw.header.page_size
        assert elf.header.described.aligned_outward(page_size) == raw.header.described.aligned_outward(
            page_size
        )
        # Whether a segment's last, partial page is described depends on how makedumpfile walks.
        assert raw.header.described.aligned_inward(page_size) - kdump.header.described == EMPTY
        assert kdump.header.described - raw.header.described.aligned_outward(page_size) == EMPTY
        assert kdump.header.stored - elf.header.stored == EMPTY
        assert elf.header.cpu_notes == kdump.header.cpu_notes == raw.header.cpu_notes
        assert elf.header.vmcoreinfo_notes == kdump.header.vmcoreinfo_notes == raw.header.vmcoreinfo_notes
        inside = raw.header.stored.aligned_inward(page_size) & kdump.header.stored
        assert inside
        for start, _ in list(inside)[:200]:
            page = raw.memory.read(start, page_size)
            assert elf.memory.read(start, page_size) == kdump.memory.read(start, page_size) == page


@pytest.mark.parametrize(("option", "compression"), [("-z", "zstd")])
def test_a_compression_that_debian_12_lacks_by_sid_s_makedumpfile(
    captures: Captures, tmp_path: Path, option: str, compression: str
) -> None:
    path = captures[LOST].vmcore
    command = [*of_suite("sid", "makedumpfile", "makedumpfile"), option, "-d", "31", str(path)]
    assert bounded([*command, str(tmp_path / "dump")], seconds=120)[0] == 0
    with open_dump([path]) as raw, open_dump([tmp_path / "dump"]) as kdump:
        assert kdump.header.compression == compression
        assert kdump.header.cpu_notes == raw.header.cpu_notes
        whole = (raw.header.stored & kdump.header.stored).aligned_inward(PAGE)
        for start, _ in list(whole)[:200]:
            assert kdump.memory.read(start, PAGE) == raw.memory.read(start, PAGE)
