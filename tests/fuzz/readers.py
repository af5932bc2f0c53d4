# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every reader of something that a stranger may have made. Whatever it is given: an answer, or one line."""

from __future__ import annotations

import copy
import io
import json
import random
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from fixtures.capture import Capture, captures
from tests import reports
from tests.builders import RawNote, elf_vmcore, flattened, kdump_vmcore, pages, ram, split
from tests.fuzz.mutations import NUMBERS, changed, changed_json, changed_text
from tests.kernels import EARLY, HAS_MEM_MAP, ONLINE, PAGE_OFFSET, PRESENT, Machine, healthy, note, words
from vmcheck.check import Report, check
from vmcheck.facts.case import Case
from vmcheck.facts.topology import nothing_known
from vmcheck.formats import Memory, open_dump
from vmcheck.operations.examine import read_kernel
from vmcheck.records.comparison import hear
from vmcheck.records.snapshot import Snapshot, parse
from vmcheck.records.snapshot import to_json as record_to_json
from vmcheck.records.sysfs import sysfs_topology
from vmcheck.records.witnesses import compare, read_witness
from vmcheck.report import terminal
from vmcheck.report.difference import differences
from vmcheck.report.document import to_json
from vmcheck.report.markdown import markdown
from vmcheck.report.page import page


class Reader:
    """One reader and what it is given. ``operations`` are the integers that a case is made of."""

    name: str
    weight = 1
    """How often it is chosen."""

    def input(self, operations: Sequence[int]) -> bytes:
        """What the reader gets, to be filed."""
        raise NotImplementedError

    def read(self, operations: Sequence[int], folder: Path) -> None:
        """Read it as a command does, and show the answer. May raise VmcheckError."""
        raise NotImplementedError


def show(report: Report, all_forms: bool = False) -> None:
    assert "\x1b" not in terminal.render(report, 100, True)
    to_json(report)
    if all_forms:
        page(report)
        markdown(report)


LOADS = [ram(0x1000, 0x4000, pages("ab")), ram(0x8000, 0x10000, pages("cd") + bytes(4096))]
NOTES = [RawNote("QEMU", 0, bytes(8)), RawNote("LINUX", 0x700, bytes(16))]
FILES: dict[str, Sequence[bytes]] = {
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


class Headers(Reader):
    """A dump's headers, notes, VMCOREINFO, bitmaps, page_desc table and page data."""

    weight = 12

    def __init__(self, kind: str) -> None:
        self.name = f"headers of {kind}"
        self._first, *self._others = FILES[kind]
        used = [at for at in range(0, len(self._first), 8) if any(self._first[at : at + 8])]
        self._places = [(at, 8) for at in used]

    def input(self, operations: Sequence[int]) -> bytes:
        return changed(self._first, self._places, operations)

    def read(self, operations: Sequence[int], folder: Path) -> None:
        paths = []
        for number, data in enumerate([self.input(operations), *self._others]):
            (path := folder / f"vmcore.{number}").write_bytes(data)
            paths.append(path)
        with open_dump(paths) as dump:
            for start, _ in list(dump.header.described)[:8]:
                try:
                    dump.memory.read(start, 16)
                except LookupError:
                    continue
                except Exception as error:
                    if type(error).__name__ != "PageNotStored":
                        raise
            body = dump.memory.body()
            report = check(Case(dump.header, nothing_known(dump.header, "not asked"), body))
            # Rendering takes longer than reading.
            if operations[0] % 4 == 0:
                show(report)


class Vmcoreinfo(Reader):
    """A kernel behind a VMCOREINFO whose lines are changed."""

    name = "VMCOREINFO"
    weight = 2

    def input(self, operations: Sequence[int]) -> bytes:
        return changed_text(MACHINE.text(), operations).encode("utf-8", "surrogateescape")

    def read(self, operations: Sequence[int], folder: Path) -> None:
        text = changed_text(MACHINE.text(), operations)
        loads = [ram(0, len(MACHINE.memory), bytes(MACHINE.memory)), ram(1 << 24, 1 << 30)]
        (folder / "vmcore").write_bytes(elf_vmcore(loads, [1, 2], vmcoreinfo=text))
        with open_dump([folder / "vmcore"]) as dump:
            topology = read_kernel(dump.header, dump.memory, _symbols(folder, MACHINE))
            show(check(Case(dump.header, topology, dump.memory.body())))


def machine_with_everything() -> Machine:
    """With a hot-added section that no header describes, and a CPU that no note is of."""
    sections = {n: PRESENT | HAS_MEM_MAP | ONLINE | EARLY for n in range(8)}
    machine = healthy(ram=sections | {32: PRESENT | HAS_MEM_MAP | ONLINE})
    machine.place(words(0b111), "__cpu_online_mask")
    offset = machine.word(machine.symbols["__per_cpu_offset"] + 16)
    machine.put((machine.word(machine.symbols["crash_notes"]) + offset) % 2**64, note(2))
    machine.place(words(machine.place(words(1, 0, 100, 0x1000, 4096) + bytes(512))), "kexec_crash_image")
    return machine


MACHINE = machine_with_everything()
WORDS = [*NUMBERS, PAGE_OFFSET, 0xFFFFFFFF80000000, 0x2003, 0x83, 0x8000000000000083]


def _symbols(folder: Path, machine: Machine) -> str:
    path = folder / "kernel.symbols"
    return str(path) if path.exists() else machine.symbol_file(folder)


class SmallKernel(Reader):
    """A small kernel's memory: words put to odd values, or to the address of another word."""

    name = "memory of a small kernel"
    weight = 4

    def input(self, operations: Sequence[int]) -> bytes:
        memory = bytearray(MACHINE.memory)
        used = [at for at in range(0, len(memory), 8) if any(memory[at : at + 8])]
        for operation in operations:
            dice = random.Random(operation)
            at = dice.choice(used)
            other = dice.choice(used)
            new = dice.choice([dice.choice(WORDS), PAGE_OFFSET + other, PAGE_OFFSET + other + 2])
            memory[at : at + 8] = words(new)
        return bytes(memory)

    def read(self, operations: Sequence[int], folder: Path) -> None:
        changed_machine = Machine()
        changed_machine.memory = bytearray(self.input(operations))
        header = MACHINE.header(folder)
        topology = read_kernel(header, changed_machine, _symbols(folder, MACHINE))
        show(check(Case(header, topology)))


class Types(Reader):
    """The BTF of a small kernel."""

    name = "BTF"
    weight = 2

    def input(self, operations: Sequence[int]) -> bytes:
        return changed(MACHINE.types.section(), [], operations)

    def read(self, operations: Sequence[int], folder: Path) -> None:
        machine = Machine()
        machine.memory, machine.symbols = MACHINE.memory, MACHINE.symbols
        machine.btf = self.input(operations)
        header = MACHINE.header(folder)
        show(check(Case(header, read_kernel(header, MACHINE, machine.symbol_file(folder)))))


class SymbolFile(Reader):
    """A symbol file: its archive's bytes, or the lines of its symbols."""

    name = "symbol file"

    @cached_property
    def _whole(self) -> bytes:
        from tempfile import TemporaryDirectory

        with TemporaryDirectory() as folder:
            return Path(MACHINE.symbol_file(Path(folder))).read_bytes()

    def input(self, operations: Sequence[int]) -> bytes:
        if operations[0] % 2:
            return changed(self._whole, [], operations)
        made = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(self._whole)) as old, zipfile.ZipFile(made, "w") as new:
            for name in old.namelist():
                text = old.read(name)
                if name == "symbols":
                    text = changed_text(text.decode(), operations).encode("utf-8", "replace")
                new.writestr(name, text)
        return made.getvalue()

    def read(self, operations: Sequence[int], folder: Path) -> None:
        (folder / "kernel.symbols").write_bytes(self.input(operations))
        header = MACHINE.header(folder)
        show(check(Case(header, read_kernel(header, MACHINE, str(folder / "kernel.symbols")))))


class Corrupted:
    """A dump's memory with other bytes at some physical addresses. It remembers what is read."""

    def __init__(self, memory: Memory, edits: Mapping[int, bytes]) -> None:
        self._memory = memory
        self._edits = edits
        self.reads: set[tuple[int, int]] = set()

    def read(self, address: int, size: int) -> bytes:
        data = bytearray(self._memory.read(address, size))
        self.reads.add((address, size))
        for place, new in self._edits.items():
            if address - len(new) < place < address + size:
                begin = max(place - address, 0)
                piece = new[max(address - place, 0) : address + size - place]
                data[begin : begin + len(piece)] = piece
        return bytes(data)


class RealKernel(Reader):
    """The memory of a real capture, at the places that a check reads: its kallsyms, BTF and structures."""

    weight = 8

    def __init__(self, capture: Capture) -> None:
        self.name = f"memory of {capture.name}"
        self._capture = capture

    @cached_property
    def _opened(self) -> tuple[Any, list[tuple[int, int]]]:
        dump = open_dump([self._capture.vmcore])
        memory = Corrupted(dump.memory, {})
        show(check(Case(dump.header, read_kernel(dump.header, memory, self._capture.symbols))))
        return dump, sorted(memory.reads)

    def _edits(self, operations: Sequence[int]) -> dict[int, bytes]:
        dump, reads = self._opened
        edits = {}
        for operation in operations:
            dice = random.Random(operation)
            address, size = dice.choice(reads)
            place = address + dice.randrange(size) & ~7
            kind = dice.randrange(6)
            if kind < 2:
                edits[place] = words(dice.choice(WORDS))
            elif kind == 2:
                edits[place] = dice.randbytes(dice.randrange(1, 17))
            elif kind == 3:
                edits[address & ~0xFFF] = bytes(4096)
            elif kind == 4:
                old = bytearray(dump.memory.read(address, size))
                old[dice.randrange(size)] ^= 1 << dice.randrange(8)
                edits[address] = bytes(old)
            else:
                other, _ = dice.choice(reads)
                edits[place] = dump.memory.read(other, 8)
        return edits

    def input(self, operations: Sequence[int]) -> bytes:
        edits = {f"{place:#x}": data.hex() for place, data in self._edits(operations).items()}
        return json.dumps({"capture": self._capture.name, "edits": edits}, indent=1).encode()

    def read(self, operations: Sequence[int], folder: Path) -> None:
        dump, _ = self._opened
        memory = Corrupted(dump.memory, self._edits(operations))
        topology = read_kernel(dump.header, memory, self._capture.symbols)
        show(check(Case(dump.header, topology, dump.memory.body())), all_forms=operations[0] % 16 == 0)


class Record(Reader):
    """A record of ``vmcheck record``, heard beside a dump."""

    name = "record"
    weight = 2

    @cached_property
    def _document(self) -> Any:
        made = Snapshot(1, "host", None, reports.ADDED.topology, reports.ADDED.header.described)
        return json.loads(record_to_json(made))

    def input(self, operations: Sequence[int]) -> bytes:
        if operations[0] % 4 == 0:
            return changed(json.dumps(self._document).encode(), [], operations)
        return json.dumps(changed_json(self._document, operations)).encode("utf-8", "surrogatepass")

    def read(self, operations: Sequence[int], folder: Path) -> None:
        snapshot = parse(self.input(operations), "topology.json")
        topology, compared = hear(reports.WHOLE.header, reports.WHOLE.topology, snapshot, "topology.json")
        show(check(Case(reports.WHOLE.header, topology), [compared]))


class Expected(Reader):
    """The stored report of ``vmcheck expect``."""

    name = "expected report"

    @cached_property
    def _document(self) -> Any:
        return json.loads(to_json(reports.ADDED))

    def input(self, operations: Sequence[int]) -> bytes:
        return json.dumps(changed_json(self._document, operations)).encode("utf-8", "surrogatepass")

    def read(self, operations: Sequence[int], folder: Path) -> None:
        differences(changed_json(self._document, operations), copy.deepcopy(self._document))


LOG = "\n".join(
    f"[{seconds:5d}.{seconds:06d}] {text}"
    for seconds, text in enumerate(
        [
            "Linux version 6.1.0-56-amd64 (debian-kernel@lists.debian.org)",
            "Command line: console=ttyS0 crashkernel=192M elfcorehdr=0x16000000",
            "BIOS-provided physical RAM map:",
            "setting system clock to 2026-11-23T21:31:50 UTC (1795469510)",
            "smpboot: CPU 2 is up",
            "Built 1 zonelists, mobility grouping on. Total pages: 129024",
            "sysrq: Trigger a crash",
        ]
    )
)


class Log(Reader):
    """A kernel log beside the dump."""

    name = "log"

    def input(self, operations: Sequence[int]) -> bytes:
        return changed_text(LOG, operations).encode("utf-8", "surrogateescape")

    def read(self, operations: Sequence[int], folder: Path) -> None:
        case = Case(reports.ADDED.header, reports.ADDED.topology)
        for name in ("vmcore-dmesg.txt", "kexec-dmesg.log"):
            (folder / name).write_bytes(self.input(operations))
            compare(case, read_witness(str(folder / name)))


IOMEM = "\n".join(
    [
        "00001000-0009fbff : System RAM",
        "00100000-3fffffff : System RAM",
        "  16000000-21ffffff : Crash kernel",
        "100000000-107ffffff : System RAM (kmem)",
    ]
)


class Sos(Reader):
    """A sos report: its archive's bytes, or the files in it."""

    name = "sos report"

    def input(self, operations: Sequence[int]) -> bytes:
        files = {
            "proc/iomem": changed_text(IOMEM, operations),
            "proc/cmdline": changed_text("ro crashkernel=192M", operations),
            "sys/devices/system/cpu/present": changed_text("0-3", operations),
            "sys/devices/system/cpu/online": changed_text("0-1,3", operations),
            "uname": changed_text("Linux host 6.1.0-56-amd64 #1 SMP", operations),
        }
        made = io.BytesIO()
        forms = ("w", "w:gz", "w:xz", "w:bz2")
        with tarfile.open(fileobj=made, mode=forms[operations[0] // 4 % 4]) as archive:  # type: ignore[call-overload]
            for name, text in files.items():
                data = text.encode("utf-8", "surrogateescape")
                member = tarfile.TarInfo(f"sosreport/{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return made.getvalue() if operations[0] % 2 else changed(made.getvalue(), [(0, 512)], operations)

    def read(self, operations: Sequence[int], folder: Path) -> None:
        (folder / "sosreport-x.tar").write_bytes(self.input(operations))
        case = Case(reports.ADDED.header, reports.ADDED.topology)
        compare(case, read_witness(str(folder / "sosreport-x.tar")))


class Tree(Reader):
    """/proc and /sys as they were collected."""

    name = "collected tree"

    def input(self, operations: Sequence[int]) -> bytes:
        return json.dumps(self._files(operations), indent=1).encode("utf-8", "surrogateescape")

    def _files(self, operations: Sequence[int]) -> dict[str, str]:
        whole = {
            "proc/iomem": IOMEM,
            "proc/cpuinfo": "flags\t\t: fpu",
            "sys/devices/system/memory/block_size_bytes": "8000000",
            "sys/devices/system/memory/memory0/state": "online",
            "sys/devices/system/memory/memory32/state": "offline",
            "sys/devices/system/cpu/present": "0-3",
            "sys/devices/system/cpu/online": "0-1,3",
            "sys/kernel/kexec_crash_size": "201326592",
            "sys/kernel/kexec_crash_loaded": "1",
        }
        return {name: changed_text(text, operations) for name, text in whole.items()}

    def read(self, operations: Sequence[int], folder: Path) -> None:
        for name, text in self._files(operations).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(text.encode("utf-8", "surrogateescape"))
        record_to_json(Snapshot(1, "host", None, sysfs_topology(folder), None))


REAL = ("5.10.0-46-amd64/mem-and-cpu-added", "6.1.0-56-amd64/memory-and-cpu-added")


NEWEST = "7.2.13+deb14-amd64/memory-and-cpu-added"


def readers() -> list[Reader]:
    real = [RealKernel(capture) for capture in captures() if capture.name.startswith(REAL)]
    newest = next(capture for capture in captures() if capture.name == NEWEST)
    return [
        *(Headers(kind) for kind in FILES),
        *real,
        RealKernel(newest),
        Vmcoreinfo(),
        SmallKernel(),
        Types(),
        SymbolFile(),
        Record(),
        Expected(),
        Log(),
        Sos(),
        Tree(),
    ]
