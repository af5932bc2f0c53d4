# SPDX-License-Identifier: LGPL-2.1-or-later
"""Dumps of a known truth, damaged as disks and people do it: which are called COMPLETE or explained wrongly?

A dump is damaged in one of its parts. What was taken from it is worked out here from the bytes, without
vmcheck's own reader of the page_desc table. Damage to page data alone is counted apart: only unpacking every
page finds all of it. So is a second bitmap whose bits moved and are as many as before: then each page_desc is
right and is another page's, and nothing in the file says so.
"""

from __future__ import annotations

import os
import random
import struct
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from fixtures.capture import captures
from tests.builders import GiB, MiB, kdump_vmcore, ram
from tests.dumps import name, real_dumps
from tests.fuzz.campaign import Answer
from tests.fuzz.readers import machine_with_everything
from tests.kernels import Machine, healthy
from vmcheck.check import Report, Verdict
from vmcheck.errors import VmcheckError
from vmcheck.facts.diagnosis import Cause, Certainty, Conclusion
from vmcheck.facts.header import Format
from vmcheck.formats import Dump, open_dump
from vmcheck.formats.file import DumpFile
from vmcheck.operations.examine import examine

DAMAGE_EXPLAINS = {
    Cause.DAMAGED_DUMP,
    Cause.INTERRUPTED_CAPTURE,
    Cause.FILE_CUT_SHORT,
    Cause.PART_NOT_GIVEN,
    Cause.CAPTURE_OUT_OF_SPACE,
    Cause.STILL_BEING_WRITTEN,
    Cause.UNKNOWN,
}
"""Causes that are true of a damaged dump, whatever it was before."""

CAPTURED = ("fresh", "whole", "mem-added", "cpu-added", "memory-and-cpu-added", "mem-and-cpu-added")
"""Scenarios whose captures are damaged."""

PAGE_DESC = struct.Struct("<QIIQ")


@dataclass(frozen=True)
class Layout:
    """Where the parts of a kdump-compressed file are, read here and not by vmcheck."""

    block: int
    bitmap: int
    """Offset of the first bitmap; the second one follows."""
    bitmap_size: int
    """Of each."""
    table: int
    data: int

    @classmethod
    def of(cls, file: bytes | bytearray) -> Layout:
        """Of a 64-bit little-endian file (struct disk_dump_header in makedumpfile's diskdump_mod.h)."""
        # 8 of signature, 4 of version, 390 of utsname, padding to 8, a timeval of 16, status.
        _, block, sub_blocks, bitmap_blocks = struct.unpack_from("<IIII", file, 424)
        bitmap = (1 + sub_blocks) * block
        table = bitmap + bitmap_blocks * block
        second = np.frombuffer(file, np.uint8, bitmap_blocks * block // 2, table - bitmap_blocks * block // 2)
        pages = int(np.unpackbits(second).sum())
        return cls(block, bitmap, bitmap_blocks * block // 2, table, table + pages * PAGE_DESC.size)

    def parts(self, end: int) -> dict[str, tuple[int, int]]:
        """[start, end) of each."""
        return {
            "header": (0, self.block),
            "notes": (self.block, self.bitmap),
            "first bitmap": (self.bitmap, self.bitmap + self.bitmap_size),
            "second bitmap": (self.bitmap + self.bitmap_size, self.table),
            "page table": (self.table, self.data),
            "page data": (self.data, end),
        }


class Damaged:
    """One dump, and every way to damage it."""

    def __init__(self, name: str, dump: Dump, symbols: str | None, distilled: bool) -> None:
        source = dump.files[0]
        self.name = name
        self._symbols = symbols
        self._size = source.size
        self._pieces = _pieces(source) + (list(dump.memory.mark().items()) if distilled else [])
        self._head = b""
        whole = bytearray(source.size)
        for offset, data in self._pieces:
            whole[offset : offset + len(data)] = data
        self._layout = Layout.of(whole)
        self._head = bytes(whole[: self._layout.data])
        parts = self._layout.parts(source.size)
        if distilled:
            # It has no table of its own to lose: distill leaves out what a check does not read.
            del parts["page table"]
        self._parts = parts
        self._distilled = distilled
        self._report: Report | None = None
        self._holds = np.concatenate(
            [np.arange(offset // 512, -(-(offset + len(data)) // 512)) for offset, data in self._pieces]
        )
        """512-byte sectors that hold something."""

    def _write(self, path: Path, edits: Sequence[tuple[int, bytes]], size: int) -> None:
        with path.open("wb") as file:
            for offset, data in [*self._pieces, *edits]:
                os.pwrite(file.fileno(), data, offset)
            file.truncate(size)

    def before(self, folder: Path) -> Report:
        """The report of the dump as it was."""
        if self._report is None:
            self._write(folder / "before", [], self._size)
            self._report = examine([str(folder / "before")], self._symbols)
        return self._report

    def attempt(self, made_of: Sequence[int], folder: Path) -> Answer:
        try:
            return self._attempt(made_of, folder)
        except Exception:
            return Answer("traceback", traceback.format_exc())

    def _attempt(self, made_of: Sequence[int], folder: Path) -> Answer:
        before = self.before(folder)
        dice = random.Random(made_of[0])
        part = dice.choice([*self._parts, "cut"])
        edits, size = self._damage(part, made_of)
        if size == self._size and all(self._bytes(at, len(data)) == data for at, data in edits):
            return Answer("unchanged")
        path = folder / "vmcore"
        self._write(path, edits, size)
        try:
            report = examine([str(path)], self._symbols)
        except VmcheckError:
            return Answer("refused", "", (f"{part}: unreadable",))
        return self._judged(part, before, report, path, [*edits])

    def _damage(self, part: str, made_of: Sequence[int]) -> tuple[list[tuple[int, bytes]], int]:
        """Bytes that are written over the dump, and its size then."""
        if part == "cut":
            dice = random.Random(made_of[0] + 1)
            data = self._layout.data
            return [], dice.choice((dice.randrange(1, self._size), dice.randrange(data, self._size)))
        start, end = self._parts[part]
        held = self._holds[(self._holds * 512 >= start) & (self._holds * 512 < end)]
        if not len(held):
            return [], self._size
        edits: list[tuple[int, bytes]] = []
        for operation in made_of[:3]:
            dice = random.Random(operation + 2)
            at = max(start, int(dice.choice(held)) * 512)
            kind = dice.randrange(7)
            if kind < 2:
                place = min(at + dice.randrange(512), end - 1)
                edits.append((place, bytes([self._bytes(place, 1)[0] ^ 1 << dice.randrange(8)])))
            elif kind < 4:
                length = dice.choice((512, 4096, 4096))
                edits.append((at, bytes(min(length, end - at))))
            elif kind == 4:
                # A torn write: what comes after was never written.
                length = dice.choice((4096, 65536, end - at))
                edits.append((at, bytes(min(length, end - at))))
            elif kind == 5 and part == "page table":
                first, second = (
                    start + (max(start, int(dice.choice(held)) * 512) - start) // 24 * 24 for _ in range(2)
                )
                edits += [(first, self._bytes(second, 24)), (second, self._bytes(first, 24))]
            else:
                other = max(start, int(dice.choice(held)) * 512)
                length = min(dice.choice((512, 4096)), end - at, end - other)
                edits += [(at, self._bytes(other, length)), (other, self._bytes(at, length))]
        return edits, self._size

    def _bytes(self, offset: int, size: int) -> bytes:
        found = bytearray(size)
        for start, data in self._pieces:
            first, last = max(start, offset), min(start + len(data), offset + size)
            if first < last:
                found[first - offset : last - offset] = data[first - start : last - start]
        return bytes(found)

    def _judged(
        self, part: str, before: Report, report: Report, path: Path, edits: Sequence[tuple[int, bytes]]
    ) -> Answer:
        whole = before.verdict is Verdict.COMPLETE
        counts = [f"{'whole' if whole else 'stale'}, {part}: {report.verdict.value}"]
        taken = self._taken(part, before, report, path)
        if part == "page data" and taken is None:
            counts.append(f"page data alone: {'not ' if not report.broken else ''}seen by a plain check")
        if report.verdict is Verdict.COMPLETE and part == "second bitmap":
            counts.append("second bitmap with as many bits: complete")
        if report.verdict is Verdict.COMPLETE:
            if not whole:
                return Answer(
                    "false-complete", f"{self.name}: {part}: it was not complete before", tuple(counts)
                )
            if taken:
                return Answer("false-complete", f"{self.name}: {part}: {taken}", tuple(counts))
        allowed = DAMAGE_EXPLAINS | {cause.name for cause in _certain(before)}
        untrue = [cause for cause in _certain(report) if cause.name not in allowed]
        if untrue:
            text = "; ".join(f"{cause.name}: {cause.text}" for cause in untrue)
            return Answer("untrue-certain", f"{self.name}: {part}: {text}", tuple(counts))
        if part in ("page table", "page data", "cut") and not report.broken:
            lost = report.lost_memory - before.lost_memory
            cpus = set(report.lost_cpus) - set(before.lost_cpus)
            if lost or cpus:
                detail = f"{self.name}: {part}: {lost} and CPUs {sorted(cpus)} are not missing"
                return Answer("untrue-finding", detail, tuple(counts))
        return Answer("answered", "", tuple(counts))

    def _taken(self, part: str, before: Report, report: Report, path: Path) -> str | None:
        """What the damage took from the dump, as far as its structure shows; None where nothing."""
        if gone := before.header.described - report.header.described:
            return f"{gone.size:#x} bytes are no longer described"
        if len(report.header.cpu_notes) < len(before.header.cpu_notes):
            return "a register note is gone"
        if path.stat().st_size < self._size:
            return "the file was cut"
        with path.open("rb") as file:
            head = file.read(self._layout.data)
        second = slice(self._layout.bitmap + self._layout.bitmap_size, self._layout.table)
        if _bits(head[second]) != _bits(self._head[second]):
            return "the second bitmap has another number of pages"
        if self._distilled:
            return None
        return _unwritten(_table(head, self._layout), _table(self._head, self._layout), self._size)


def _bits(bitmap: bytes) -> int:
    return int(np.unpackbits(np.frombuffer(bitmap, np.uint8)).sum())


def _unwritten(now: npt.NDArray[np.uint8], then: npt.NDArray[np.uint8], size: int) -> str | None:
    """Which page_descs lead nowhere now. One that leads to other bytes of the file is damage to page data."""
    fields = np.dtype([("offset", "<u8"), ("size", "<u4"), ("flags", "<u4"), ("page_flags", "<u8")])
    new, old = now.view(fields), then.view(fields)
    changed = (new["offset"] != old["offset"]) | (new["size"] != old["size"])
    nowhere = (
        (new["size"] == 0) | (new["size"] > 1 << 16) | (new["offset"] > size - np.minimum(new["size"], size))
    )
    count = int((changed & nowhere).sum())
    return f"{count} page_descs lead nowhere" if count else None


def _table(head: bytes, layout: Layout) -> npt.NDArray[np.uint8]:
    count = (layout.data - layout.table) // PAGE_DESC.size
    return np.frombuffer(head, np.uint8, count * PAGE_DESC.size, layout.table)


def _certain(report: Report) -> list[Conclusion]:
    causes = report.diagnosis.causes if report.diagnosis else ()
    return [cause for cause in causes if cause.certainty is Certainty.CERTAIN]


def _pieces(file: DumpFile) -> list[tuple[int, bytes]]:
    """What is not a hole, MiB by MiB."""
    found = []
    at = 0
    while (start := file.next_data(at)) < file.size:
        length = min(1 << 16, file.size - start)
        data = file.read(start, length)
        if any(data):
            found.append((start, data))
        at = start + length
    return found


_KEPT = TemporaryDirectory(prefix="vmcheck-fuzz-symbols-")
"""Files that the cases share."""


def damaged() -> list[Damaged]:
    """The captures, kernels laid out by hand as whole files, and real whole dumps where there are any."""
    found = []
    for capture in captures():
        if capture.folder.name not in CAPTURED:
            continue
        with open_dump([capture.vmcore]) as dump:
            if dump.header.format is Format.KDUMP:
                found.append(Damaged(capture.name, dump, capture.symbols, True))
    for title, machine in {"small whole": healthy(), "small stale": machine_with_everything()}.items():
        folder = Path(_KEPT.name, title.replace(" ", "-"))
        folder.mkdir()
        (folder / "vmcore").write_bytes(_file(machine))
        with open_dump([folder / "vmcore"]) as dump:
            found.append(Damaged(title, dump, machine.symbol_file(folder), False))
    for path in real_dumps():
        with open_dump([path]) as dump:
            if dump.header.format is Format.KDUMP:
                found.append(Damaged(f"real {name(path)}", dump, None, False))
    return found


def _file(machine: Machine) -> bytes:
    """A compressed dump of 1 GiB: the machine's own pages, and 2,000 more that a check does not need."""
    dice = random.Random(7)
    data = b"".join(dice.randbytes(64) * 64 for _ in range(2000))
    memory = bytes(machine.memory)
    loads = [
        ram(0, 512 * MiB, memory),
        ram(512 * MiB, GiB, data),
    ]
    return kdump_vmcore(loads, [100, 101], machine.text())
