# SPDX-License-Identifier: LGPL-2.1-or-later
"""Folders as kdump leaves them, and what a check of one says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import junitparser
import pytest

from tests import reports
from tests.builders import GiB, elf_vmcore, flattened, kdump_vmcore, ram, split, write
from vmcheck.check import ExitStatus, Report
from vmcheck.cli import main
from vmcheck.errors import UnreadableFile
from vmcheck.operations import examine
from vmcheck.operations.crash_folder import FoundDump, find_dumps
from vmcheck.report.document import to_json_line
from vmcheck.report.folder import Checked, tally, worst_first, worst_status
from vmcheck.report.junit import junit_of_folder
from vmcheck.report.terminal import render_folder

DOCS = Path(__file__).parents[2] / "docs"

LOADS = [ram(0, GiB)]
DUMP = kdump_vmcore(loads=LOADS)


def fill(folder: Path, files: Mapping[str, bytes | str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name, content.encode() if isinstance(content, str) else content)


def found(folder: Path) -> list[FoundDump]:
    """With paths below the folder."""

    def below(paths: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(os.path.relpath(path, folder) for path in paths)

    return [FoundDump(below(dump.paths), below(dump.beside)) for dump in find_dumps(str(folder))]


def test_kdump_of_rhel_and_fedora(tmp_path: Path) -> None:
    crash = "10.0.0.5-2024-11-23-09:15:00"
    fill(
        tmp_path,
        {
            f"{crash}/vmcore": DUMP,
            f"{crash}/vmcore-dmesg.txt": "[    0.000000] Linux version",
            f"{crash}/kexec-dmesg.log": "[    0.000000] Linux version",
            f"{crash}/vmcore.sha256": "00  vmcore",
        },
    )
    assert found(tmp_path) == [
        FoundDump((f"{crash}/vmcore",), (f"{crash}/kexec-dmesg.log", f"{crash}/vmcore-dmesg.txt"))
    ]


def test_kdump_tools_of_debian_and_ubuntu(tmp_path: Path) -> None:
    stamp = "202411230915"
    fill(
        tmp_path,
        {
            f"{stamp}/dump.{stamp}": DUMP,
            f"{stamp}/dmesg.{stamp}": "text",
            "kdump_lock": "",
            "kexec_cmd": "kexec -p",
            "linux-image-6.1.0-56-amd64.crash": "ProblemType: KernelCrash",
        },
    )
    assert found(tmp_path) == [FoundDump((f"{stamp}/dump.{stamp}",), (f"{stamp}/dmesg.{stamp}",))]


def test_two_debian_dumps_of_one_folder_have_a_log_each(tmp_path: Path) -> None:
    fill(
        tmp_path,
        {
            "dump.202411230915": DUMP,
            "dump.202411240000": DUMP,
            "dmesg.202411230915": "a",
            "kexec-dmesg.log": "b",
        },
    )
    assert found(tmp_path) == [
        FoundDump(("dump.202411230915",), ("dmesg.202411230915", "kexec-dmesg.log")),
        FoundDump(("dump.202411240000",), ("kexec-dmesg.log",)),
    ]


def test_a_dump_that_failed_is_told_and_not_passed_over(tmp_path: Path) -> None:
    fill(
        tmp_path,
        {"a/vmcore-incomplete": b"", "b/dump-incomplete": bytes(4096), "c/vmcore": "connection refused"},
    )
    assert [dump.paths for dump in found(tmp_path)] == [
        ("a/vmcore-incomplete",),
        ("b/dump-incomplete",),
        ("c/vmcore",),
    ]


def test_kdump_of_sonic(tmp_path: Path) -> None:
    stamp = "202005122020"
    fill(tmp_path, {f"{stamp}/kdump.{stamp}": DUMP, f"{stamp}/dmesg.{stamp}": "text"})
    fill(tmp_path, {"202005130000/kdump.202005130000": b"", "kdump.lock": b"", "kdump.conf": b""})
    assert found(tmp_path) == [
        FoundDump(("202005122020/kdump.202005122020",), ("202005122020/dmesg.202005122020",)),
        FoundDump(("202005130000/kdump.202005130000",)),
    ]


@pytest.mark.parametrize(
    "logs",
    [
        ["kexec-dmesg.log", "vmcore-dmesg-incomplete.txt"],
        ["vmcore-dmesg.txt"],
        ["kexec-dmesg.log"],
        ["dmesg.202411230915"],
    ],
)
def test_a_crash_folder_without_a_dump_is_a_capture_that_failed(tmp_path: Path, logs: list[str]) -> None:
    fill(tmp_path, {"old/vmcore": DUMP, "old/vmcore-dmesg.txt": "text"})
    fill(tmp_path, {f"new/{log}": "text" for log in logs})
    new, old = find_dumps(str(tmp_path))
    assert new == FoundDump(
        (f"{tmp_path}/new",),
        tuple(f"{tmp_path}/new/{log}" for log in logs),
        "no dump, only logs of the crash: the capture failed, or the dump was removed",
    )
    assert old.paths == (f"{tmp_path}/old/vmcore",)
    status, out, _ = vmcheck("check", str(tmp_path))
    assert status == 3
    assert "UNREADABLE      new\n                  No dump, only logs of the crash" in out
    assert vmcheck("scan", str(tmp_path))[0] == 3
    assert vmcheck("check", str(tmp_path / "new"))[0] == 3


def test_rotated_logs_of_the_system_are_no_crash(tmp_path: Path) -> None:
    fill(tmp_path, {"dmesg.0": "text", "dmesg.1.gz": b"", "dmesg": "text"})
    with pytest.raises(UnreadableFile, match="no dump in this directory or below it"):
        find_dumps(str(tmp_path))


def test_a_signature_tells_a_dump_whatever_it_is_called(tmp_path: Path) -> None:
    big = elf_vmcore(loads=LOADS, machine="ppc64", byteorder="big")
    fill(tmp_path, {"first": elf_vmcore(loads=LOADS), "second": flattened(DUMP), "third": DUMP, "big": big})
    assert [dump.paths for dump in found(tmp_path)] == [("big",), ("first",), ("second",), ("third",)]


def test_a_vmlinux_and_other_files_are_no_dumps(tmp_path: Path) -> None:
    vmlinux = bytearray(elf_vmcore(loads=LOADS))
    vmlinux[16:18] = (2).to_bytes(2, "little")
    fill(tmp_path, {"vmlinux": bytes(vmlinux), "vmcore": DUMP, "README": "text"})
    os.mkfifo(tmp_path / "vmcore.fifo")
    (tmp_path / "latest").symlink_to(tmp_path)
    assert [dump.paths for dump in found(tmp_path)] == [("vmcore",)]


def test_the_parts_of_a_split_dump_are_one_dump(tmp_path: Path) -> None:
    one, two = split(2, loads=LOADS)
    other = split(2, loads=LOADS, vmcoreinfo="OSRELEASE=6.1.0-test\nPAGESIZE=4096\nCRASHTIME=2\n")
    fill(tmp_path, {"dump1": one, "dump2": two, "whole": DUMP, "whole2": DUMP})
    fill(tmp_path, {"other1": other[0], "other2": other[1]})
    assert [dump.paths for dump in found(tmp_path)] == [
        ("dump1", "dump2"),
        ("other1", "other2"),
        ("whole",),
        ("whole2",),
    ]


def test_the_parts_of_a_split_dump_may_be_in_several_folders(tmp_path: Path) -> None:
    one, two = split(2, loads=LOADS)
    fill(tmp_path, {"disk1/vmcore": one, "disk2/vmcore": two, "disk2/whole": DUMP})
    assert [dump.paths for dump in found(tmp_path)] == [("disk1/vmcore", "disk2/vmcore"), ("disk2/whole",)]


def test_a_copy_of_a_split_dump_is_another_dump(tmp_path: Path) -> None:
    one, two = split(2, loads=LOADS)
    fill(tmp_path, {"a/1": one, "a/2": two, "b/1": one, "b/2": two})
    assert [dump.paths for dump in found(tmp_path)] == [("a/1", "a/2"), ("b/1", "b/2")]


def test_one_failure_of_any_kind_never_stops_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path, {"a/vmcore": DUMP, "b/vmcore": DUMP, "c/vmcore": DUMP, "d/vmcore": DUMP})
    fates = {"a": ZeroDivisionError("a bug"), "b": MemoryError(), "c": OSError("no descriptor is left")}
    real = examine.examine

    def examine_but(paths: Sequence[str], **how: Any) -> Report:
        if fate := fates.get(Path(paths[0]).parent.name):
            raise fate
        return real(paths, **how)

    monkeypatch.setattr(examine, "examine", examine_but)
    monkeypatch.setattr(sys, "argv", ["vmcheck", "check", str(tmp_path), "--json", "-"])
    with pytest.raises(SystemExit) as exit:
        main()
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert exit.value.code == 3
    assert [entry["exit_status"] for entry in entries] == [3, 3, 3, 1]
    assert [entry["error"] for entry in entries] == [
        "a bug in vmcheck: ZeroDivisionError: a bug",
        "the system refused: memory",
        "the system refused: no descriptor is left",
        None,
    ]


def test_a_folder_without_a_dump_is_an_error_and_so_is_none(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="no dump in this directory or below it"):
        find_dumps(str(tmp_path))
    with pytest.raises(UnreadableFile, match="No such file or directory"):
        find_dumps(str(tmp_path / "no"))


WHOLE = Checked("b/vmcore", ("vmcore",), (), reports.WHOLE)
ADDED = Checked("c/vmcore", ("vmcore",), ("vmcore-dmesg.txt",), reports.ADDED)
BLIND = Checked("a/vmcore", ("vmcore.1", "vmcore.2"), (), reports.BLIND)
UNREADABLE = Checked("d/vmcore", ("vmcore",), (), None, "the file is empty \x1b[2J")
EVERY = [BLIND, WHOLE, ADDED, UNREADABLE]


def test_the_worst_comes_first_and_is_the_exit_status() -> None:
    assert worst_first(EVERY) == [UNREADABLE, ADDED, BLIND, WHOLE]
    assert worst_status(EVERY) == ExitStatus.UNREADABLE
    assert worst_status([WHOLE, BLIND, ADDED]) == ExitStatus.FOUND
    assert worst_status([WHOLE, BLIND]) == ExitStatus.COULD_NOT_TELL
    assert worst_status([WHOLE]) == ExitStatus.COMPLETE


def test_the_first_line_counts_the_verdicts() -> None:
    assert (
        tally("/var/crash", EVERY)
        == "4 dumps in /var/crash: 1 UNREADABLE, 1 INCOMPLETE, 1 COULD NOT TELL, 1 COMPLETE"
    )


def test_a_folder_is_a_table_and_each_report_follows_if_asked() -> None:
    short = render_folder("/var/crash", [ADDED, UNREADABLE], 100)
    table, report = render_folder("/var/crash", [ADDED, UNREADABLE], 100, full=True).split("\n\n\n")
    assert short == f"{table}\n\n--full  adds the report of each dump\n"
    assert table == (
        "2 dumps in /var/crash: 1 UNREADABLE, 1 INCOMPLETE\n"
        "\n"
        "  UNREADABLE      d/vmcore\n"
        "                  The file is empty \\x1b[2J\n"
        "\n"
        "  INCOMPLETE      c/vmcore\n"
        "                  128 MiB of 639 MiB RAM is missing, and CPU 2 has no register note (its registers\n"
        "                  are still in memory)\n"
        "                  Crashed 2024-11-23 09:15:00 UTC\n"
        "                  Beside it: vmcore-dmesg.txt"
    )
    assert report.startswith("== c/vmcore ==\nINCOMPLETE: 128 MiB")


def test_a_folder_of_one_dump_is_its_report() -> None:
    assert render_folder("/var/crash", [ADDED], 100).startswith("INCOMPLETE: 128 MiB")


@pytest.mark.parametrize("entry", [*EVERY, Checked("\udcff\x1b", ("\udcff",), ("\x00",), reports.hostile())])
def test_a_line_is_valid_json_of_the_schema(entry: Checked) -> None:
    line = to_json_line(entry)
    assert line.count(b"\n") == 1
    document = json.loads(line)
    jsonschema.Draft202012Validator(json.loads((DOCS / "folder.schema.json").read_bytes())).validate(document)
    assert (document["report"] is None) == (document["error"] is not None)


def test_junit_has_a_suite_a_dump(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_bytes(junit_of_folder("/var/crash", EVERY))
    suites = list(junitparser.JUnitXml.fromfile(str(tmp_path / "junit.xml")))
    assert [(suite.name, suite.failures, suite.errors) for suite in suites] == [
        ("vmcheck a/vmcore", 0, 0),
        ("vmcheck b/vmcore", 0, 0),
        ("vmcheck c/vmcore", 2, 0),
        ("vmcheck d/vmcore", 0, 1),
    ]


def vmcheck(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-m", "vmcheck", *arguments], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_one_unreadable_file_never_stops_the_rest(tmp_path: Path) -> None:
    fill(tmp_path, {"a/vmcore": b"KDUMP   " + bytes(100), "b/vmcore": DUMP, "c/vmcore": b""})
    status, out, err = vmcheck("check", str(tmp_path), "--json", "-")
    assert (status, err) == (3, "")
    entries = [json.loads(line) for line in out.splitlines()]
    assert [(entry["path"], entry["exit_status"]) for entry in entries] == [
        ("a/vmcore", 3),
        ("b/vmcore", 1),
        ("c/vmcore", 3),
    ]
    assert str(tmp_path) not in out


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    fill(tmp_path, {"a/vmcore": DUMP, "b/vmcore": DUMP})
    (tmp_path / "b").chmod(0)
    assert "b\n                  Permission denied" in vmcheck("check", str(tmp_path))[1]


def test_a_folder_is_checked_alone_and_has_no_single_page(tmp_path: Path) -> None:
    fill(tmp_path, {"a/vmcore": DUMP, "b/vmcore": DUMP})
    assert "is a directory: check it alone" in vmcheck("check", str(tmp_path), "vmcore")[2]
    status, out, err = vmcheck("check", str(tmp_path), "--html", f"{tmp_path}/report.html")
    assert (status, out) == (2, "")
    assert "--html shows one dump" in err
    assert vmcheck("check", f"{tmp_path}/a", "--html", f"{tmp_path}/report.html")[0] == 1
    assert (tmp_path / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_a_report_never_overwrites_a_dump_of_the_folder(tmp_path: Path) -> None:
    fill(tmp_path, {"a/vmcore": DUMP})
    assert vmcheck("check", str(tmp_path), "--json", f"{tmp_path}/a/vmcore")[0] == 2
    assert (tmp_path / "a" / "vmcore").read_bytes() == DUMP
