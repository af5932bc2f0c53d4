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
from vmcheck.expected import map_notes
from vmcheck.header import DumpHeader, Segment
from vmcheck.ranges import RangeSet

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
        cpu_of = map_notes(fresh.header, fresh.topology).cpu_of
        assert cpu_of == {0: 0, 1: 1, 2: 3}
        assert told["notes"][2] == fresh.header.cpu_notes[2].descriptor.hex()


def in_bytes(pages: list[tuple[int, int]]) -> RangeSet:
    return RangeSet((start * PAGE, end * PAGE) for start, end in pages)
