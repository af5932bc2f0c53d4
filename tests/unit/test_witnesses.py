# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files beside a dump. The log lines are of real captures: 6.1, CPU 1 stopped before the crash."""

from __future__ import annotations

import io
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from tests.rules.cases import DUMP, KERNEL, notes, resources, saved
from vmcheck.errors import UnreadableFile
from vmcheck.facts.case import Case
from vmcheck.facts.diagnosis import Comparison
from vmcheck.facts.ranges import RangeSet
from vmcheck.facts.topology import CrashImage, SavedNote, Topology, Unknown
from vmcheck.records import witnesses
from vmcheck.records.witnesses import Kind, Witness, beside, compare, kind_of, read_witness

CRASHTIME = 1795470376
"""The guest's clock as it crashed; its capture kernel read 1795470409."""
CAPTURE = """\
[    0.000000] Linux version 6.1.0-56-amd64 (debian-kernel@lists.debian.org)
[    0.000000] Command line: irqpoll nr_cpus=1 reset_devices acpi_no_memhotplug panic=-1 elfcorehdr=507252K
[    3.306279] Warning: Zero PT_NOTE entries found
[    4.026236] rtc_cmos 00:04: setting system clock to 2026-11-23T21:46:49 UTC (1795470409)
"""
LOG = """\
[    0.000000] Linux version 6.1.0-56-amd64 (debian-kernel@lists.debian.org)
[    0.066377] smpboot: Allowing 6 CPUs, 4 hotplug CPUs
[    3.614685] rtc_cmos 00:04: setting system clock to 2026-11-23T21:45:53 UTC (1795470353)
[   26.886448] sysrq: Trigger a crash
[   26.886884] Kernel panic - not syncing: sysrq triggered crash
"""
IMAGE = CrashImage(((507252 << 10, 1 << 14, 1 << 12),), False, None, None, None)
HEADER = replace(
    DUMP,
    cpu_notes=notes(0),
    vmcoreinfo_notes=(f"OSRELEASE=6.1.0-test\nCRASHTIME={CRASHTIME}\n".encode(),),
)
CRASHED = replace(KERNEL, saved_notes={**saved(0), 1: SavedNote(b"")}, crash_image=IMAGE, log=LOG)


def told(kind: Kind, text: str = "", topology: Topology = CRASHED, **files: str) -> Comparison:
    paths = {name.replace("__", "/"): content for name, content in files.items()}
    return compare(Case(HEADER, topology), Witness("it", kind, text, paths))


class TestCaptureLog:
    def test_empty_notes_and_notes_are_all_that_the_header_named(self) -> None:
        assert told(Kind.CAPTURE_LOG, CAPTURE) == Comparison(
            "it",
            "capture kernel's log",
            True,
            "elfcorehdr named 2 CPUs: 1 with registers, 1 without; that is every CPU that was present",
        )

    def test_a_header_that_named_fewer_cpus_than_there_were_was_stale(self) -> None:
        quiet = CAPTURE.replace("Warning: Zero PT_NOTE entries found", "")
        comparison = told(Kind.CAPTURE_LOG, quiet)
        assert comparison.agrees is True
        assert "2 were present at the crash: the header was stale" in comparison.text

    def test_more_cpus_than_are_possible_contradict_the_dump(self) -> None:
        assert told(Kind.CAPTURE_LOG, CAPTURE + 4 * "Warning: Zero PT_NOTE entries found\n").agrees is False

    def test_a_header_elsewhere_is_of_another_boot(self) -> None:
        comparison = told(Kind.CAPTURE_LOG, CAPTURE.replace("507252K", "507253K"))
        assert comparison.agrees is None
        assert comparison.text.startswith("refused: of another boot")

    @pytest.mark.parametrize("address", ["elfcorehdr=0x1ef5d000", "elfcorehdr=519426048"])
    def test_addresses_as_other_architectures_write_them(self, address: str) -> None:
        assert told(Kind.CAPTURE_LOG, CAPTURE.replace("elfcorehdr=507252K", address)).agrees is True

    @pytest.mark.parametrize(
        ("clock", "verdict"),
        [
            (CRASHTIME + 33, True),
            (CRASHTIME + 300, None),
            (CRASHTIME + 3600 + 33, None),
            (CRASHTIME - 912, "refused"),
            (CRASHTIME + 86400, "refused"),
        ],
    )
    def test_the_clock_tells_the_boot_where_the_address_is_always_the_same(
        self, clock: int, verdict: bool | str | None
    ) -> None:
        comparison = told(Kind.CAPTURE_LOG, CAPTURE.replace("1795470409", str(clock)))
        if verdict == "refused":
            assert comparison.text.startswith("refused: of another boot")
            verdict = None
        assert comparison.agrees is verdict

    def test_a_log_without_a_command_line_is_not_taken_for_one(self) -> None:
        assert told(Kind.CAPTURE_LOG, "Zero PT_NOTE entries found\n" * 7).agrees is None


class TestLog:
    def test_the_same_log(self) -> None:
        assert told(Kind.LOG, LOG) == Comparison(
            "it", "kernel log", True, "5 of its 5 lines are in the dump's log"
        )

    def test_as_vmcore_dmesg_and_printk_caller_write_it(self) -> None:
        assert told(Kind.LOG, LOG.replace("] ", "][    T1] ")).agrees is True
        assert told(Kind.LOG, LOG.replace("[ ", "<6>[ ")).agrees is True

    def test_another_boot_of_the_same_machine_is_refused(self) -> None:
        """Lines before the clock runs are alike at every boot."""
        alike = "".join(f"[    0.000000] BIOS-e820: {i}\n" for i in range(100))
        other = LOG.replace("0.066377", "0.071112").replace("26.88", "31.02").replace("3.614685", "3.600001")
        ours = replace(CRASHED, log=alike + LOG)
        comparison = told(Kind.LOG, alike + other, ours)
        assert comparison.agrees is None
        assert comparison.text.startswith("refused: of another boot")

    def test_a_log_that_goes_on_after_the_dump_s_contradicts_it(self) -> None:
        assert told(Kind.LOG, LOG + "[   99.000000] still here\n").agrees is False

    def test_where_the_dump_s_log_is_lost_the_kernel_is_compared(self) -> None:
        lost = replace(CRASHED, log=Unknown("filtered"), banner="Linux version 6.1.0-56-amd64 (me)")
        assert "of another kernel" in told(Kind.LOG, LOG, lost).text
        same = replace(lost, banner="Linux version 6.1.0-56-amd64 (debian-kernel@lists.debian.org)")
        comparison = told(Kind.LOG, LOG, same)
        assert comparison.agrees is None
        assert "same kernel" in comparison.text

    def test_no_time_stamps(self) -> None:
        assert told(Kind.LOG, "hello\n").agrees is None


BOOT_ID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
UNAME = "Linux host 6.1.0-test #1 SMP x86_64 GNU/Linux"
SOS = {"uname": UNAME, "proc__sys__kernel__random__boot_id": BOOT_ID + "\n"}


class TestSos:
    SAME = replace(CRASHED, boot_id=BOOT_ID)

    def test_the_same_boot_with_the_same_hardware(self) -> None:
        comparison = told(Kind.SOS, "", self.SAME, **SOS, sys__devices__system__cpu__present="0-1\n")
        assert (comparison.agrees, comparison.text) == (True, "of the same boot")

    def test_the_same_boot_before_a_cpu_and_memory_came(self) -> None:
        grown = replace(self.SAME, resources=resources(RangeSet([(0, 2 << 30)])))
        iomem = "00000000-3fffffff : System RAM\n"
        comparison = told(
            Kind.SOS, "", grown, **SOS, proc__iomem=iomem, sys__devices__system__cpu__present="0\n"
        )
        assert comparison.agrees is False
        assert comparison.text == (
            "of the same boot; CPUs 0 were present then, 0-1 at the crash; "
            "1.0 GiB of System RAM came after it was taken"
        )

    def test_another_boot_s_hardware_is_not_compared(self) -> None:
        other = replace(self.SAME, boot_id="another")
        comparison = told(Kind.SOS, "", other, **SOS, sys__devices__system__cpu__present="0\n")
        assert comparison.agrees is None
        assert "another boot, so memory and CPUs are not compared" in comparison.text

    def test_another_kernel_is_refused(self) -> None:
        comparison = told(Kind.SOS, "", self.SAME, uname=UNAME.replace("6.1.0-test", "5.14.0"))
        assert comparison.text == "refused: of another kernel, 5.14.0; the dump is of 6.1.0-test"

    def test_a_boot_id_among_the_sysctls(self) -> None:
        files = {
            "uname": UNAME,
            "sos_commands__kernel__sysctl_-a": f"a = 1\nkernel.random.boot_id = {BOOT_ID}\n",
        }
        assert told(Kind.SOS, "", self.SAME, **files).text == "of the same boot"

    def test_a_configuration_that_contradicts_the_loaded_image(self) -> None:
        comparison = told(
            Kind.SOS, "", CRASHED, uname=UNAME, etc__sysconfig__kdump='KEXEC_ARGS="-s --debug"\n'
        )
        assert comparison.agrees is False
        assert "KEXEC_ARGS='-s --debug', and the image was loaded by kexec_load" in comparison.text

    def test_addresses_hidden_from_an_ordinary_user_say_nothing(self) -> None:
        hidden = "00000000-00000000 : System RAM\n" * 3
        assert told(Kind.SOS, "", self.SAME, **SOS, proc__iomem=hidden).agrees is True


def test_words_of_a_witness_are_shown_and_never_obeyed() -> None:
    evil = compare(
        Case(HEADER, CRASHED), Witness("a\x1b[2J", Kind.SOS, files={"uname": "Linux h \x1b[31mevil x"})
    )
    assert "\x1b" not in evil.witness + evil.text


class TestReading:
    @pytest.mark.parametrize(
        ("name", "dump", "kind"),
        [
            ("kexec-dmesg.log", "vmcore", Kind.CAPTURE_LOG),
            ("vmcore-dmesg.txt", "vmcore", Kind.LOG),
            ("dmesg.202611230915", "dump.202611230915", Kind.LOG),
            ("dmesg.202611230915", "dump.202611230916", None),
            ("sosreport-host-2026-11-23-abcdef.tar.xz", "vmcore", Kind.SOS),
            ("sos-host-2026-11-23", "vmcore", Kind.SOS),
            ("vmcore", "vmcore", None),
            ("truth.json", "vmcore", None),
        ],
    )
    def test_witnesses_by_their_names(self, name: str, dump: str, kind: Kind | None) -> None:
        assert kind_of(name, dump) is kind

    def test_what_lies_beside_a_dump(self, tmp_path: Path) -> None:
        for name in ("vmcore", "kexec-dmesg.log", "vmcore-dmesg.txt", "notes.txt"):
            (tmp_path / name).write_text("")
        (tmp_path / "dmesg.txt").symlink_to("/etc/passwd")
        found = [Path(path).name for path in beside(str(tmp_path / "vmcore"))]
        assert found == ["kexec-dmesg.log", "vmcore-dmesg.txt"]

    def test_a_log_of_any_name_is_known_by_what_it_says(self, tmp_path: Path) -> None:
        (tmp_path / "one").write_text(CAPTURE)
        (tmp_path / "two").write_text(LOG)
        assert read_witness(str(tmp_path / "one")) == Witness("one", Kind.CAPTURE_LOG, CAPTURE)
        assert read_witness(str(tmp_path / "two")) == Witness("two", Kind.LOG, LOG)

    def test_a_link_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "log").write_text(LOG)
        (tmp_path / "link").symlink_to("log")
        with pytest.raises(UnreadableFile, match="a symbolic link, and a regular file is needed"):
            read_witness(str(tmp_path / "link"))

    def test_a_pipe_does_not_hang_it(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "vmcore-dmesg.txt")
        with pytest.raises(UnreadableFile, match="a pipe, and a regular file is needed"):
            read_witness(str(tmp_path / "vmcore-dmesg.txt"))
        report = tmp_path / "sos-host"
        report.mkdir()
        os.mkfifo(report / "uname")
        assert read_witness(str(report)).files == {}

    def test_what_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(UnreadableFile, match="No such file"):
            read_witness(str(tmp_path / "absent"))


def report_folder(parent: Path) -> Path:
    folder = parent / "sosreport-host"
    (folder / "etc" / "sysconfig").mkdir(parents=True)
    (folder / "uname").write_text(UNAME)
    (folder / "etc" / "sysconfig" / "kdump").write_text('KEXEC_ARGS="-s"\n')
    return folder


FILES = {"uname": UNAME, "etc/sysconfig/kdump": 'KEXEC_ARGS="-s"\n'}


class TestSosReport:
    def test_a_folder(self, tmp_path: Path) -> None:
        assert read_witness(str(report_folder(tmp_path))).files == FILES

    @pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.xz", "tar.bz2"])
    def test_a_tarball(self, tmp_path: Path, suffix: str) -> None:
        folder, mode = report_folder(tmp_path), f"w:{suffix.removeprefix('tar').removeprefix('.')}"
        path = tmp_path / f"sosreport-host.{suffix}"
        with tarfile.open(str(path), mode) as archive:  # type: ignore[call-overload]
            archive.add(folder, "sosreport-host")
        assert read_witness(str(path)) == Witness(path.name, Kind.SOS, files=FILES)

    def test_no_link_leads_out_of_a_folder(self, tmp_path: Path) -> None:
        folder = report_folder(tmp_path)
        (tmp_path / "secret").mkdir()
        (tmp_path / "secret" / "version").write_text("Linux version secret")
        (folder / "proc").symlink_to(tmp_path / "secret")
        (folder / "sys").mkdir()
        (folder / "uname").unlink()
        (folder / "uname").symlink_to(tmp_path / "secret" / "version")
        assert read_witness(str(folder)).files == {"etc/sysconfig/kdump": 'KEXEC_ARGS="-s"\n'}

    def test_links_devices_and_other_paths_of_a_tarball_are_passed_by(self, tmp_path: Path) -> None:
        path = tmp_path / "sosreport-x.tar"
        with tarfile.open(path, "w") as archive:
            for name, kind in (("top/uname", tarfile.SYMTYPE), ("top/proc/iomem", tarfile.FIFOTYPE)):
                member = tarfile.TarInfo(name)
                member.type, member.linkname = kind, "/etc/passwd"
                archive.addfile(member)
            for name in ("../uname", "top/../../etc/sysconfig/kdump"):
                member = tarfile.TarInfo(name)
                member.size = 5
                archive.addfile(member, io.BytesIO(b"hello"))
        before = sorted(tmp_path.rglob("*"))
        # "../uname" is a path of two parts, as "top/uname" is: it is read, and nothing is written for it.
        assert set(read_witness(str(path)).files) <= {"uname"}
        assert sorted(tmp_path.rglob("*")) == before

    def test_a_member_is_read_no_further_than_its_bound(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(witnesses, "MAX_MEMBER", 10)
        folder = report_folder(tmp_path)
        assert read_witness(str(folder)).files["uname"] == UNAME[:10]

    def test_an_archive_that_unpacks_without_end_is_given_up(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(witnesses, "MAX_ARCHIVE", 1 << 20)
        path = tmp_path / "sosreport-bomb.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for name, size in (("top/zeros", 8 << 20), ("top/uname", 5)):
                member = tarfile.TarInfo(name)
                member.size = size
                archive.addfile(member, io.BytesIO(bytes(size)))
        with pytest.raises(UnreadableFile):
            read_witness(str(path))

    @pytest.mark.parametrize(
        ("sizes", "why"),
        [
            ([1 << 30], "a name of 1,073,741,824 bytes"),
            ([2] * 400, "more than 4 names of one member"),
        ],
    )
    def test_long_names_of_a_tarball_are_bounded(self, tmp_path: Path, sizes: list[int], why: str) -> None:
        path = tmp_path / "sosreport-x.tar"
        blocks = []
        for size in sizes:
            header = tarfile.TarInfo("././@LongLink")
            header.type, header.size = tarfile.GNUTYPE_LONGNAME, size
            blocks.append(header.tobuf(tarfile.GNU_FORMAT) + b"a\0".ljust(512, b"\0"))
        path.write_bytes(b"".join(blocks) + tarfile.TarInfo("b").tobuf() + bytes(1024))
        with pytest.raises(UnreadableFile, match=why):
            read_witness(str(path))

    def test_garbage_is_no_archive(self, tmp_path: Path) -> None:
        path = tmp_path / "sosreport-x.tar.xz"
        path.write_bytes(b"\xfd7zXZ\0" + os.urandom(100))
        with pytest.raises(UnreadableFile):
            read_witness(str(path))
