# SPDX-License-Identifier: LGPL-2.1-or-later
"""One dump in every clothing reads back the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.builders import (
    KiB,
    MiB,
    RawNote,
    elf_vmcore,
    encoded,
    flattened,
    kdump_vmcore,
    pages,
    patched,
    prstatus,
    ram,
    split,
    write,
)
from vmcheck.errors import PageNotStored
from vmcheck.facts.header import CpuNote, DumpHeader, Format, Note, Producer, Segment
from vmcheck.facts.ranges import EMPTY, RangeSet
from vmcheck.formats import Dump, open_dump, read_header
from vmcheck.formats.kdump import DISTILLED

LOADS = [
    ram(0x1000, 0x9000, pages("abc")),
    ram(0x9000, 0xA000, pages("d")),
    ram(1 * MiB, 2 * MiB, pages("efghij")),
]
DESCRIBED = RangeSet([(0x1000, 0xA000), (1 * MiB, 2 * MiB)])
STORED = RangeSet([(0x1000, 0x4000), (0x9000, 0xA000), (1 * MiB, 1 * MiB + 0x6000)])
VMCOREINFO = "OSRELEASE=6.1.0-test\nPAGESIZE=4096\n"

MACHINES = [
    pytest.param("x86_64", 64, "little", id="x86_64"),
    pytest.param("i686", 32, "little", id="i686"),
    pytest.param("armv7l", 32, "little", id="armv7l"),
    pytest.param("aarch64", 64, "little", id="aarch64"),
    pytest.param("ppc64", 64, "big", id="ppc64"),
    pytest.param("ppc64le", 64, "little", id="ppc64le"),
    pytest.param("s390x", 64, "big", id="s390x"),
]


def cpu_note(position: int, pid: int, *machine: Any) -> CpuNote:
    return CpuNote(position, pid, prstatus(pid, *machine).descriptor)


def opened(tmp_path: Path, *files: bytes) -> Dump:
    return open_dump([write(tmp_path / f"vmcore.{part}", data) for part, data in enumerate(files)])


def header_of(tmp_path: Path, *files: bytes) -> DumpHeader:
    with opened(tmp_path, *files) as dump:
        return dump.header


def assert_same_content(dump: Dump, *machine: Any) -> None:
    header = dump.header
    assert header.described == DESCRIBED
    assert header.stored == STORED
    assert header.filtered == DESCRIBED - STORED
    assert header.cpu_notes == (cpu_note(0, 7, *machine), cpu_note(1, 8, *machine))
    assert header.vmcoreinfo_notes == (VMCOREINFO.encode(),)
    assert header.note_defects == ()
    assert (header.machine, header.bits, header.byteorder) == machine
    assert header.page_size == 4 * KiB
    assert header.expected_size == header.file_size
    assert not header.incomplete
    assert dump.memory.read(0x1000, 0x3000) == pages("abc")
    assert dump.memory.read(0x9FFE, 2) == b"dd"
    assert dump.memory.read(1 * MiB + 0x1FFF, 0x2002) == b"f" + pages("gh") + b"i"


@pytest.mark.parametrize(("machine", "bits", "byteorder"), MACHINES)
class TestEveryMachine:
    def test_elf(self, tmp_path: Path, machine: str, bits: int, byteorder: str) -> None:
        data = elf_vmcore(LOADS, [7, 8], machine=machine, bits=bits, byteorder=byteorder)
        with opened(tmp_path, data) as dump:
            assert_same_content(dump, machine, bits, byteorder)
            assert dump.header.format is Format.ELF

    @pytest.mark.parametrize("header_version", [4, 5, 6])
    def test_kdump_compressed(
        self, tmp_path: Path, machine: str, bits: int, byteorder: str, header_version: int
    ) -> None:
        data = kdump_vmcore(
            LOADS, [7, 8], machine=machine, bits=bits, byteorder=byteorder, header_version=header_version
        )
        with opened(tmp_path, data) as dump:
            assert_same_content(dump, machine, bits, byteorder)
            assert dump.header.format is Format.KDUMP
            assert dump.header.header_version == header_version
            assert dump.header.dump_level == 31

    def test_flattened_elf(self, tmp_path: Path, machine: str, bits: int, byteorder: str) -> None:
        data = flattened(elf_vmcore(LOADS, [7, 8], machine=machine, bits=bits, byteorder=byteorder))
        with opened(tmp_path, data) as dump:
            assert_same_content(dump, machine, bits, byteorder)
            assert dump.header.flattened

    def test_flattened_kdump(self, tmp_path: Path, machine: str, bits: int, byteorder: str) -> None:
        data = flattened(kdump_vmcore(LOADS, [7, 8], machine=machine, bits=bits, byteorder=byteorder))
        with opened(tmp_path, data) as dump:
            assert_same_content(dump, machine, bits, byteorder)
            assert dump.header.flattened

    @pytest.mark.parametrize("header_version", [4, 6])
    def test_all_split_parts_in_any_order(
        self, tmp_path: Path, machine: str, bits: int, byteorder: str, header_version: int
    ) -> None:
        parts = split(
            3,
            loads=LOADS,
            pids=[7, 8],
            machine=machine,
            bits=bits,
            byteorder=byteorder,
            header_version=header_version,
        )
        with opened(tmp_path, parts[1], parts[2], parts[0]) as dump:
            assert_same_content(dump, machine, bits, byteorder)
            assert dump.header.absent_parts == EMPTY
            assert dump.header.split == ((0, 170), (170, 341), (341, 512))


@pytest.mark.parametrize("compression", ["none", "zlib", "lzo", "snappy", "zstd"])
def test_every_compression_reads_back(tmp_path: Path, compression: str) -> None:
    with opened(tmp_path, kdump_vmcore(LOADS, [7, 8], compression=compression)) as dump:
        assert_same_content(dump, "x86_64", 64, "little")
        assert dump.header.compression == (None if compression == "none" else compression)


def test_a_page_that_does_not_compress_is_stored_as_it_is(tmp_path: Path) -> None:
    noise = bytes((n * n * 7919 >> 5) & 0xFF for n in range(4096))
    with opened(tmp_path, kdump_vmcore([ram(0, 0x1000, noise)], compression="lzo")) as dump:
        assert dump.memory.read(0, 4096) == noise


@pytest.mark.parametrize("page_size", [4 * KiB, 16 * KiB, 64 * KiB])
def test_large_pages(tmp_path: Path, page_size: int) -> None:
    loads = [ram(0, 4 * page_size, pages("xy", page_size))]
    with opened(tmp_path, kdump_vmcore(loads, page_size=page_size)) as dump:
        assert dump.header.page_size == page_size
        assert dump.header.stored == RangeSet([(0, 2 * page_size)])
        assert dump.memory.read(page_size - 1, 2) == b"xy"


@pytest.mark.parametrize(
    ("header_version", "notes", "vmcoreinfo_notes", "dump_level"),
    [(1, (), (), 31), (2, (), (), 31), (3, (), (VMCOREINFO.encode(),), 31)],
)
def test_what_old_header_versions_lack(
    tmp_path: Path,
    header_version: int,
    notes: tuple[Note, ...],
    vmcoreinfo_notes: tuple[bytes, ...],
    dump_level: int,
) -> None:
    header = header_of(tmp_path, kdump_vmcore(LOADS, [7, 8], header_version=header_version))
    assert header.header_version == header_version
    assert header.notes == notes
    assert header.cpu_notes == ()
    assert header.vmcoreinfo_notes == vmcoreinfo_notes
    assert header.dump_level == dump_level
    assert (header.described, header.stored) == (DESCRIBED, STORED)


class TestElf:
    def test_segments_are_kept_as_the_file_has_them(self, tmp_path: Path) -> None:
        header = header_of(
            tmp_path,
            elf_vmcore(
                [
                    ram(0x5000, 0x8000, pages("ab"), p_vaddr=0xFFFFFFFF81000000),
                    ram(0x1000, 0x3000, pages("c")),
                    ram(0x9000, 0xA000),
                ],
                vmcoreinfo=None,
            ),
        )
        assert [*header.segments] == [
            Segment(0x1000, 0xFFFFFFFF81000000, 0x5000, 0x2000, 0x3000),
            Segment(0x3000, 0xFFFF888000001000, 0x1000, 0x1000, 0x2000),
            Segment(0, 0xFFFF888000009000, 0x9000, 0, 0x1000),
        ]

    def test_more_program_headers_than_e_phnum_holds(self, tmp_path: Path) -> None:
        loads = [ram(2 * n * 4096, (2 * n + 1) * 4096) for n in range(70_000)]
        data = elf_vmcore(loads, extended_phnum=True)
        header = header_of(tmp_path, data)
        assert len(header.segments) == len(header.described) == 70_000

    def test_each_note_in_a_pt_note_of_its_own(self, tmp_path: Path) -> None:
        header = header_of(tmp_path, elf_vmcore(LOADS, [7, 8, 9], note_segments=True))
        assert [note.pid for note in header.cpu_notes] == [7, 8, 9]
        assert [note.name for note in header.notes] == ["CORE", "CORE", "CORE", "VMCOREINFO"]

    def test_kernel_text_has_a_second_segment_over_the_same_ram(self, tmp_path: Path) -> None:
        text = ram(0x2000, 0x3000, pages("b"), p_vaddr=0xFFFFFFFF81000000)
        with opened(tmp_path, elf_vmcore([text, ram(0x1000, 0x4000, pages("abc"))])) as dump:
            assert dump.header.described == RangeSet([(0x1000, 0x4000)])
            assert dump.memory.read(0x1000, 0x3000) == pages("abc")
            assert dump.memory.read(0x2FFF, 2) == b"bc"

    def test_a_segment_that_is_not_page_aligned(self, tmp_path: Path) -> None:
        with opened(tmp_path, elf_vmcore([ram(0x1234, 0x1240, b"hello")])) as dump:
            assert dump.header.described == RangeSet([(0x1234, 0x1240)])
            assert dump.header.stored == RangeSet([(0x1234, 0x1239)])
            assert dump.memory.read(0x1234, 5) == b"hello"

    def test_highmem_of_i386_has_no_virtual_address(self, tmp_path: Path) -> None:
        loads = [ram(0x38000000, 0x40000000, p_vaddr=0xFFFFFFFF)]
        header = header_of(tmp_path, elf_vmcore(loads, machine="i686", bits=32))
        assert header.described == RangeSet([(0x38000000, 0x40000000)])

    def test_what_is_only_virtual_in_kcore_is_no_memory(self, tmp_path: Path) -> None:
        data = elf_vmcore([ram(0x1000, 0x2000), ram(0x3000, 0x4000)], vmcoreinfo=None)
        p_paddr = 64 + 56 + 24
        header = header_of(tmp_path, patched(data, p_paddr, b"\xff" * 8))
        assert header.described == RangeSet([(0x3000, 0x4000)])
        assert len(header.segments) == 2

    def test_makedumpfile_ran_out_of_space(self, tmp_path: Path) -> None:
        assert header_of(tmp_path, elf_vmcore(LOADS, e_flags=1)).incomplete

    def test_page_size_without_vmcoreinfo_is_the_machine_s_least(self, tmp_path: Path) -> None:
        header = header_of(tmp_path, elf_vmcore(LOADS, vmcoreinfo=None, machine="aarch64"))
        assert header.page_size == 4 * KiB
        assert header.vmcoreinfo_notes == ()

    def test_page_size_is_the_kernel_s(self, tmp_path: Path) -> None:
        data = elf_vmcore(LOADS, vmcoreinfo="PAGESIZE=65536\n", machine="aarch64")
        assert header_of(tmp_path, data).page_size == 64 * KiB

    def test_notes_of_all_kinds_are_listed(self, tmp_path: Path) -> None:
        extra = [
            RawNote("LINUX", 0x700, bytes(8192)),
            RawNote("ERASEINFO", 0, b"erase x\n"),
            RawNote("Xen", 2, b""),
        ]
        header = header_of(tmp_path, elf_vmcore(LOADS, [7], notes=extra))
        assert header.notes == (
            Note("CORE", 1, 336),
            Note("VMCOREINFO", 0, len(VMCOREINFO)),
            Note("LINUX", 0x700, 8192),
            Note("ERASEINFO", 0, 8),
            Note("Xen", 2, 0),
        )

    def test_two_vmcoreinfos_are_both_kept(self, tmp_path: Path) -> None:
        data = elf_vmcore(LOADS, notes=[RawNote("VMCOREINFO", 0, b"OSRELEASE=other\n")])
        assert header_of(tmp_path, data).vmcoreinfo_notes == (VMCOREINFO.encode(), b"OSRELEASE=other\n")


class TestKdumpCompressed:
    def test_what_the_file_says_of_itself(self, tmp_path: Path) -> None:
        names = ("Linux", "box", "6.1.0", "#1", "", "(none)")
        header = header_of(
            tmp_path, kdump_vmcore(LOADS, utsname=names, timestamp=1_700_000_000, dump_level=17, status=8)
        )
        assert header.utsname == ("Linux", "box", "6.1.0", "#1", "x86_64", "(none)")
        assert header.timestamp == 1_700_000_000
        assert header.dump_level == 17
        assert header.incomplete

    def test_zero_pages_share_one_page_of_data(self, tmp_path: Path) -> None:
        loads = [ram(0, 0x6000, bytes(0x1000) + pages("a") + bytes(0x4000))]
        with opened(tmp_path, kdump_vmcore(loads, dump_level=1)) as dump:
            assert dump.header.stored == RangeSet([(0, 0x6000)])
            assert dump.header.expected_size == dump.header.file_size
            assert dump.memory.read(0, 0x6000) == bytes(0x1000) + pages("a") + bytes(0x4000)

    def test_a_dump_of_nothing_but_zeros(self, tmp_path: Path) -> None:
        header = header_of(tmp_path, kdump_vmcore([ram(0, 0x6000, bytes(0x6000))], dump_level=1))
        assert header.expected_size == header.file_size

    def test_hot_added_memory_is_zeros_for_the_most_part(self, tmp_path: Path) -> None:
        """A data page far before the end, and single ones among the zeros that no probe meets."""
        zeros = bytes(100 * 4096)
        memory = ram(0, 0x1000000, pages("a") + zeros * 5 + pages("b") + zeros * 7 + pages("c") + zeros)
        data = kdump_vmcore([memory], dump_level=31)
        header = header_of(tmp_path, data)
        assert header.expected_size == header.file_size
        assert header.cut == EMPTY
        cut = header_of(tmp_path, data[:-1])
        assert cut.expected_size == header.file_size
        assert cut.cut == RangeSet([(1202 * 4096, 1203 * 4096)])

    def test_eraseinfo_is_listed(self, tmp_path: Path) -> None:
        header = header_of(tmp_path, kdump_vmcore(LOADS, eraseinfo=b"erase secret\n"))
        assert Note("ERASEINFO", 0, 13) in header.notes

    def test_vmcoreinfo_outside_the_notes_that_says_something_else(self, tmp_path: Path) -> None:
        data = kdump_vmcore(LOADS, notes=[RawNote("OTHER", 0, b"OSRELEASE=else")])
        other = data.index(b"OSRELEASE=else")
        data = patched(data, 4096 + 32, other.to_bytes(8, "little") + (14).to_bytes(8, "little"))
        assert header_of(tmp_path, data).vmcoreinfo_notes == (VMCOREINFO.encode(), b"OSRELEASE=else")

    def test_one_split_part_alone_knows_what_the_others_hold(self, tmp_path: Path) -> None:
        parts = split(2, loads=LOADS)
        with opened(tmp_path, parts[0]) as dump:
            header = dump.header
            assert header.described == DESCRIBED
            assert header.split == ((0, 256),)
            assert header.stored == RangeSet([(0x1000, 0x4000), (0x9000, 0xA000)])
            assert header.absent_parts == RangeSet([(1 * MiB, 1 * MiB + 0x6000)])
            assert header.filtered == DESCRIBED - STORED
            with pytest.raises(PageNotStored, match=r"in a part of the split dump that was not given$"):
                dump.memory.read(1 * MiB, 8)

    def test_a_part_without_pages_ends_with_its_last_bit(self, tmp_path: Path) -> None:
        """makedumpfile leaves the rest of the last bitmap's block out where no page follows."""
        data = kdump_vmcore(LOADS, window=(512, 512))
        header = header_of(tmp_path, data[: 0x3000 + 512 // 8])
        assert header.stored == header.cut == EMPTY
        assert header.absent_parts == STORED
        assert header.expected_size == header.file_size

    def test_the_cut_part_shows_among_whole_ones(self, tmp_path: Path) -> None:
        first, second = split(2, loads=LOADS)
        header = header_of(tmp_path, first, second[:-1])
        assert header.expected_size == header.file_size + 1


class TestHypervisor:
    NOTES = (RawNote("QEMU", 0, bytes(440)),)

    def test_elf(self, tmp_path: Path) -> None:
        header = header_of(tmp_path, elf_vmcore(LOADS, [1], vmcoreinfo=None, notes=self.NOTES))
        assert header.producer is Producer.HYPERVISOR

    def test_kdump_zlib(self, tmp_path: Path) -> None:
        data = flattened(kdump_vmcore(LOADS, [1], vmcoreinfo=None, notes=self.NOTES))
        assert header_of(tmp_path, data).producer is Producer.HYPERVISOR

    def test_kdump_is_not_one(self, tmp_path: Path) -> None:
        assert header_of(tmp_path, elf_vmcore(LOADS, [1])).producer is Producer.KDUMP

    @pytest.mark.parametrize(
        ("pids", "notes", "producer"),
        [
            # One note named QEMU among those of kdump is no hypervisor's work.
            ([0, 242], [RawNote("QEMU", 0, bytes(440))], Producer.KDUMP),
            ([1, 2], [RawNote("QEMU", 0, bytes(440))], Producer.KDUMP),
            ([0, 242], [RawNote("QEMU", 0, bytes(440))] * 2, Producer.KDUMP),
            ([1, 2], [RawNote("QEMU", 0, bytes(440))] * 2, Producer.HYPERVISOR),
            ([0], [RawNote("CORE", 3, bytes(136)), RawNote("CORE", 4, bytes(8392))], Producer.KCORE),
            ([0], [RawNote("CORE", 3, bytes(136))], Producer.KDUMP),
            ([0], [RawNote("VMCOREINFO_XEN", 0, b"A=1"), RawNote("Xen", 0x1000001, bytes(80))], Producer.XEN),
            ([0], [RawNote("VMCOREINFO_XEN", 0, b"A=1")], Producer.KDUMP),
        ],
    )
    def test_the_writer_is_known_by_more_than_one_note(
        self, tmp_path: Path, pids: list[int], notes: list[RawNote], producer: Producer
    ) -> None:
        data = elf_vmcore(LOADS, pids, vmcoreinfo="OSRELEASE=6.1\n", notes=notes)
        assert header_of(tmp_path, data).producer is producer


class TestRecording:
    """``vmcheck distill`` copies the extents that were read, and nothing else."""

    def test_a_page_costs_its_descriptor_and_its_data(self, tmp_path: Path) -> None:
        memory = ram(0x1000, 0x201000, pages("a") * 512)
        path = write(tmp_path / "vmcore", kdump_vmcore([memory], [7, 8]))
        with open_dump([path], record=True) as dump:
            before = dump.files[0].extents
            dump.memory.read(0x2000, 8)
            [descriptor, data] = dump.files[0].extents - before
            assert descriptor[1] - descriptor[0] == 24
            assert data[1] - data[0] < 100

    @pytest.mark.parametrize("clothed", [lambda data: data, flattened])
    @pytest.mark.parametrize("build", [elf_vmcore, kdump_vmcore])
    def test_the_extents_alone_make_the_same_dump(self, tmp_path: Path, build: Any, clothed: Any) -> None:
        plain = build(LOADS, [7, 8])
        path = write(tmp_path / "vmcore", clothed(plain))
        with open_dump([path], record=True) as dump:
            dump.memory.read(0x2000, 8)
            sparse = bytearray(dump.files[0].size)
            for start, end in dump.files[0].extents:
                sparse[start:end] = plain[start:end]
        with open_dump([write(tmp_path / "distilled", bytes(sparse))]) as distilled:
            assert distilled.header.stored == STORED
            assert distilled.header.cpu_notes == (cpu_note(0, 7), cpu_note(1, 8))
            assert distilled.memory.read(0x2000, 8) == b"b" * 8

    def test_a_page_that_was_not_copied_says_so(self, tmp_path: Path) -> None:
        data = kdump_vmcore([ram(0x1000, 0x2000, pages("a"))], compression="none")
        descriptor = len(data) - 0x1000 - 24
        distilled = patched(patched(data, descriptor, bytes(24)), 4095 - len(DISTILLED), DISTILLED)
        with (
            opened(tmp_path, distilled) as dump,
            pytest.raises(PageNotStored, match=r"^physical address 0x1000: not kept by distill$"),
        ):
            dump.memory.read(0x1000, 8)


def test_builder_notes_are_what_the_kernel_writes() -> None:
    """append_elf_note(): n_namesz counts the NUL, name and descriptor padded to 4 bytes."""
    assert encoded([RawNote("CORE", 1, b"abcde")]) == (
        b"\x05\0\0\0\x05\0\0\0\x01\0\0\0" + b"CORE\0\0\0\0" + b"abcde\0\0\0"
    )


def test_read_header_is_the_header_of_the_dump(tmp_path: Path) -> None:
    path = write(tmp_path / "vmcore", elf_vmcore(LOADS, [7]))
    with open_dump([path]) as dump:
        assert read_header([path]) == dump.header
