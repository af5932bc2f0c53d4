# SPDX-License-Identifier: LGPL-2.1-or-later
"""Many dumps, each checked by a worker process: one that fails, hangs or kills its worker is one row."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import vmcheck
from vmcheck.budget import DEFAULT, Budget
from vmcheck.errors import VmcheckError, plain
from vmcheck.facts.fleet import FAILED, Identity, Row
from vmcheck.files import open_descriptor
from vmcheck.operations.crash_folder import FoundDump, find_dumps
from vmcheck.operations.isolation import ChildDied, run_isolated
from vmcheck.operations.store import Store
from vmcheck.records.comparison import UNNAMED

HEAD = 64 << 10
"""Bytes of each file that identify a dump, beside its size and time."""

DASK_WINDOW = 1024
"""Dumps that a Dask scheduler is given at a time."""

WORKER_MEMORY = 8 << 30
"""Bytes; each dump has its own budget within."""

ENDS_AFTER = 2
"""Workers that may die over one dump before it is a row of its own."""


def find(sources: Iterable[str]) -> list[FoundDump]:
    """The dumps below folders, of glob patterns, and files as they are named; each once, by path.

    A source without a dump is itself a dump that cannot be read: it must not vanish from the table.
    """
    found: dict[tuple[str, ...], FoundDump] = {}
    for source in sources:
        paths = [source] if os.path.lexists(source) else _matching(source) or [source]
        for path in paths:
            for dump in _below(path):
                found.setdefault(dump.paths, dump)
    return sorted(found.values(), key=lambda dump: dump.paths)


def _matching(pattern: str) -> list[str]:
    anchor = Path(pattern).anchor
    try:
        return sorted(map(str, Path(anchor or ".").glob(pattern[len(anchor) :])))
    except (ValueError, NotImplementedError, OSError):
        return []


def _below(path: str) -> list[FoundDump]:
    absolute = os.path.normpath(Path(path).absolute())
    # Path.is_dir() raises where the folder may not be searched.
    if not os.path.isdir(absolute):  # noqa: PTH112
        return [FoundDump((absolute,))]
    try:
        return find_dumps(absolute)
    except VmcheckError as error:
        return [FoundDump((absolute,), refusal=str(error))]


def identify(dump: FoundDump) -> Identity:
    """Raises OSError or UnreadableFile where a part cannot be read."""
    size, written, head = 0, 0, hashlib.sha256()
    for path in dump.paths:
        with os.fdopen(open_descriptor(path, devices=True), "rb") as file:
            status = os.fstat(file.fileno())
            size, written = size + status.st_size, max(written, status.st_mtime_ns)
            head.update(file.read(HEAD))
    return Identity(dump.paths[0], size, written, head.hexdigest())


class Done(NamedTuple):
    """What a worker sends back."""

    row: Row
    page: bytes = b""
    """The dump's own page, where it was asked for."""


class How(NamedTuple):
    """How each dump is checked."""

    symbols: str | None = None
    redact: bool = False
    pages: bool = False
    """Each dump's own page is wanted."""
    budget: Budget = DEFAULT


AS_USUAL = How()


def check_one(dump: FoundDump, how: How = AS_USUAL) -> Done:
    """One dump's row, and its page if one is wanted, whatever comes of it: this is what a worker does."""
    if threading.current_thread() is not threading.main_thread():
        # Dask's workers are threads, and a process has one budget.
        try:
            return run_isolated(
                lambda: check_one(dump, how), how.budget.seconds * 2, WORKER_MEMORY, (), False
            )
        except (ChildDied, MemoryError, RuntimeError, OSError) as error:
            return Done(failed(dump, f"the process that checked it failed: {error}"))
    began = time.monotonic()
    page = b""
    try:
        if dump.refusal:
            raise VmcheckError(dump.refusal)
        row, page = _checked(identify(dump), dump, how)
    except OSError as error:
        row = failed(dump, f"{error.strerror or error}")
    except VmcheckError as error:
        row = failed(dump, str(error))
    except Exception as error:
        row = failed(dump, f"a bug in vmcheck: {type(error).__name__}: {error}")
    return Done(replace(row, seconds=round(time.monotonic() - began, 3)), page)


def failed(dump: FoundDump, why: str) -> Row:
    """The row of a dump that has no report."""
    try:
        identity = identify(dump)
    except (OSError, VmcheckError):
        identity = Identity(dump.paths[0], 0, 0, "")
    from vmcheck.check import ExitStatus

    reason = plain(why).removeprefix(f"{plain(dump.paths[0])}: ")
    return Row(identity, len(dump.paths), vmcheck.__version__, FAILED, reason, int(ExitStatus.UNREADABLE))


def _checked(identity: Identity, dump: FoundDump, how: How) -> Done:
    from vmcheck.operations.examine import examine
    from vmcheck.report.document import to_json

    report = examine(dump.paths, symbols=how.symbols, budget=how.budget)
    page = b""
    if how.pages:
        from vmcheck.report.page import page as render

        page = render(report).encode()
    document = to_json(report).decode()
    answers = json.loads(document)
    diagnosis = answers.get("diagnosis") or {}
    causes = diagnosis.get("causes") or [{}]
    node = report.header.utsname[1] if len(report.header.utsname) > 1 else ""
    if node in UNNAMED:
        node = ""
    if how.redact and node:
        document = document.replace(json.dumps(node)[1:-1], _hashed(node))
        page = page.replace(node.encode(), _hashed(node).encode())
        node = _hashed(node)
    seconds = report.header.vmcoreinfo.get("CRASHTIME", "")
    row = Row(
        identity,
        len(dump.paths),
        vmcheck.__version__,
        answers["verdict"],
        answers["answer"],
        answers["exit_status"],
        missing=report.lost_memory.size,
        ranges=tuple(report.lost_memory),
        cpus=report.lost_cpus,
        kernel=answers["kernel"]["release"] or "",
        build_id=answers["kernel"]["build_id"] or "",
        machine=answers["dump"]["machine"],
        host=plain(node),
        regime=(diagnosis.get("regime") or {}).get("name", ""),
        cause=causes[0].get("name", ""),
        certainty=causes[0].get("certainty", ""),
        crash_time=int(seconds) if seconds.isascii() and seconds.isdigit() and len(seconds) < 12 else None,
        report=document,
    )
    return Done(row, page)


def _hashed(node: str) -> str:
    return f"sha256:{hashlib.sha256(node.encode()).hexdigest()[:16]}"


def local_pool(jobs: int) -> Executor:
    """Worker processes of this machine. Forked by a server that has no threads: workers fork again."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vmcheck.operations.examine", "vmcheck.report.document"])
    return ProcessPoolExecutor(jobs, mp_context=context)


def dask_pool(address: str) -> Executor:
    """The workers of a Dask scheduler. Raises VmcheckError where it cannot be reached."""
    try:
        from distributed import Client
    except ImportError:
        raise VmcheckError("--dask needs the extra: pip install 'vmcheck[dask]'") from None
    try:
        client: Any = Client(  # type: ignore[no-untyped-call]
            address, timeout="10s", set_as_default=False
        )
    except (OSError, ValueError) as error:
        raise VmcheckError(f"{address}: no Dask scheduler answers: {error}") from None
    executor: Executor = client.get_executor(pure=False, retries=2)
    return executor


def page_name(path: str) -> str:
    """The file name of a dump's own page: no two dumps share one, whatever their paths hold."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", path.strip("/"))[-80:].lstrip(".-")
    return f"{stem}.{hashlib.sha256(os.fsencode(path)).hexdigest()[:12]}.html"


def scan(
    dumps: Sequence[FoundDump],
    store: Store,
    pool: Callable[[], Executor],
    window: int,
    how: How = AS_USUAL,
) -> Iterator[Done]:
    """Each dump's row as it comes. What the store knows already is not read again.

    ``pool()`` makes an executor; it is made once more where a worker's death broke it.
    ``window`` is how many dumps are in work or wait for a worker at a time.
    """
    todo: deque[FoundDump] = deque()
    for dump in dumps:
        row = _unchanged(dump, store)
        if row is not None:
            yield Done(row)
        else:
            todo.append(dump)
    deaths: dict[FoundDump, int] = {}
    while todo:
        # Which of the dumps in work broke the pool is not known: each of them goes alone from then on.
        suspects = [dump for dump in todo if dump in deaths]
        batch, at_once = deque(suspects or todo), 1 if suspects else window
        todo = deque(dump for dump in todo if suspects and dump not in deaths)
        executor = pool()
        try:
            for dump, done in _run(executor, batch, at_once, how):
                if done is None:
                    deaths[dump] = deaths.get(dump, 0) + 1
                    if deaths[dump] < ENDS_AFTER:
                        todo.append(dump)
                        continue
                    done = Done(failed(dump, "the process that checked it was killed"))
                store.put(done.row)
                yield done
        finally:
            executor.shutdown(wait=False)
        todo.extend(batch)


def _unchanged(dump: FoundDump, store: Store) -> Row | None:
    try:
        identity = identify(dump)
    except (OSError, VmcheckError):
        return None
    return store.known(identity, vmcheck.__version__)


def _run(
    executor: Executor, waiting: deque[FoundDump], window: int, how: How
) -> Iterator[tuple[FoundDump, Done | None]]:
    """Rows in the order in which they are done; None for each dump in work when a worker died.

    What was not begun by then stays in ``waiting``.
    """
    running: dict[Future[Done], FoundDump] = {}
    broken = False
    try:
        while running or waiting:
            while waiting and len(running) < window and not broken:
                dump = waiting.popleft()
                try:
                    running[executor.submit(check_one, dump, how)] = dump
                except BrokenExecutor:
                    waiting.appendleft(dump)
                    broken = True
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                dump = running.pop(future)
                try:
                    yield dump, future.result()
                except (BrokenExecutor, CancelledError):
                    broken = True
                    yield dump, None
    finally:
        for future in running:
            future.cancel()
