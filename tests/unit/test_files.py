# SPDX-License-Identifier: LGPL-2.1-or-later
"""Inputs that are no files, outputs in folders of others, and what is left when the system refuses."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures.capture import captures
from tests.builders import GiB, kdump_vmcore, ram, write
from vmcheck.errors import UnreadableFile
from vmcheck.files import WrongKind, open_input, read_input
from vmcheck.operations.outputs import CannotWrite, replacing

CAPTURE = next(capture for capture in captures() if capture.name == "6.1.0-56-amd64/whole")
DUMP = kdump_vmcore(loads=[ram(0, GiB)])


@pytest.fixture(autouse=True)
def _plain_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def vmcheck(*arguments: str, shell: str = "", cwd: Path | None = None) -> tuple[int, str, str]:
    """Exit status, standard output and standard error. ``shell`` stands around the command, as ``{}``."""
    words = [sys.executable, "-m", "vmcheck", *arguments]
    command = ["bash", "-c", shell.format('"$@"'), "bash", *words] if shell else words
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd, check=False)
    return done.returncode, done.stdout, done.stderr


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Inputs.


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


ODD: dict[str, Callable[[Path], None]] = {
    "a pipe": os.mkfifo,
    "a socket": make_socket,
    "a character device": lambda path: path.symlink_to("/dev/zero"),
    "a directory": Path.mkdir,
}


@pytest.mark.parametrize("kind", ODD)
def test_an_input_that_is_no_file_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    ODD[kind](tmp_path / "x")
    with pytest.raises(WrongKind, match=f"x: {kind}, and a regular file is needed"):
        open_input(tmp_path / "x")


def test_a_link_is_followed_unless_it_must_not_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")
    assert read_input(tmp_path / "link", 4) == b"text"
    with pytest.raises(WrongKind, match="a symbolic link, and a regular file is needed"):
        open_input(tmp_path / "link", follow=False)


def test_an_input_that_is_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("12345")
    with pytest.raises(UnreadableFile, match="file: larger than 4 bytes"):
        read_input(tmp_path / "file", 4)


@pytest.mark.parametrize("name", ["", "missing", "\0", "n" * 300, "file/below"])
def test_an_input_that_cannot_be_opened_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnreadableFile):
        open_input(str(tmp_path / name) if name else name)


DUMP_GIVEN = str(CAPTURE.vmcore)
COMMANDS = {
    "the dump": ["check", "{}"],
    "symbols": ["check", DUMP_GIVEN, "-s", "{}"],
    "a topology": ["check", DUMP_GIVEN, "--topology", "{}"],
    "an expected report": ["expect", DUMP_GIVEN, "{}"],
    "a source of symbols": ["symbols", "{}", "-o", "out"],
    "a dump to distill": ["distill", "{}", "-o", "out"],
    "a list of dumps": ["scan", "--from", "{}"],
}


@pytest.mark.parametrize("what", COMMANDS)
@pytest.mark.parametrize("kind", ["a pipe", "a character device"])
def test_no_command_waits_for_a_pipe_or_reads_a_device_without_end(
    what: str, kind: str, tmp_path: Path
) -> None:
    ODD[kind](tmp_path / "x")
    arguments = [argument.format(tmp_path / "x") for argument in COMMANDS[what]]
    status, _, err = vmcheck(*arguments, cwd=tmp_path)
    assert (status, err.count("\n")) == (3, 1)
    assert f"x: {kind}, and " in err


def test_a_witness_that_is_a_pipe_is_said_and_the_check_goes_on(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.log")
    status, out, err = vmcheck(
        "check", DUMP_GIVEN, "-s", str(CAPTURE.symbols), "--full", "--compare", str(tmp_path / "x.log")
    )
    assert (status, err) == (0, "")
    assert "x.log: a pipe, and a regular file is needed" in " ".join(out.split())


# Outputs.


def write_to(path: Path, text: str = "new", mode: int = 0o666) -> None:
    with replacing(str(path), mode) as file:
        file.write(text.encode())


def test_an_output_has_the_umask_s_mode_or_that_of_the_file_it_replaces(tmp_path: Path) -> None:
    write_to(tmp_path / "new")
    (tmp_path / "old").write_text("old")
    (tmp_path / "old").chmod(0o600)
    write_to(tmp_path / "old")
    assert {path.name: (mode(path), path.read_text()) for path in tmp_path.iterdir()} == {
        "new": (0o644, "new"),
        "old": (0o600, "new"),
    }


def test_an_output_is_no_more_readable_than_what_it_is_made_of(tmp_path: Path) -> None:
    write_to(tmp_path / "new", mode=0o600)
    (tmp_path / "old").write_text("old")
    write_to(tmp_path / "old", mode=0o640)
    assert {path.name: mode(path) for path in tmp_path.iterdir()} == {"new": 0o600, "old": 0o640}


def test_a_distilled_dump_has_the_dump_s_mode(tmp_path: Path) -> None:
    vmcore = write(tmp_path / "vmcore", CAPTURE.vmcore.read_bytes())
    vmcore.chmod(0o600)
    for more in ([], ["--flattened"]):
        small = tmp_path / f"small{len(more)}"
        assert vmcheck("distill", str(vmcore), "-o", str(small), "-s", str(CAPTURE.symbols), *more)[0] == 0
        assert mode(small) == 0o600


def test_a_link_in_the_output_s_place_is_replaced_and_its_target_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "out").symlink_to("precious")
    write_to(tmp_path / "out")
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "out").is_symlink()
    assert (tmp_path / "out").read_text() == "new"


def test_the_unfinished_output_cannot_be_foreseen(tmp_path: Path) -> None:
    names = set()
    for _ in range(8):
        with replacing(str(tmp_path / "out")):
            names |= {path.name for path in tmp_path.iterdir()} - {"out"}
    assert len(names) == 8
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_output_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("old")
    with pytest.raises(CannotWrite, match="no"), replacing(str(tmp_path / "out")) as file:  # noqa: PT012
        file.write(b"half")
        raise CannotWrite("no")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_an_output_never_takes_a_dump_s_place(tmp_path: Path) -> None:
    other = write(tmp_path / "other", DUMP)
    vmcore = write(tmp_path / "vmcore", DUMP)
    for arguments in (["check", "--json", str(other)], ["distill", "-o", str(other)]):
        status, _, err = vmcheck(*arguments, str(vmcore))
        assert (status, err) == (2, f"vmcheck: {other}: is a dump, which is never overwritten\n")
    assert other.read_bytes() == DUMP


def test_a_device_or_an_open_file_is_written_to(tmp_path: Path) -> None:
    write_to(Path("/dev/null"))
    reading, writing = os.pipe()
    write_to(Path(f"/dev/fd/{writing}"))
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == "new"
    with (tmp_path / "file").open("wb") as file:
        write_to(Path(f"/dev/fd/{file.fileno()}"))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["new"]


def test_a_long_name_is_an_output_too(tmp_path: Path) -> None:
    write_to(tmp_path / ("ä" * 127))
    with pytest.raises(CannotWrite, match="File name too long"):
        write_to(tmp_path / ("ä" * 128))


# What the system refuses.


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_changes_no_exit_status(closed: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    vmcore = write(tmp_path / "vmcore", CAPTURE.vmcore.read_bytes())
    status, out, err = vmcheck(
        "check", str(vmcore), "-s", str(CAPTURE.symbols), "--json", str(report), shell="{} " + closed
    )
    assert (status, err) == (0, "")
    assert out.startswith("" if "1" in closed or closed.startswith((">", "<")) else "COMPLETE")
    assert report.read_text().startswith("{")
    assert vmcore.read_bytes() == CAPTURE.vmcore.read_bytes()


def test_a_full_standard_error_changes_no_exit_status(tmp_path: Path) -> None:
    assert vmcheck("check", str(tmp_path / "missing"), shell="{} 2>/dev/full")[0] == 3
    assert vmcheck("check", "--no-such-option", shell="{} 2>/dev/full")[0] == 2


def test_help_for_a_reader_that_went_away_is_no_failure() -> None:
    assert vmcheck("check", "--help", shell="{{ sleep 1; {}; echo $? >&2; }} | true") == (0, "", "0\n")


def test_a_name_that_is_too_long_is_one_line() -> None:
    assert vmcheck("check", "n" * 300) == (3, "", f"vmcheck: {'n' * 300}: File name too long\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_that_may_not_be_searched_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    write(tmp_path / "x" / "vmcore", DUMP)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, sys; from vmcheck.cli import main; import vmcheck.operations.examine; "
            "os.chmod('x', 0o700); os.setgid(65534); os.setuid(65534); "
            "sys.argv = ['vmcheck', 'check', 'x/vmcore']; main()",
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "vmcheck: x/vmcore: Permission denied\n")


@pytest.mark.parametrize(
    "limit", ["-n 6", "-n 8", "-v 60000", "-v 100000", "-v 165000", "-v 200000", "-d 20000", "-d 90000"]
)
def test_what_the_system_refuses_is_never_a_verdict_of_1_nor_a_traceback(limit: str) -> None:
    status, out, err = vmcheck("check", DUMP_GIVEN, "-s", str(CAPTURE.symbols), shell=f"ulimit {limit}; {{}}")
    assert status in (0, 3, 4), (out, err)
    assert "Traceback" not in err
    assert (status == 3) == bool(err)
