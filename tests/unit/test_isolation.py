# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reading a kernel runs apart: a crash, a hang or greed is one line and "could not tell"."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.capture import captures
from vmcheck.cli import main
from vmcheck.errors import PageNotStored, VmcheckError, plain
from vmcheck.facts.topology import Unknown
from vmcheck.kernel import read as kernel_read
from vmcheck.operations import examine
from vmcheck.operations.isolation import ChildDied, run_isolated, start
from vmcheck.operations.store import Store

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


QUARTER = 256 << 20


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
        isolated(work, space=QUARTER)


def test_an_answer_that_is_too_large_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        isolated(lambda: "x" * (200 << 20), space=QUARTER)


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
        monkeypatch.setattr(kernel_read, "Reading", lambda *_, **__: work())
        real = start
        monkeypatch.setattr(examine, "start", lambda read, *_: real(read, 1.0, 256 << 20))

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
    monkeypatch.setattr("vmcheck.operations.symbols.Kernel", lambda *_: os.kill(os.getpid(), signal.SIGSEGV))
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


def test_the_parent_goes_on_while_the_child_works() -> None:
    with start(os.getpid, 30, SPACE) as pending:
        here = os.getpid()
        assert pending.result() != here
    assert children() == []


def test_no_child_is_left_where_the_parent_fails_meanwhile() -> None:
    with pytest.raises(VmcheckError, match="no template"), start(asleep, 30, SPACE):
        raise VmcheckError("no template")
    assert children() == []


def test_an_answer_is_had_inside_an_except_block() -> None:
    try:
        raise ValueError
    except ValueError:
        assert isolated(lambda: 7) == 7
    assert children() == []


# The sandbox.


def refused(call: Callable[[], object]) -> str:
    """What the child is told where it tries."""

    def attempt() -> str:
        try:
            call()
        except OSError as error:
            return os.strerror(error.errno or 0)
        return "allowed"

    return str(isolated(attempt))


def test_a_reader_changes_no_file_and_starts_nothing(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("whole")
    new = str(tmp_path / "new")
    tries: dict[str, Callable[[], object]] = {
        "write a new file": lambda: os.open(new, os.O_WRONLY | os.O_CREAT),
        "write an old file": lambda: os.open(victim, os.O_RDWR),
        "truncate": lambda: os.truncate(victim, 0),
        "unlink": victim.unlink,
        "rename": lambda: victim.rename(new),
        "mkdir": Path(new).mkdir,
        "symlink": lambda: Path(new).symlink_to(victim),
        "link": lambda: os.link(victim, new),
        "chmod": lambda: victim.chmod(0o777),
        "shared memory": lambda: os.open("/dev/shm/vmcheck-escaped", os.O_WRONLY | os.O_CREAT),
        "fork": os.fork,
        "execve": lambda: os.execv("/bin/true", ["true"]),
        "socket": socket.socket,
        "socketpair": socket.socketpair,
        "signal the parent": lambda: os.kill(os.getppid(), 0),
    }
    said = {what: refused(call) for what, call in tries.items()}
    assert {what for what, answer in said.items() if answer == "allowed"} == set(), said
    assert victim.read_text() == "whole"
    assert not Path(new).exists()


def test_a_reader_still_reads_files_imports_and_starts_threads() -> None:
    def work() -> tuple[str, int, list[int]]:
        done: list[int] = []
        thread = threading.Thread(target=done.append, args=(1,))
        thread.start()
        thread.join()
        import colorsys

        return Path(__file__).read_text()[:9], len(colorsys.__all__), done

    assert isolated(work) == ("# SPDX-Li", 6, [1])


def test_a_reader_does_not_outlive_its_parent() -> None:
    """The parent of the reader is killed; the reader reports its PID before it sleeps."""
    script = (
        "import os, sys, time\n"
        "from vmcheck.operations.isolation import run_isolated\n"
        "def work():\n"
        "    os.write(1, b'%d\\n' % os.getpid())\n"
        "    time.sleep(600)\n"
        "run_isolated(work, 600, 1 << 30)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{child}").exists()


class Order:
    """What a reader that was taken over might send."""

    def __init__(self, call: Callable[..., object], *arguments: object) -> None:
        self._order = (call, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._order


ORDERS = [Order(os.system, "touch owned"), Order(Store, "owned.db"), Order(eval, "1")]


@pytest.mark.parametrize("order", ORDERS)
def test_an_answer_that_would_run_something_is_refused(
    order: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ChildDied, match="a reader may not send"):
        isolated(lambda: order)
    assert list(tmp_path.iterdir()) == []


def test_a_check_imports_nothing_large_that_it_does_not_need() -> None:
    """numpy.ma comes with np.unique(), zipfile with a symbol file, jinja2 with a page: each costs a tenth."""
    command = [sys.executable, "-X", "importtime", "-m", "vmcheck", "check", str(CAPTURE.vmcore)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert {"numpy", "drgn", "vmcheck.report.terminal"} <= imported
    assert not imported & {"numpy.ma", "zipfile", "jinja2", "msgspec", "rich", "elftools"}
