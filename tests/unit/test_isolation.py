# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reading a kernel runs apart: a crash, a hang or greed is one line and "could not tell"."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.capture import captures
from vmcheck import examine, kernel
from vmcheck.cli import main
from vmcheck.errors import PageNotStored, VmcheckError, plain
from vmcheck.isolation import ChildDied, run_isolated
from vmcheck.topology import Unknown

SPACE = 4 << 30
CAPTURE = next(capture for capture in captures() if capture.symbols is None)


def isolated(work: Callable[[], object], seconds: float = 30, space: int = SPACE) -> object:
    return run_isolated(work, seconds, space)


def killed_by(number: int) -> Callable[[], object]:
    return lambda: os.kill(os.getpid(), number)


def asleep() -> None:
    while True:
        time.sleep(1000)


def greedy() -> int:
    return len(bytearray(8 << 30))


def greedy_bit_by_bit() -> int:
    kept = []
    while True:
        kept.append(bytearray(64 << 20))


def a_little_more() -> int:
    """Bytes of address space: what is in use, and a quarter of a GiB."""
    return resource.getpagesize() * int(Path("/proc/self/statm").read_text().split()[0]) + (256 << 20)


def children() -> list[str]:
    """Processes that this one has not waited for."""
    return [line for line in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split() if line]


# run_isolated.


def test_an_answer_comes_back_whole() -> None:
    answer = {n: os.urandom(4096) for n in range(1000)}
    assert isolated(lambda: answer) == answer


def test_what_the_child_does_to_its_memory_stays_there() -> None:
    here = [1]

    def change() -> int:
        here.append(2)
        return os.getpid()

    assert isolated(change) != os.getpid()
    assert here == [1]


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGBUS, signal.SIGKILL, signal.SIGABRT])
def test_a_signal_is_named(number: signal.Signals) -> None:
    with pytest.raises(ChildDied, match=rf"^the reader was killed by {number.name}$"):
        isolated(killed_by(number))


def test_a_signal_without_a_name_is_told_by_number() -> None:
    number = signal.SIGRTMIN + 3
    with pytest.raises(ChildDied, match=rf"^the reader was killed by signal {int(number)}$"):
        isolated(killed_by(number))


def test_a_child_that_sleeps_forever_is_ended() -> None:
    with pytest.raises(ChildDied, match=r"^it did not end within 0.5 seconds$"):
        isolated(asleep, seconds=0.5)


def test_a_child_that_ignores_signals_is_ended() -> None:
    def stubborn() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        asleep()

    with pytest.raises(ChildDied):
        isolated(stubborn, seconds=0.5)


@pytest.mark.parametrize("work", [greedy, greedy_bit_by_bit])
def test_a_child_that_wants_too_much_is_a_memory_error(work: Callable[[], int]) -> None:
    with pytest.raises(MemoryError):
        isolated(work, space=a_little_more())


def test_an_answer_that_is_too_large_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        isolated(lambda: "x" * (200 << 20), space=a_little_more())


def test_an_answer_cut_by_a_signal_is_no_answer() -> None:
    class HalfWay:
        def __reduce__(self) -> str:
            os.kill(os.getpid(), signal.SIGKILL)
            return ""

    with pytest.raises(ChildDied, match="SIGKILL"):
        isolated(lambda: ["x" * (8 << 20), HalfWay()])


def refuse() -> None:
    raise PageNotStored("vmcore: \x1b[2J", 0x1000)


def test_an_error_for_the_user_keeps_its_type_and_what_it_knows() -> None:
    with pytest.raises(PageNotStored) as error:
        isolated(refuse)
    assert (str(error.value), error.value.address) == (plain("vmcore: \x1b[2J"), 0x1000)


def bug() -> None:
    raise ZeroDivisionError("a bug")


def test_a_bug_shows_its_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="its traceback is above"):
        isolated(bug)
    assert "ZeroDivisionError: a bug" in capfd.readouterr().err


def test_no_child_and_no_descriptor_is_left_behind() -> None:
    before = sorted(Path("/proc/self/fd").iterdir())
    for work in (lambda: 1, killed_by(signal.SIGSEGV), asleep, refuse):
        try:
            isolated(work, seconds=0.3)
        except (ChildDied, VmcheckError):
            continue
    assert children() == []
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_a_crash_leaves_no_core_file() -> None:
    assert isolated(lambda: resource.getrlimit(resource.RLIMIT_CORE)) == (0, 0)


# The road to the report.


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """``reading(work)``: reading any kernel does ``work`` instead."""

    def instead(work: Callable[[], object]) -> None:
        monkeypatch.setattr(kernel, "read_topology", lambda *_, **__: work())
        monkeypatch.setattr(examine, "KERNEL_SECONDS", 1.0)
        monkeypatch.setattr(examine, "KERNEL_ADDRESS_SPACE", 2 << 30)

    return instead


FATES: dict[str, tuple[Callable[[], object], str]] = {
    "crash": (killed_by(signal.SIGSEGV), "the reader was killed by SIGSEGV"),
    "hang": (asleep, "it did not end within 1 seconds"),
    "greed": (greedy, "it wanted too much memory"),
}


@pytest.mark.parametrize("fate", FATES)
def test_the_report_says_that_it_could_not_tell(
    reading: Callable[[Callable[[], object]], None], fate: str
) -> None:
    work, why = FATES[fate]
    reading(work)
    report = examine.examine([str(CAPTURE.vmcore)])
    assert report.verdict.value == "could not tell"
    assert report.topology.resources == Unknown(f"reading the kernel's memory failed: {why}")
    # The headers were judged all the same.
    assert {outcome.rule for outcome in report.outcomes if outcome.state.value == "clean"} >= {
        "truncated-file",
        "doubled-vmcoreinfo",
        "bad-notes",
    }


@pytest.mark.parametrize("fate", FATES)
def test_check_exits_with_4_and_says_why(
    reading: Callable[[Callable[[], object]], None],
    fate: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    work, why = FATES[fate]
    reading(work)
    monkeypatch.setattr(sys, "argv", ["vmcheck", "check", str(CAPTURE.vmcore)])
    with pytest.raises(SystemExit) as exit:
        main()
    out, err = capfd.readouterr()
    assert exit.value.code == 4
    assert out.startswith("COULD NOT TELL: ")
    assert why in " ".join(out.split())
    assert err == ""


def test_distill_and_symbols_end_with_one_line(
    reading: Callable[[Callable[[], object]], None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    reading(killed_by(signal.SIGSEGV))
    monkeypatch.setattr("vmcheck.collect_symbols.Kernel", lambda *_: os.kill(os.getpid(), signal.SIGSEGV))
    for command in ("distill", "symbols"):
        output = tmp_path / command
        monkeypatch.setattr(sys, "argv", ["vmcheck", command, str(CAPTURE.vmcore), "-o", str(output)])
        with pytest.raises(SystemExit) as exit:
            main()
        assert exit.value.code == 3
        assert capfd.readouterr() == (
            "",
            "vmcheck: reading the kernel's memory failed: the reader was killed by SIGSEGV\n",
        )
    assert list(tmp_path.iterdir()) == []


def test_a_check_obeys_a_limit_of_the_shell_and_needs_little() -> None:
    """``ulimit -v``: what drgn maps and numpy's threads reserve, of which little is used."""
    limited = 'ulimit -v 1048576 && exec "$0" -m vmcheck check "$1" --json -'
    run = subprocess.run(
        ["sh", "-c", limited, sys.executable, str(CAPTURE.vmcore)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )
    assert (run.returncode, run.stderr) == (1, "")
    assert json.loads(run.stdout)["exit_status"] == 1


def test_what_is_done_meanwhile_is_done_here_and_the_answer_waits_for_it() -> None:
    done: list[int] = []
    parent = os.getpid()
    assert run_isolated(os.getpid, 30, SPACE, lambda: done.append(os.getpid())) != parent
    assert done == [parent]


def test_no_child_is_left_where_what_is_done_meanwhile_fails() -> None:
    def fail() -> None:
        raise VmcheckError("no template")

    with pytest.raises(VmcheckError, match="no template"):
        run_isolated(asleep, 30, SPACE, fail)
    assert children() == []


def test_a_check_imports_nothing_large_that_it_does_not_need() -> None:
    """numpy.ma comes with np.unique(), zipfile with a symbol file, jinja2 with a page: each costs a tenth."""
    command = [sys.executable, "-X", "importtime", "-m", "vmcheck", "check", str(CAPTURE.vmcore)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert {"numpy", "drgn", "vmcheck.report.terminal"} <= imported
    assert not imported & {"numpy.ma", "zipfile", "jinja2", "msgspec", "rich", "elftools"}
