# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios
import types
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import vmcheck.cli
from tests import reports
from vmcheck.check import Report
from vmcheck.diagnosis.explanation import explanations
from vmcheck.errors import UnreadableFile
from vmcheck.operations.outputs import replacing
from vmcheck.rules import rules

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """``run(*arguments, report=...)``: vmcheck where every dump has this report; (status, stdout, stderr)."""

    def run(*arguments: str, report: Report | BaseException = reports.WHOLE) -> tuple[int, str, str]:
        class Examination(contextlib.nullcontext["Examination"]):
            def __init__(self, paths: Sequence[str], *_: object) -> None:
                super().__init__(self)

            def report(self, *_: object) -> Report:
                if isinstance(report, BaseException):
                    raise report
                return report

        examining = types.ModuleType("vmcheck.operations.examine")
        examining.Examination = Examination  # type: ignore[attr-defined]
        examining.examine = lambda *_, **__: Examination([]).report()  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "vmcheck.operations.examine", examining)
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
        "INCOMPLETE: 128 MiB of 639 MiB RAM is missing, "
        "and CPU 2 has no register note (its registers are still in memory)",
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
    assert run("schema", "--folder") == (0, docs.with_name("folder.schema.json").read_text(), "")


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


def in_terminal(arguments: Sequence[str], environment: dict[str, str], columns: int = 80) -> bytes:
    """What a terminal of this width is sent by ``python -c ...``: standard output and error together."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    inherited = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS")}
    process = subprocess.Popen(
        [sys.executable, "-c", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=inherited | {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"} | environment,
        cwd=Path(__file__).parents[2],
    )
    os.close(theirs)
    sent = b""
    with contextlib.suppress(OSError):  # A pseudo-terminal without a writer gives EIO.
        while read := os.read(ours, 1 << 16):
            sent += read
    os.close(ours)
    assert process.wait() == 1
    return sent.replace(b"\r\n", b"\n")


CHECK = """
import contextlib, sys, time, types
from tests import reports
class Examination(contextlib.nullcontext):
    def __init__(self, paths, symbols=None, progress=None, budget=None, verified=None):
        super().__init__(self)
        progress("asking the crashed kernel")
        time.sleep({seconds})
        progress("asking the crashed kernel")
    def report(self, *others):
        return reports.ADDED
sys.modules["vmcheck.operations.examine"] = types.SimpleNamespace(Examination=Examination)
sys.argv = ["vmcheck", "check", "vmcore"]
import vmcheck.cli
vmcheck.cli.main()
"""


def test_a_terminal_gets_colour_and_the_memory_bar() -> None:
    sent = in_terminal([CHECK.format(seconds=0)], {})
    assert sent.startswith(b"\x1b[1;31mINCOMPLETE\x1b[0m")
    assert "×××".encode() in sent


def test_no_color_is_honoured() -> None:
    sent = in_terminal([CHECK.format(seconds=0)], {"NO_COLOR": "1"})
    assert b"\x1b[3" not in sent
    assert "×××".encode() in sent


def test_a_terminal_without_utf_8_gets_ascii() -> None:
    sent = in_terminal([CHECK.format(seconds=0)], {"PYTHONIOENCODING": "ascii"})
    assert b"XXX" in sent
    assert sent.isascii()


@pytest.mark.parametrize("columns", [60, 200])
def test_the_bar_fits_the_terminal(columns: int) -> None:
    sent = in_terminal([CHECK.format(seconds=0)], {"NO_COLOR": "1"}, columns).decode()
    bar = re.sub(r"\x1b\[[0-9;]*m", "", sent.split("\n")[2])
    assert len(bar) == min(columns, 120)


def test_progress_is_told_after_a_second_and_wiped_away() -> None:
    slow, quick = (in_terminal([CHECK.format(seconds=s)], {"NO_COLOR": "1"}) for s in (1.3, 0))
    assert slow.startswith(b"\r\x1b[Kasking the crashed kernel...\r\x1b[K")
    assert b"asking" not in quick


def test_explain_lists_every_rule_cause_and_regime(run: Run) -> None:
    status, out, _ = run("explain")
    assert status == 0
    listed = [tuple(line.split(maxsplit=1)) for line in out.splitlines()]
    expected = [(each.name, each.title) for each in rules().values()]
    expected += [(each.name, each.title) for each in explanations().values()]
    assert sorted(listed) == sorted(expected)


def test_explain_tells_what_a_rule_means(run: Run) -> None:
    told = rules()["undescribed-ram"]
    assert run("explain", "undescribed-ram")[1] == f"undescribed-ram\n\n{told.title}\n\n{told.text}\n"


def test_explain_shows_a_rule_and_the_cause_of_its_name(run: Run) -> None:
    told = run("explain", "no-crash-kernel")[1]
    assert rules()["no-crash-kernel"].text in told
    assert explanations()["no-crash-kernel"].text in told


def test_a_misspelt_rule_gets_a_suggestion(run: Run) -> None:
    assert "Is it 'undescribed-ram'?" in run("explain", "undescribed-rom")[2]


@pytest.mark.parametrize("command", [[], ["check"], ["distill"], ["symbols"], ["explain"], ["schema"]])
def test_every_command_has_help(run: Run, command: list[str]) -> None:
    status, out, err = run(*command, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"Usage: {' '.join(['vmcheck', *command])} ")


def test_a_failed_distill_leaves_neither_the_output_nor_a_piece_of_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def distill(paths: Sequence[str], output: str, *_: object, **__: object) -> None:
        with replacing(output) as file:
            file.write(b"half")
            raise UnreadableFile("vmcore: ends early")

    distilling = types.ModuleType("vmcheck.operations.distill")
    distilling.distill = distill  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vmcheck.operations.distill", distilling)
    (tmp_path / "small").write_text("the one before")
    assert run("distill", "vmcore", "-o", f"{tmp_path}/small") == (3, "", "vmcheck: vmcore: ends early\n")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["the one before"]


def test_expect_is_silent_about_nothing_and_exits_with_the_comparison(run: Run, tmp_path: Path) -> None:
    expected = tmp_path / "whole.json"
    expected.write_text('{"verdict": "complete", "findings": []}')
    assert run("expect", "vmcore", str(expected)) == (0, "as expected\n", "")
    status, out, _ = run("expect", "vmcore", str(expected), report=reports.PHANTOM)
    assert (status, out.split("\n")[0]) == (1, "verdict: expected complete, found misleading")


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"a": "\xff"}', b"vmcore", b'{"a":' + b"[" * 99_999])
def test_an_expectation_that_is_no_report_is_one_line(run: Run, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "expected").write_bytes(content)
    status, out, err = run("expect", "vmcore", f"{tmp_path}/expected")
    assert (status, out, err.count("\n")) == (3, "", 1)
    assert "not a report of 'vmcheck check --json'" in err


def test_an_expectation_that_is_not_there_is_one_line(run: Run, tmp_path: Path) -> None:
    assert run("expect", "vmcore", f"{tmp_path}/no") == (
        3,
        "",
        f"vmcheck: {tmp_path}/no: No such file or directory\n",
    )
