# SPDX-License-Identifier: LGPL-2.1-or-later
"""Our headers beside other programs': readelf, makedumpfile, QEMU, and drgn's libkdumpfile.

makedumpfile dresses built dumps at dump levels 0 and 1 without any debuginfo. The real dumps of
tests/dumps.py take part too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.builders import MiB, elf_vmcore, pages, ram, write
from tests.dumps import every_real_dump
from vmcheck.facts.header import Format, Producer, Segment
from vmcheck.facts.ranges import EMPTY, RangeSet
from vmcheck.formats import Dump, open_dump, read_header

CONTENTS = bytes(0x1000) + pages("xyz") * 10
LOADS = [
    ram(0x1000, 0x9000, pages("abcdefgh")),
    ram(1 * MiB, 3 * MiB, CONTENTS + bytes(2 * MiB - len(CONTENTS))),
]
DESCRIBED = RangeSet([(0x1000, 0x9000), (1 * MiB, 3 * MiB)])
NOT_ZERO = RangeSet([(0x1000, 0x9000), (1 * MiB + 0x1000, 1 * MiB + 0x1000 * 31)])


def run(tool: str, *arguments: str | Path, stdin: bytes = b"") -> bytes:
    if not shutil.which(tool):
        pytest.skip(f"no {tool} here")
    command = [tool, *map(str, arguments)]
    environment = {**os.environ, "LC_ALL": "C"}
    return subprocess.run(command, check=True, capture_output=True, env=environment, input=stdin).stdout


class TestReadelf:
    """``readelf -lW`` and ``-nW``."""

    @pytest.mark.parametrize(
        ("machine", "bits", "byteorder"),
        [("x86_64", 64, "little"), ("s390x", 64, "big"), ("i686", 32, "little"), ("ppc64", 32, "big")],
    )
    @pytest.mark.parametrize("extended_phnum", [False, True])
    def test_program_headers(
        self, tmp_path: Path, machine: str, bits: int, byteorder: str, extended_phnum: bool
    ) -> None:
        data = elf_vmcore(
            LOADS, [3], machine=machine, bits=bits, byteorder=byteorder, extended_phnum=extended_phnum
        )
        self.assert_same_segments(write(tmp_path / "vmcore", data))

    def test_a_hundred_thousand_program_headers(self, tmp_path: Path) -> None:
        loads = [ram(2 * n * 4096, (2 * n + 1) * 4096) for n in range(100_000)]
        self.assert_same_segments(write(tmp_path / "vmcore", elf_vmcore(loads, extended_phnum=True)))

    def test_notes(self, tmp_path: Path) -> None:
        path = write(tmp_path / "vmcore", elf_vmcore(LOADS, [3, 4], note_segments=True))
        listed = re.findall(rb"^  (\w+) +(0x[0-9a-f]+)\t", run("readelf", "-nW", path), re.MULTILINE)
        ours = [(note.name, note.descsz) for note in read_header([path]).notes]
        assert [(name.decode(), int(size, 16)) for name, size in listed] == ours

    def assert_same_segments(self, path: Path) -> None:
        number = rb" +(0x[0-9a-f]+)"
        lines = re.findall(rb"^  LOAD" + number * 5, run("readelf", "-lW", path), re.MULTILINE)
        theirs = [Segment(*(int(field, 16) for field in line)) for line in lines]
        assert theirs == list(read_header([path]).segments)
        assert theirs


class TestMakedumpfile:
    """A built dump dressed by makedumpfile reads back as the dump."""

    def dressed(self, tmp_path: Path, *options: str) -> Dump:
        run("makedumpfile", *options, self.built(tmp_path), tmp_path / "dressed")
        return open_dump([tmp_path / "dressed"])

    def flattened(self, tmp_path: Path, *options: str) -> Dump:
        stream = run("makedumpfile", "-F", *options, self.built(tmp_path))
        return open_dump([write(tmp_path / "flattened", stream)])

    def built(self, tmp_path: Path) -> Path:
        # With a VMCOREINFO makedumpfile would ask it for a kernel that is not there.
        return write(tmp_path / "built", elf_vmcore(LOADS, [3, 4], vmcoreinfo=None))

    def assert_same(self, tmp_path: Path, dump: Dump, stored: RangeSet = DESCRIBED) -> None:
        with dump, open_dump([self.built(tmp_path)]) as built:
            assert dump.header.described == DESCRIBED
            assert dump.header.stored == stored
            assert dump.header.cut == dump.header.absent_parts == EMPTY
            assert dump.header.cpu_notes == built.header.cpu_notes
            assert dump.header.expected_size == dump.header.file_size
            for start, end in stored:
                assert dump.memory.read(start, end - start) == built.memory.read(start, end - start)

    # Debian 12's makedumpfile has neither snappy nor zstd: test_fresh_headers.py has zstd, by sid's.
    @pytest.mark.parametrize(("option", "compression"), [("-c", "zlib"), ("-l", "lzo")])
    @pytest.mark.parametrize("level", ["0", "1"])
    def test_kdump_compressed(self, tmp_path: Path, option: str, compression: str, level: str) -> None:
        dump = self.dressed(tmp_path, option, "-d", level)
        assert dump.header.dump_level == int(level)
        assert dump.header.compression == compression
        self.assert_same(tmp_path, dump)

    def test_elf(self, tmp_path: Path) -> None:
        self.assert_same(tmp_path, self.dressed(tmp_path, "-E", "-d", "0"))

    def test_elf_without_zero_pages(self, tmp_path: Path) -> None:
        """p_filesz < p_memsz: the zero pages are described and not stored."""
        dump = self.dressed(tmp_path, "-E", "-d", "1")
        assert dump.header.stored & NOT_ZERO == NOT_ZERO
        assert dump.header.filtered.size > 1 * MiB
        self.assert_same(tmp_path, dump, dump.header.stored)

    def test_flattened_elf(self, tmp_path: Path) -> None:
        dump = self.flattened(tmp_path, "-E", "-d", "0")
        assert dump.header.flattened
        self.assert_same(tmp_path, dump)

    def test_flattened_kdump_compressed(self, tmp_path: Path) -> None:
        dump = self.flattened(tmp_path, "-c", "-d", "1")
        assert dump.header.flattened
        self.assert_same(tmp_path, dump)

    def test_flattened_and_rearranged_are_the_same_bytes(self, tmp_path: Path) -> None:
        stream = run("makedumpfile", "-F", "-c", "-d", "1", self.built(tmp_path))
        path = write(tmp_path / "flattened", stream)
        run("makedumpfile", "-R", tmp_path / "rearranged", stdin=stream)
        with open_dump([path]) as dump:
            [ours] = dump.files
            assert ours.read(0, ours.size) == (tmp_path / "rearranged").read_bytes()

    def test_split(self, tmp_path: Path) -> None:
        parts = [tmp_path / "part1", tmp_path / "part2", tmp_path / "part3"]
        run("makedumpfile", "--split", "-c", "-d", "0", self.built(tmp_path), *parts)
        self.assert_same(tmp_path, open_dump(parts[::-1]))
        for part in parts:
            alone = read_header([part])
            assert alone.stored | alone.absent_parts == DESCRIBED
            assert alone.stored & alone.absent_parts == EMPTY
            assert alone.cut == EMPTY


@pytest.fixture(scope="module")
def qemu_dumps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("qemu")
    found = {form: folder / form for form in ("elf", "kdump-zlib")}
    commands: list[dict[str, object]] = [{"execute": "qmp_capabilities"}]
    for form, path in found.items():
        arguments = {"paging": False, "protocol": f"file:{path}", "format": form}
        commands.append({"execute": "dump-guest-memory", "arguments": arguments})
    commands.append({"execute": "quit"})
    machine = ["-m", "32", "-smp", "2", "-accel", "tcg", "-S", "-nodefaults", "-display", "none"]
    run(
        "qemu-system-x86_64",
        *machine,
        "-qmp",
        "stdio",
        stdin="\n".join(map(json.dumps, commands)).encode(),
    )
    return found


class TestQemu:
    """dump-guest-memory of a machine that has not run an instruction yet."""

    RAM = RangeSet([(0, 32 * MiB)])
    BIOS = 0xFFFC0000

    def test_is_recognised(self, qemu_dumps: dict[str, Path]) -> None:
        headers = {form: read_header([path]) for form, path in qemu_dumps.items()}
        assert {header.producer for header in headers.values()} == {Producer.HYPERVISOR}
        assert [headers[form].format for form in qemu_dumps] == [Format.ELF, Format.KDUMP]
        assert headers["kdump-zlib"].flattened

    def test_both_forms_hold_the_same_memory(self, qemu_dumps: dict[str, Path]) -> None:
        with open_dump([qemu_dumps["elf"]]) as elf, open_dump([qemu_dumps["kdump-zlib"]]) as kdump:
            assert elf.header.described == kdump.header.described == elf.header.stored == kdump.header.stored
            assert elf.header.described & self.RAM == self.RAM
            assert elf.header.cut == kdump.header.cut == EMPTY
            bios = elf.memory.read(self.BIOS, 0x40000)
            assert any(bios)
            assert kdump.memory.read(self.BIOS, 0x40000) == bios
            assert [note.pid for note in kdump.header.cpu_notes] == [
                note.pid for note in elf.header.cpu_notes
            ]
            assert len(elf.header.cpu_notes) == 2


@every_real_dump
class TestRealDumps:
    SAMPLES = 200
    KEEP = ("-d", "0")

    def samples(self, dump: Dump) -> Sequence[int]:
        """Pages from all over the dump."""
        starts = [start for start, _ in dump.header.stored]
        ends = [end - dump.header.page_size for _, end in dump.header.stored]
        every = [*starts, *ends]
        return every[:: max(1, len(every) // self.SAMPLES)]

    @pytest.mark.parametrize("options", [["-c"], ["-l"]])
    def test_compressed_again_by_makedumpfile(self, tmp_path: Path, real: Path, options: list[str]) -> None:
        run("makedumpfile", *options, *self.KEEP, real, tmp_path / "again")
        self.assert_same(real, [tmp_path / "again"])

    def test_flattened_by_makedumpfile(self, tmp_path: Path, real: Path) -> None:
        write(tmp_path / "flattened", run("makedumpfile", "-F", "-c", *self.KEEP, real))
        self.assert_same(real, [tmp_path / "flattened"])

    def test_split_by_makedumpfile(self, tmp_path: Path, real: Path) -> None:
        parts = [tmp_path / "part1", tmp_path / "part2"]
        run("makedumpfile", "--split", "-c", *self.KEEP, real, *parts)
        self.assert_same(real, parts)

    def test_pages_are_those_that_libkdumpfile_reads(self, real: Path) -> None:
        drgn = pytest.importorskip("drgn")
        program = drgn.Program()
        program.set_core_dump(real)
        with open_dump([real]) as dump:
            for address in self.samples(dump):
                theirs = program.read(address, dump.header.page_size, physical=True)
                assert dump.memory.read(address, dump.header.page_size) == theirs

    def assert_same(self, real: Path, others: Sequence[Path]) -> None:
        with open_dump([real]) as dump, open_dump(others) as other:
            assert other.header.described == dump.header.described
            # makedumpfile filters at the level of its input at the least, and may know a few pages better.
            assert other.header.stored - dump.header.stored == EMPTY
            assert other.header.stored.size > 0.99 * dump.header.stored.size
            assert other.header.cpu_notes == dump.header.cpu_notes
            assert other.header.vmcoreinfo_notes == dump.header.vmcoreinfo_notes
            assert other.header.utsname == dump.header.utsname
            assert other.header.cut == other.header.absent_parts == EMPTY
            for address in self.samples(other):
                size = dump.header.page_size
                assert other.memory.read(address, size) == dump.memory.read(address, size)
