# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import vmcheck.cli
from tests import reports
from vmcheck.check import Report
from vmcheck.errors import UnreadableFile

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """``run(*arguments, report=...)``: vmcheck where every dump has this report; (status, stdout, stderr)."""

    def run(*arguments: str, report: Report | BaseException = reports.WHOLE) -> tuple[int, str, str]:
        def examine(paths: Sequence[str], symbols: str | None = None, progress: object = None) -> Report:
            if isinstance(report, BaseException):
                raise report
            return report

        examining = types.ModuleType("vmcheck.examine")
        examining.examine = examine  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "vmcheck.examine", examining)
        monkeypatch.setattr(sys, "argv", ["vmcheck", *arguments])
        with pytest.raises(SystemExit) as exit:
            vmcheck.cli.main()
        out, err = capfdbinary.readouterr()
        assert isinstance(exit.value.code, int)
        return exit.value.code, out.decode(), err.decode()

    return run


@pytest.mark.parametrize(
    ("report", "options", "status"),
    [
        (reports.WHOLE, [], 0),
        (reports.ADDED, [], 1),
        (reports.PHANTOM, [], 1),
        (reports.PHANTOM, ["--fail-on", "lost"], 0),
        (reports.BLIND, [], 4),
    ],
)
def test_the_exit_status_is_the_verdict(run: Run, report: Report, options: list[str], status: int) -> None:
    assert run("check", "vmcore", *options, report=report)[0] == status


def test_the_report_goes_to_stdout_and_nothing_to_stderr(run: Run) -> None:
    status, out, err = run("check", "vmcore", report=reports.ADDED)
    assert (status, out.split("\n")[0], err) == (
        1,
        "INCOMPLETE: 128 MiB of 639 MiB RAM and the registers of CPU 2 are not in this dump",
        "",
    )


def test_json_on_stdout_is_all_that_is_on_stdout(run: Run) -> None:
    _, out, _ = run("check", "vmcore", "--json", "-", report=reports.ADDED)
    assert json.loads(out)["verdict"] == "incomplete"


def test_a_report_file_is_written_beside_the_text(run: Run, tmp_path: Path) -> None:
    _, out, _ = run("check", "vmcore", "--json", f"{tmp_path}/r.json", "--junit", f"{tmp_path}/r.xml")
    assert out.startswith("COMPLETE")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.json", "r.xml"]


def test_an_unreadable_dump_is_one_line_and_exits_with_3(run: Run) -> None:
    error = UnreadableFile("vmcore: PT_NOTE ends at 0x5000, past\nthe end \x1b[2J")
    assert run("check", "vmcore", report=error) == (
        3,
        "",
        "vmcheck: vmcore: PT_NOTE ends at 0x5000, past\\nthe end \\x1b[2J\n",
    )


def test_a_bug_tracebacks_and_is_not_taken_for_a_verdict(run: Run) -> None:
    status, out, err = run("check", "vmcore", report=ZeroDivisionError("oops"))
    assert (status, out) == (70, "")
    assert err.endswith(
        "ZeroDivisionError: oops\nvmcheck: this is a bug in vmcheck; the lines above say where\n"
    )


def test_an_interrupt_exits_with_130(run: Run) -> None:
    assert run("check", "vmcore", report=KeyboardInterrupt())[0] == 130


@pytest.mark.parametrize(
    "arguments",
    [
        ("check",),
        ("check", "vmcore", "--fail-on", "never"),
        ("check", "vmcore", "--json", "-", "--junit", "-"),
        ("explain", "undescribed-rom"),
        ("chekc",),
        ("distill", "vmcore"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_how_to_get_help(run: Run, arguments: tuple[str, ...]) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert "--help" in err


@pytest.mark.parametrize("link", ["same", "hard", "symbolic"])
def test_a_report_never_overwrites_the_dump(run: Run, tmp_path: Path, link: str) -> None:
    dump = tmp_path / "vmcore"
    dump.write_text("precious")
    output = dump if link == "same" else tmp_path / "report"
    if link == "hard":
        output.hardlink_to(dump)
    if link == "symbolic":
        output.symlink_to(dump)
    for command in (["check", "--json"], ["check", "--html"], ["check", "--junit"], ["distill", "-o"]):
        assert run(*command, str(output), str(dump)) == (
            2,
            "",
            f"vmcheck: {output}: is the input {dump}, which is never overwritten\n",
        )
    assert dump.read_text() == "precious"


def test_an_old_report_is_replaced_whole(run: Run, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("x" * 1_000_000)
    run("check", "vmcore", "--json", f"{tmp_path}/r.json")
    assert json.loads((tmp_path / "r.json").read_bytes())["verdict"] == "complete"
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_an_output_that_cannot_be_written_is_one_line_and_exits_with_2(run: Run, tmp_path: Path) -> None:
    assert run("check", "vmcore", "--json", f"{tmp_path}/no/such/folder/r.json") == (
        2,
        "",
        f"vmcheck: {tmp_path}/no/such/folder/r.json: cannot be written: No such file or directory\n",
    )
    assert run("check", "vmcore", "--json", str(tmp_path))[0] == 2


def test_a_full_device_is_one_line(run: Run) -> None:
    assert run("check", "vmcore", "--json", "/dev/full") == (
        2,
        "",
        "vmcheck: /dev/full: cannot be written: No space left on device\n",
    )


def test_the_schema_is_printed_as_it_is_in_the_docs(run: Run) -> None:
    docs = Path(__file__).parents[2] / "docs" / "report.schema.json"
    assert run("schema") == (0, docs.read_text(), "")


def vmcheck_process(*arguments: str, **options: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-m", "vmcheck", *arguments], stderr=subprocess.PIPE, **options
    )


def test_a_reader_that_goes_away_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = vmcheck_process("schema", stdout=writing)
    os.close(writing)
    assert (process.communicate()[1], process.returncode) == (b"", 0)


def test_help_starts_without_loading_what_only_a_check_needs() -> None:
    script = "import sys, vmcheck.cli; sys.argv[1:] = ['check', '--help']; vmcheck.cli.main()"
    loaded = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", script], capture_output=True, text=True, check=True
    ).stderr
    modules = {line.rpartition("|")[2].strip() for line in loaded.splitlines()}
    assert "click" in modules
    assert modules & {"numpy", "drgn", "rich", "jinja2", "msgspec", "elftools"} == set()
