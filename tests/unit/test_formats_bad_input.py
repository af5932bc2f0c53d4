# SPDX-License-Identifier: LGPL-2.1-or-later
"""What each kind of bad file gets: one clear line, or a dump with what is left of it."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from tests.builders import (
    KiB,
    RawNote,
    TiB,
    elf_vmcore,
    flattened,
    kdump_vmcore,
    pages,
    patched,
    ram,
    split,
    write,
)
from vmcheck.errors import PageNotStored, UnreadableFile, UnsupportedFormat, VmcheckError
from vmcheck.facts.header import DumpHeader
from vmcheck.facts.ranges import EMPTY, RangeSet
from vmcheck.formats import open_dump, read_header

LOADS = [ram(0x1000, 0x4000, pages("abc")), ram(0x10000, 0x20000, pages("de"))]
STORED = RangeSet([(0x1000, 0x4000), (0x10000, 0x12000)])
ELF = elf_vmcore(LOADS, [1, 2])
KDUMP = kdump_vmcore(LOADS, [1, 2], compression="none")
FIRST_LOAD = 64 + 56
FIRST_NOTE = ELF.index(b"CORE") - 12
SUB_HEADER = 4096

SAVE_IT = "a dump is read at many offsets: save it to a file first, then give that file"


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def line(kind: type[VmcheckError], *files: bytes | str) -> str:
    """The one line that these files get. Bytes are written to ``vmcore``, ``vmcore.1``..."""
    paths = []
    for position, file in enumerate(files):
        name = f"vmcore.{position}" if position else "vmcore"
        paths.append(file if isinstance(file, str) else str(write(Path(name), file)))
    with pytest.raises(VmcheckError) as caught:
        read_header(paths)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


def unreadable(*files: bytes | str) -> str:
    return line(UnreadableFile, *files)


def unsupported(*files: bytes | str) -> str:
    return line(UnsupportedFormat, *files)


def header_of(*files: bytes) -> DumpHeader:
    return read_header([write(Path(f"vmcore.{position}"), data) for position, data in enumerate(files)])


def u64(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)


class TestFilesThatCannotBeRead:
    def test_missing(self) -> None:
        assert unreadable("vmcore") == "vmcore: No such file or directory"

    def test_directory(self) -> None:
        Path("127.0.0.1-2026-01-01").mkdir()
        assert unreadable("127.0.0.1-2026-01-01") == (
            "127.0.0.1-2026-01-01: a directory: give the vmcore file inside it"
        )

    def test_empty(self) -> None:
        assert unreadable(b"") == "vmcore: the file is empty (0 bytes): the dump was never written"

    def test_standard_input(self) -> None:
        assert unreadable("-") == f"standard input cannot be a dump: {SAVE_IT}"

    def test_fifo_without_a_writer(self) -> None:
        os.mkfifo("fifo")
        assert unreadable("fifo") == f"fifo: a pipe, and {SAVE_IT}"

    def test_pipe_on_standard_input(self) -> None:
        read_end, write_end = os.pipe()
        try:
            assert unreadable(f"/dev/fd/{read_end}") == f"/dev/fd/{read_end}: a pipe, and {SAVE_IT}"
        finally:
            os.close(read_end)
            os.close(write_end)

    def test_character_device(self) -> None:
        assert unreadable("/dev/null") == f"/dev/null: a character device, and {SAVE_IT}"

    def test_no_permission(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o755)
        write(Path("vmcore"), ELF).chmod(0)
        user = os.geteuid()
        if user == 0:
            # root may read every file.
            os.seteuid(65534)
        try:
            assert unreadable("vmcore") == "vmcore: Permission denied"
        finally:
            os.seteuid(user)

    def test_a_name_with_control_characters_does_not_reach_the_terminal(self) -> None:
        assert unreadable("a\nb\x1b[2J") == "a\\nb\\x1b[2J: No such file or directory"

    def test_a_name_with_nul(self) -> None:
        assert unreadable("a\0b") == "a\\x00b: not a file name"


class TestOtherFiles:
    def test_text(self) -> None:
        assert unsupported(b"# My notes\non the crash\n" * 300) == (
            "vmcore: a text file, not a dump; it begins with: # My notes"
        )

    def test_text_in_another_script(self) -> None:
        assert (
            unsupported("日誌\n".encode() * 3000) == "vmcore: a text file, not a dump; it begins with: 日誌"
        )

    def test_zeros(self) -> None:
        assert unsupported(bytes(8192)) == "vmcore: only zeros at its start: the dump was never written"

    def test_unknown(self) -> None:
        assert unsupported(bytes(range(250, 256)) * 100) == (
            "vmcore: not a dump that vmcheck knows: begins with "
            "fa fb fc fd fe ff fa fb fc fd fe ff fa fb fc fd"
        )

    def test_one_byte(self) -> None:
        assert unsupported(b"\xff") == "vmcore: not a dump that vmcheck knows: begins with ff"

    @pytest.mark.parametrize(
        ("signature", "what"),
        [
            (b"\x1f\x8b\x08", "gzip-compressed file: unpack it first with `gzip -d`"),
            (b"\x28\xb5\x2f\xfd", "zstd-compressed file: unpack it first with `zstd -d`"),
            (b"\xfd7zXZ\0", "xz-compressed file: unpack it first with `xz -d`"),
            (b"BZh91AY", "bzip2-compressed file: unpack it first with `bzip2 -d`"),
            (b"\x04\x22\x4d\x18", "lz4-compressed file: unpack it first with `lz4 -d`"),
            (bytes(257) + b"ustar\0", "a tar archive: unpack it first with `tar -xf`"),
            (struct.pack("<Q", 0xA8190173618F23ED), "an LKCD dump, which vmcheck cannot read"),
            (struct.pack(">Q", 0xA8190173618F23ED), "an LKCD dump, which vmcheck cannot read"),
            (b"sadump\0\0", "a sadump file, which vmcheck cannot read; makedumpfile converts it"),
            (
                b"\x80" * 4096 + struct.pack("<II", 0x75646173, 0x706D),
                "a sadump file, which vmcheck cannot read; makedumpfile converts it",
            ),
            (
                struct.pack("<I", 0xBED2BED2),
                "a VMware snapshot, which vmcheck cannot read; vmss2core converts it",
            ),
            (b"EMiL", "a LiME image, which vmcheck cannot read: it has no registers and no VMCOREINFO"),
            (b"AVML", "an AVML image, which vmcheck cannot read: it has no registers and no VMCOREINFO"),
            (b"PAGEDU64DU64", "a Windows crash dump"),
            (b"DISKDUMP", "a diskdump of Linux 2.4, which vmcheck cannot read"),
            (b"LibvirtQemudSave", "a saved virtual machine: dump it with `virsh dump --memory-only`"),
            (bytes(0x202) + b"HdrS", "a kernel image, not a dump"),
        ],
    )
    def test_named_by_signature(self, signature: bytes, what: str) -> None:
        assert unsupported(signature + bytes(range(256)) * 20) == f"vmcore: {what}"

    def test_vmlinux(self) -> None:
        assert unsupported(elf_vmcore(LOADS, e_type=2)) == (
            "vmcore: a kernel image or a program (ET_EXEC), not a dump; a vmlinux is given with -s"
        )

    def test_module(self) -> None:
        assert unsupported(elf_vmcore(LOADS, e_type=1)) == (
            "vmcore: an ELF file of type ET_REL, not a core (ET_CORE)"
        )

    def test_a_process_s_core(self) -> None:
        auxv, file = RawNote("CORE", 6, bytes(320)), RawNote("CORE", 0x46494C45, bytes(48))
        assert unsupported(elf_vmcore(LOADS, [1], vmcoreinfo=None, notes=[auxv, file])) == (
            "vmcore: a process's core dump, not a kernel's: open it with gdb"
        )

    def test_xen_dump_core(self) -> None:
        names = b"\0.note.Xen\0.xen_prstatus\0"
        section = bytes(24) + u64(len(ELF) + 64, len(names)) + bytes(24)
        data = patched(ELF + section + names, 40, u64(len(ELF)))
        data = patched(data, 58, struct.pack("<HHH", 64, 1, 0))
        assert unsupported(data) == "vmcore: a Xen guest's dump-core, which vmcheck cannot read"

    def test_files_that_do_not_belong_together(self) -> None:
        assert (
            unreadable(ELF, ELF) == "vmcore.1: only parts of a split kdump-compressed dump are read together"
        )
        assert unreadable(KDUMP, KDUMP) == "vmcore: given with others, and not a part of a split dump"

    def test_parts_of_two_dumps(self) -> None:
        other = split(2, loads=LOADS, timestamp=5)[1]
        assert (
            unreadable(split(2, loads=LOADS)[0], other)
            == "vmcore.1: not a part of the same dump as vmcore: tv_sec is 0x5, not 0x0"
        )


class TestElfThatLies:
    def test_class(self) -> None:
        assert unreadable(patched(ELF, 4, b"\7")) == (
            "vmcore: EI_CLASS is 7 and EI_DATA 1; each can only be 1 or 2"
        )

    def test_cut_in_the_elf_header(self) -> None:
        assert unreadable(ELF[:40]) == "vmcore: the ELF header has 64 bytes, and the file 40"

    def test_cut_in_the_signature(self) -> None:
        assert unreadable(ELF[:4]) == "vmcore: EI_CLASS is 0 and EI_DATA 0; each can only be 1 or 2"

    def test_cut_in_the_program_headers(self) -> None:
        assert unreadable(ELF[:150]) == (
            "vmcore: the 3 program headers at 0x40 end at 0xe8, past the end of the file (0x96)"
        )

    def test_no_program_headers(self) -> None:
        assert unreadable(patched(ELF, 56, b"\0\0")) == (
            "vmcore: e_phnum is 0: the core has no program headers, so no memory"
        )

    def test_too_many_program_headers(self) -> None:
        assert unreadable(patched(ELF, 56, b"\xfe\xff")) == (
            "vmcore: the 65534 program headers at 0x40 end at 0x37ffd0, past the end of the file (0x6000)"
        )

    def test_program_headers_of_another_size(self) -> None:
        assert unreadable(patched(ELF, 54, b"\x20\0")) == (
            "vmcore: e_phentsize is 32, and an ELF64 program header has 56 bytes"
        )

    def test_extended_phnum_without_a_section_header(self) -> None:
        assert unreadable(patched(ELF, 56, b"\xff\xff")) == (
            "vmcore: e_phnum is PN_XNUM, and section header 0 that would hold the number of program headers "
            "is at e_shoff 0x0 of a file of 0x6000 bytes"
        )

    def test_extended_phnum_of_four_billion_in_a_sparse_file(self) -> None:
        """The table would lie in the file, as holes: 240 GB of them."""
        data = elf_vmcore(LOADS, extended_phnum=True)
        path = write(Path("vmcore"), patched(data, 64 + 3 * 56 + 44, b"\xff" * 4))
        os.truncate(path, 1 * TiB)
        assert unreadable("vmcore") == ("vmcore: 4294967295 program headers, more than any dump's (1048576)")

    def test_offset_that_no_file_has(self) -> None:
        assert unreadable(patched(ELF, FIRST_LOAD + 8, u64(2**64 - 1))) == (
            "vmcore: PT_LOAD 0 has p_offset 0xffffffffffffffff; no file and no machine's memory is that large"
        )

    def test_address_that_wraps(self) -> None:
        assert unreadable(patched(ELF, FIRST_LOAD + 24, u64(2**64 - 4096))) == (
            "vmcore: PT_LOAD 0 has p_paddr 0xfffffffffffff000 and p_memsz 0x3000; "
            "physical addresses are below 0x4000000000000000"
        )

    def test_address_beyond_any_machine(self) -> None:
        assert unreadable(patched(ELF, FIRST_LOAD + 24, u64(2**62 - 4096))) == (
            "vmcore: PT_LOAD 0 has p_paddr 0x3ffffffffffff000 and p_memsz 0x3000; "
            "physical addresses are below 0x4000000000000000"
        )

    def test_offset_past_the_end_is_a_truncated_dump(self) -> None:
        header = header_of(patched(ELF, FIRST_LOAD + 8, u64(1 * TiB)))
        assert header.expected_size == 1 * TiB + 0x3000
        assert header.stored == STORED
        assert header.cut == RangeSet([(0x1000, 0x4000)])

    def test_more_bytes_in_the_file_than_in_memory(self) -> None:
        header = header_of(patched(ELF, FIRST_LOAD + 40, u64(0x1000)))
        assert header.stored == RangeSet([(0x1000, 0x2000), (0x10000, 0x12000)])

    def test_cut_in_the_data(self) -> None:
        with open_dump([write(Path("vmcore"), ELF[:-1])]) as dump:
            assert dump.header.expected_size == dump.header.file_size + 1
            assert dump.header.cut == RangeSet([(0x11FFF, 0x12000)])
            assert dump.memory.read(0x11000, 0xFFF) == b"e" * 0xFFF
            with pytest.raises(PageNotStored) as caught:
                dump.memory.read(0x11000, 0x1000)
            assert str(caught.value) == "physical address 0x11fff: past the end of the truncated file"
            assert caught.value.address == 0x11FFF


class TestNotesThatLie:
    @pytest.mark.parametrize(
        ("offset", "new", "defect"),
        [
            (0, b"\xff\xff\xff\xff", "has n_namesz 0xffffffff, more than any note's (256)"),
            (4, b"\xff\xff\xff\x7f", "has n_namesz 0x5 and n_descsz 0x7fffffff, and ends past 0x42c"),
        ],
    )
    def test_sizes(self, offset: int, new: bytes, defect: str) -> None:
        header = header_of(patched(ELF, FIRST_NOTE + offset, new))
        assert header.note_defects == (f"PT_NOTE: the note at {FIRST_NOTE:#x} {defect}",)
        assert header.notes == ()

    def test_prstatus_too_small_for_a_pid(self) -> None:
        header = header_of(elf_vmcore(LOADS, notes=[RawNote("CORE", 1, bytes(16))]))
        assert header.note_defects == (
            "NT_PRSTATUS 0 has n_descsz 0x10; struct elf_prstatus has 0x24 to 0x1000 bytes",
        )
        assert header.cpu_notes == ()

    def test_vmcoreinfo_of_a_gigabyte_is_not_read(self) -> None:
        path = write(Path("vmcore"), elf_vmcore([], vmcoreinfo=None, notes=[RawNote("VMCOREINFO", 0, b"")]))
        data = path.read_bytes()
        note = data.index(b"VMCOREINFO") - 12
        data = patched(data, note + 4, struct.pack("<I", 1 << 30))
        data = patched(data, 64 + 32, u64(1 << 31))
        path.write_bytes(data)
        os.truncate(path, 1 << 32)
        assert read_header([path]).note_defects[0] == "VMCOREINFO has n_descsz 0x40000000, more than 0x100000"

    def test_zeros_where_a_note_should_be_are_a_defect(self) -> None:
        """A torn page of notes: the notes behind it are not read."""
        note = ELF.index(b"CORE\0") - 12
        header = header_of(patched(ELF, note, bytes(12)))
        assert header.cpu_notes == ()
        assert len(header.note_defects) == 1
        assert header.note_defects[0].startswith(f"PT_NOTE: no note at {note:#x}, and the end is ")

    def test_past_the_end_of_the_file(self) -> None:
        header = header_of(patched(ELF, 64 + 8, u64(1 * TiB)))
        assert header.note_defects == ("PT_NOTE ends at 0x10000000304, past the end of the file (0x6000)",)
        assert header.expected_size == 1 * TiB + 0x304

    def test_cut_in_the_notes(self) -> None:
        header = header_of(ELF[:0x200])
        assert header.note_defects == (
            "PT_NOTE ends at 0x42c, past the end of the file (0x200)",
            "PT_NOTE: the note at 0x128 has n_namesz 0x5 and n_descsz 0x150, and ends past 0x200",
        )

    def test_of_a_kdump_compressed_file(self) -> None:
        header = header_of(patched(KDUMP, SUB_HEADER + 48, u64(1 << 50, 1 << 50)))
        assert header.note_defects == (
            f"offset_note ends at {1 << 51:#x}, past the end of the file ({len(KDUMP):#x})",
        )
        header = header_of(patched(KDUMP, SUB_HEADER + 32, u64(1 << 50, 1 << 63)))
        assert header.note_defects == (
            f"VMCOREINFO is said to be {1 << 63:#x} bytes at {1 << 50:#x} of a file of {len(KDUMP):#x}",
        )

    def test_a_million_notes(self) -> None:
        header = header_of(elf_vmcore([], notes=[RawNote("X", 1, b"")] * 140_000))
        assert len(header.notes) == 1 << 17
        [defect] = header.note_defects
        assert defect.endswith("is one more than 131072 notes, which no machine has")


class TestKdumpThatLies:
    END_OF_BITMAPS = 0x4000

    def test_cut_in_the_header(self) -> None:
        assert unreadable(KDUMP[:400]) == "vmcore: disk_dump_header has 464 bytes, and the file 400"

    def test_cut_in_the_sub_header(self) -> None:
        assert unreadable(KDUMP[:5000]) == (
            "vmcore: kdump_sub_header with sub_hdr_size 0x1 ends at 0x2000, past the end of the file (0x1388)"
        )

    def test_cut_in_the_bitmaps(self) -> None:
        assert unreadable(KDUMP[:0x3001]) == (
            "vmcore: the bitmaps end at 0x3004, past the end of the file (0x3001)"
        )

    def test_cut_in_the_page_descs(self) -> None:
        with open_dump([write(Path("vmcore"), KDUMP[: self.END_OF_BITMAPS + 50])]) as dump:
            assert dump.header.expected_size == self.END_OF_BITMAPS + 5 * 24
            assert dump.header.cut == STORED
            for address in (0x1000, 0x11000):
                with pytest.raises(PageNotStored) as caught:
                    dump.memory.read(address, 8)
                assert str(caught.value) == (
                    f"physical address {address:#x}: past the end of the truncated file"
                )

    def test_cut_in_the_data(self) -> None:
        with open_dump([write(Path("vmcore"), KDUMP[: -4 * KiB - 1])]) as dump:
            assert dump.header.expected_size == len(KDUMP)
            assert dump.header.stored == STORED
            assert dump.header.cut == RangeSet([(0x10000, 0x12000)])
            assert dump.memory.read(0x3000, 8) == b"c" * 8
            with pytest.raises(PageNotStored) as caught:
                dump.memory.read(0x11800, 8)
            assert str(caught.value) == "physical address 0x11000: past the end of the truncated file"

    def test_makedumpfile_ran_out_of_space(self) -> None:
        """It leaves the rest of the page_descs as zeros."""
        data = patched(KDUMP, self.END_OF_BITMAPS + 2 * 24, bytes(3 * 24))
        data = patched(data, 424, b"\x08")
        with open_dump([write(Path("vmcore"), data)]) as dump:
            assert dump.header.incomplete
            assert dump.header.cut == RangeSet([(0x3000, 0x4000), (0x10000, 0x12000)])
            with pytest.raises(PageNotStored, match=r"0x3000: never written: makedumpfile ran out of space"):
                dump.memory.read(0x3000, 8)

    def test_version(self) -> None:
        assert unsupported(patched(KDUMP, 8, b"\x41\0\0\0")) == (
            "vmcore: kdump-compressed with header_version 65; 1 to 6 are known"
        )

    def test_a_newer_version_is_read_as_the_last_known_one(self) -> None:
        known = header_of(KDUMP)
        newer = header_of(patched(KDUMP, 8, b"\x07\0\0\0"))
        remarks = ("header_version 7 is not known: it was read as 6",)
        assert newer == replace(known, header_version=7, remarks=remarks)

    def test_a_page_desc_that_points_into_the_table_is_damage(self) -> None:
        place = self.END_OF_BITMAPS
        data = patched(KDUMP, place, struct.pack("<Q", place + 25))
        with open_dump([write(Path("vmcore"), data)]) as dump:
            body = dump.memory.body()
        assert body.damaged
        assert "page_desc 0 of" in body.defects[0]
        assert "points into the table itself" in body.defects[0]

    def test_block_size(self) -> None:
        assert unreadable(patched(KDUMP, 428, b"\x01\0\0\0")) == (
            "vmcore: disk_dump_header has no block_size between 4096 and 262144 with a positive "
            "sub_hdr_size, neither as 64-bit nor as 32-bit"
        )

    def test_sub_header_longer_than_the_file(self) -> None:
        assert unreadable(patched(KDUMP, 432, b"\xff\xff\xff\x7f")) == (
            "vmcore: kdump_sub_header with sub_hdr_size 0x7fffffff ends at 0x80000000000, "
            f"past the end of the file ({len(KDUMP):#x})"
        )

    def test_bitmaps_longer_than_the_file(self) -> None:
        assert unreadable(patched(KDUMP, 436, b"\xff\xff\xff\x7f")) == (
            f"vmcore: the bitmaps end at 0x40000001804, past the end of the file ({len(KDUMP):#x})"
        )

    def test_max_mapnr_larger_than_the_bitmaps(self) -> None:
        assert unreadable(patched(KDUMP, SUB_HEADER + 96, u64(2**64 - 1))) == (
            "vmcore: max_mapnr is 0xffffffffffffffff; bitmap_blocks 0x2 of 4096 bytes hold 0x10000 bits"
        )

    def test_huge_bitmaps_of_holes_take_no_time(self) -> None:
        """8 TiB of bitmaps, of which only the first block holds anything."""
        path = write(Path("vmcore"), patched(KDUMP[:0x3000], 436, b"\0\0\0\x7f"))
        with path.open("r+b") as file:
            file.seek(SUB_HEADER + 96)
            file.write(u64(2**44))
            file.truncate((0x7F000000 + 4) * 4096)
        header = read_header([path])
        assert header.described == RangeSet([(0x1000, 0x4000), (0x10000, 0x20000)])
        assert header.stored == EMPTY

    @pytest.mark.parametrize(
        ("descriptor", "reason"),
        [
            (
                struct.pack("<QIIQ", 0x5000, 0x1001, 0, 0),
                "damaged: its page_desc has size 0x1001, more than a page",
            ),
            (struct.pack("<QIIQ", 0x5000, 0x800, 0, 0), "damaged: 2048 bytes of a page of 4096"),
            (struct.pack("<QIIQ", 0x5000, 0x1000, 3, 0), "damaged: flags 0x3 name more than one compression"),
            (struct.pack("<QIIQ", 1 << 63, 0x1000, 0, 0), "past the end of the truncated file"),
            (bytes(24), "its page_desc is empty: never written, or damaged"),
        ],
    )
    def test_page_desc(self, descriptor: bytes, reason: str) -> None:
        path = write(Path("vmcore"), patched(KDUMP, self.END_OF_BITMAPS, descriptor))
        with open_dump([path]) as dump:
            with pytest.raises(PageNotStored) as caught:
                dump.memory.read(0x1000, 8)
            assert str(caught.value) == f"physical address 0x1000: {reason}"
            assert dump.memory.read(0x2000, 8) == b"b" * 8

    @pytest.mark.parametrize("compression", ["zlib", "lzo", "snappy", "zstd"])
    def test_page_that_does_not_unpack(self, compression: str) -> None:
        data = kdump_vmcore(LOADS, compression=compression)
        (offset, size) = struct.unpack_from("<QI", data, self.END_OF_BITMAPS)
        path = write(Path("vmcore"), patched(data, offset, b"\xff" * size))
        with (
            open_dump([path]) as dump,
            pytest.raises(PageNotStored, match=r"^physical address 0x1000: damaged: "),
        ):
            dump.memory.read(0x1000, 8)

    @pytest.mark.parametrize("compression", ["zlib", "lzo", "snappy", "zstd"])
    def test_page_that_unpacks_to_sixteen_pages(self, compression: str) -> None:
        zeros = ram(0, 0x10000, bytes(0x10000))
        large = kdump_vmcore([zeros], compression=compression, page_size=0x10000, dump_level=0)
        offset, size, flags = struct.unpack_from("<QII", large, 4 * 0x10000)
        bomb = large[offset : offset + size]
        data = kdump_vmcore([ram(0x1000, 0x2000, pages("a"))], compression="none")
        data = patched(data, self.END_OF_BITMAPS + 24, bomb)
        data = patched(data, self.END_OF_BITMAPS, struct.pack("<QII", self.END_OF_BITMAPS + 24, size, flags))
        with (
            open_dump([write(Path("vmcore"), data)]) as dump,
            pytest.raises(PageNotStored, match=r"^physical address 0x1000: damaged: "),
        ):
            dump.memory.read(0x1000, 8)


class TestFlattenedStreams:
    def test_cut_in_its_header(self) -> None:
        assert unreadable(flattened(KDUMP)[:1000]) == (
            "vmcore: the flattened stream's header has 4096 bytes, and the file 1000"
        )

    def test_cut_before_its_first_record(self) -> None:
        assert unreadable(flattened(KDUMP)[:4100]) == (
            "vmcore: the flattened stream was cut before its first record"
        )

    def test_of_another_version(self) -> None:
        assert unreadable(patched(flattened(KDUMP), 24, struct.pack(">q", 2))) == (
            "vmcore: a flattened stream of type 1, version 2; known is 1, 1"
        )

    @pytest.mark.parametrize(
        ("offset", "size"),
        [(-2, 5), (0, 0), (0, -1), (0, 1 << 62 | 1), (1 << 62, 1), ((1 << 63) - 1, (1 << 63) - 1)],
    )
    def test_record_that_lies(self, offset: int, size: int) -> None:
        data = patched(flattened(KDUMP), 4096, struct.pack(">qq", offset, size))
        assert unreadable(data) == (
            f"vmcore: the flattened record at 0x1000 has offset {offset:#x}, size {size:#x}"
        )

    @pytest.mark.parametrize("plain", [ELF, KDUMP])
    def test_without_its_end_mark_it_is_truncated(self, plain: bytes) -> None:
        header = header_of(flattened(plain, ended=False))
        assert header.expected_size == header.file_size + 16
        assert header.stored == STORED

    def test_cut_in_the_middle(self) -> None:
        stream = flattened(KDUMP, record_size=4096)
        where = stream.index(b"d" * 2048)
        with open_dump([write(Path("vmcore"), stream[:where])]) as dump:
            assert dump.header.stored == STORED
            assert dump.header.expected_size > dump.header.file_size
            assert RangeSet([(0x11000, 0x12000)]) - dump.header.cut == EMPTY
            assert dump.memory.read(0x2000, 8) == b"b" * 8
            with pytest.raises(PageNotStored, match=r"past the end of the truncated file$"):
                dump.memory.read(0x11000, 8)

    def test_later_records_overwrite_earlier_ones(self) -> None:
        header = header_of(flattened(kdump_vmcore(LOADS)))
        assert header.utsname[0] == "Linux"

    def test_records_that_overlap_without_end(self) -> None:
        """Each of 12,000 records covers all that came before it."""
        records = b"".join(struct.pack(">qq", 0, n) + bytes(n) for n in range(1, 12_000))
        stream = flattened(KDUMP)[:4096] + records
        assert unreadable(stream) == (
            "vmcore: the records of the flattened stream overlap each other too often"
        )
