# SPDX-License-Identifier: LGPL-2.1-or-later
"""Worker processes that try cases, and a parent that counts, ends what hangs, and files what fails."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import select
import shutil
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple

from vmcheck.budget import DEFAULT, OverBudget, data_size, within
from vmcheck.errors import VmcheckError

HANGS = 2 * DEFAULT.seconds
"""Seconds after which a case is ended. The budget should have ended it before."""
WORKER_LIFE = 2000
"""Cases: a worker that gets old keeps memory of cases that are done."""
MOST_MEMORY = DEFAULT.memory + (200 << 20)
"""Bytes that a worker may have held at once, its libraries included."""


class Answer(NamedTuple):
    """How one case ended."""

    outcome: str
    """``answered``, ``refused``, ``budget``, ``unchanged``, or one of FAILURES."""
    detail: str = ""
    counts: tuple[str, ...] = ()
    """What else is counted."""


FAILURES = ("traceback", "hang", "killed", "memory", "false-complete", "untrue-certain", "untrue-finding")

Try = Callable[[int, Path], Answer]
"""Case number, an empty folder -> how it ended."""


@dataclass
class Result:
    cases: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    failures: dict[int, Answer] = field(default_factory=dict)
    """By case."""


def guarded(read: Callable[[], None]) -> Answer:
    """How ``read`` ends, within the budget of one dump."""
    before = data_size()
    try:
        with within(DEFAULT, "the case"):
            read()
    except OverBudget:
        return Answer("budget")
    except VmcheckError as error:
        if "\n" in str(error) or not str(error).isprintable():
            return Answer("traceback", f"the error is not one line: {str(error)!r}")
        return Answer("refused")
    except Exception:
        return Answer("traceback", traceback.format_exc())
    if data_size() - before > DEFAULT.memory:
        return Answer("memory", f"{data_size() - before:,} bytes more than before")
    return Answer("answered")


def run(attempt: Try, first: int, cases: int, seconds: float, jobs: int) -> Result:
    """Cases ``first`` and on, until ``cases`` were tried or ``seconds`` have passed."""
    result = Result()
    began = time.monotonic()
    workers = [_Worker(attempt, number, jobs) for number in range(jobs)]
    following = iter(range(first, first + cases))
    try:
        while True:
            over = time.monotonic() - began > seconds
            for worker in workers:
                if worker.case is None and not over and (case := next(following, None)) is not None:
                    worker.give(case)
            busy = [worker for worker in workers if worker.case is not None]
            if not busy:
                break
            ready, _, _ = select.select([worker.receive for worker in busy], [], [], 0.5)
            for worker in busy:
                case = worker.case
                assert case is not None
                if worker.receive in ready:
                    answer = worker.answer()
                elif time.monotonic() - worker.since > HANGS:
                    worker.restart()
                    answer = Answer("hang", f"no answer after {HANGS:g} seconds")
                else:
                    continue
                result.cases += 1
                result.outcomes[answer.outcome] += 1
                result.counts.update(answer.counts)
                if answer.outcome in FAILURES:
                    result.failures[case] = answer
    finally:
        for worker in workers:
            worker.end()
    result.seconds = time.monotonic() - began
    return result


class _Worker:
    """A forked process that tries one case after the other."""

    def __init__(self, attempt: Try, number: int, jobs: int) -> None:
        self._attempt = attempt
        self.case: int | None = None
        self.since = 0.0
        self._tried = 0
        self._start()

    def _start(self) -> None:
        read_order, self._order = os.pipe()
        self.receive, write_answer = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            os.close(self._order)
            os.close(self.receive)
            _serve(self._attempt, read_order, write_answer)
        os.close(read_order)
        os.close(write_answer)
        self._buffer = b""

    def give(self, case: int) -> None:
        if self._tried >= WORKER_LIFE:
            self.restart()
        self._tried += 1
        self.case, self.since = case, time.monotonic()
        os.write(self._order, b"%d\n" % case)

    def answer(self) -> Answer:
        """The answer to the case given; its death is one too."""
        while not self._buffer.endswith(b"\n"):
            piece = os.read(self.receive, 1 << 16)
            if not piece:
                status = self.restart()
                return Answer("killed", f"the worker ended with wait status {status:#x}")
            self._buffer += piece
        outcome, detail, counts = json.loads(self._buffer)
        self._buffer, self.case = b"", None
        return Answer(outcome, detail, tuple(counts))

    def restart(self) -> int:
        status = self.end()
        self.case, self._tried = None, 0
        self._start()
        return status

    def end(self) -> int:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._child, signal.SIGKILL)
        _, status = os.waitpid(self._child, 0)
        os.close(self._order)
        os.close(self.receive)
        return status


def _serve(attempt: Try, orders: int, answers: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    folder = Path(mkdtemp(prefix="vmcheck-fuzz-"))
    status = 1
    try:
        with os.fdopen(orders) as lines:
            for line in lines:
                answer = attempt(int(line), folder)
                for path in folder.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                data = json.dumps([answer.outcome, answer.detail[-4000:], answer.counts]).encode() + b"\n"
                while data:
                    data = data[os.write(answers, data) :]
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(status)


def operations(case: int) -> list[int]:
    """What case ``case`` is made of: one to six integers."""
    dice = random.Random(case)
    return [dice.randrange(1 << 40) for _ in range(dice.choice((1, 1, 1, 2, 2, 3, 4, 6)))]


def minimised(fails: Callable[[Sequence[int]], bool], made_of: Sequence[int]) -> list[int]:
    """As few of the operations as still fail. ``fails`` runs in a process of its own."""
    kept = list(made_of)
    for each in made_of:
        fewer = [other for other in kept if other != each]
        if fewer and in_a_fork(lambda some=fewer: fails(some)):  # type: ignore[misc]
            kept = fewer
    return kept


def in_a_fork(question: Callable[[], bool]) -> bool:
    """The answer of a forked process; True where it dies or does not answer in time."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os._exit(0 if question() else 1)
        os._exit(2)
    deadline = time.monotonic() + HANGS
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) != 1
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True
