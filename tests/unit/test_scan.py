# SPDX-License-Identifier: LGPL-2.1-or-later
"""Many dumps: one row each, whatever becomes of its worker; a scan that was stopped goes on."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from junitparser import JUnitXml

from fixtures.capture import captures
from tests.browser import Browser
from vmcheck import __version__
from vmcheck.errors import VmcheckError
from vmcheck.facts.fleet import FAILED, WORST_FIRST, Identity, Row
from vmcheck.operations import scan as scanning
from vmcheck.operations.crash_folder import FoundDump
from vmcheck.operations.scan import Done, How, check_one, find, identify, page_name, scan
from vmcheck.operations.store import Store
from vmcheck.report import fleet
from vmcheck.report.fleet import Fleet

STALE = next(each for each in captures() if each.name == "6.1.0-56-amd64/memory-and-cpu-added")
WHOLE = next(each for each in captures() if each.name == "6.1.0-56-amd64/fresh")
assert STALE.symbols == WHOLE.symbols


@pytest.fixture
def crashes(tmp_path: Path) -> Path:
    """Two dumps and a file that is none."""
    for name, capture in (("a", STALE), ("b", WHOLE)):
        (tmp_path / "crash" / name).mkdir(parents=True)
        shutil.copy(capture.vmcore, tmp_path / "crash" / name / "vmcore")
    (tmp_path / "crash" / "c").mkdir()
    (tmp_path / "crash" / "c" / "vmcore").write_bytes(b"not a dump at all")
    return tmp_path / "crash"


class Inline(Executor):
    """Workers that die over the dumps named: the pool is broken from then on, as a process pool is."""

    def __init__(self, deadly: frozenset[str], started: list[str]) -> None:
        self._deadly, self._started, self._broken = deadly, started, False

    def submit(self, work: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        if self._broken:
            raise BrokenProcessPool("broken")
        future: Future[Any] = Future()
        dump = arguments[0]
        self._started.append(dump.paths[0])
        if dump.paths[0] in self._deadly:
            self._broken = True
            future.set_exception(BrokenProcessPool("a worker died"))
        else:
            future.set_result(Done(row(dump.paths[0])))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        pass


def row(path: str, verdict: str = "complete", **others: Any) -> Row:
    identity = Identity(path, 1, 2, "aa")
    status = {"complete": 0, "incomplete": 1, "misleading": 1, "could not tell": 4, FAILED: 3}[verdict]
    return Row(identity, 1, __version__, verdict, f"{verdict.upper()}: because", status, **others)


def begun(path: str | None = None) -> Store:
    store = Store(path)
    store.begin([], __version__, 0)
    return store


def test_a_worker_that_dies_over_a_dump_costs_that_dump_alone() -> None:
    dumps = [FoundDump((f"/none/{number}",)) for number in range(12)]
    started: list[str] = []
    deadly = frozenset({"/none/3", "/none/7"})
    with begun() as store:
        done = list(scan(dumps, store, lambda: Inline(deadly, started), window=4))
        stored = [row.identity.path for row, _ in store.rows()]
    verdicts = {each.row.identity.path: each.row.verdict for each in done}
    assert verdicts == {dump.paths[0]: FAILED if dump.paths[0] in deadly else "complete" for dump in dumps}
    assert len(done) == len(dumps)
    assert sorted(stored) == sorted(verdicts)
    assert all(started.count(path) == scanning.ENDS_AFTER for path in deadly)


def test_folders_patterns_and_files_are_found_once(crashes: Path) -> None:
    found = find([str(crashes), str(crashes / "*" / "vmcore"), str(crashes / "a" / "vmcore")])
    assert [dump.paths for dump in found] == [(str(crashes / name / "vmcore"),) for name in "abc"]


def test_a_source_without_a_dump_stays_in_the_table(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    missing = str(tmp_path / "gone")
    rows = [check_one(dump).row for dump in find([str(tmp_path / "empty"), missing])]
    assert [(each.verdict, each.exit_status) for each in rows] == [(FAILED, 3)] * 2
    assert "no dump in this directory" in rows[0].answer
    assert "No such file" in rows[1].answer


def test_rows_say_what_the_reports_say(crashes: Path) -> None:
    stale, whole, foreign = (check_one(dump, How(STALE.symbols)).row for dump in find([str(crashes)]))
    report = json.loads(stale.report)
    assert (stale.verdict, stale.missing, stale.cpus) == ("incomplete", 128 << 20, (2,))
    assert stale.ranges == ((0x100000000, 0x108000000),)
    assert stale.answer == report["answer"]
    assert stale.cause == report["diagnosis"]["causes"][0]["name"]
    assert (whole.verdict, whole.missing, whole.exit_status) == ("complete", 0, 0)
    assert (foreign.verdict, foreign.report) == (FAILED, "")
    assert foreign.answer.startswith("a text file, not a dump")


def test_what_has_not_changed_is_not_read_again(crashes: Path, tmp_path: Path) -> None:
    file = str(tmp_path / "fleet.db")
    dumps = find([str(crashes)])
    started: list[str] = []

    def rows_of(executor: list[str]) -> list[str]:
        with begun(file) as store:
            list(scan(dumps, store, lambda: Inline(frozenset(), executor), window=2))
            return [each.identity.path for each, _ in store.rows()]

    def inline() -> Executor:
        return Inline(frozenset(), started)

    with begun(file) as store:
        for dump in dumps:
            store.put(replace(row(dump.paths[0]), identity=identify(dump)))
    assert len(rows_of(started)) == 3
    assert started == []
    changed = crashes / "b" / "vmcore"
    os.utime(changed, ns=(1, 1))
    with begun(file) as store:
        list(scan(dumps, store, inline, window=2))
    assert started == [str(changed)]


def test_another_version_of_vmcheck_checks_again(crashes: Path, tmp_path: Path) -> None:
    dump = find([str(crashes / "a")])[0]
    with begun(str(tmp_path / "fleet.db")) as store:
        store.put(replace(row(dump.paths[0]), identity=identify(dump), vmcheck="0.0.1"))
        assert store.known(identify(dump), __version__) is None


def test_a_store_keeps_every_field_and_what_is_new(tmp_path: Path) -> None:
    file = str(tmp_path / "fleet.db")
    full = row(
        "/a",
        "incomplete",
        missing=5,
        ranges=((1, 6),),
        cpus=(2, 3),
        kernel="6.1",
        build_id="ab",
        machine="x86_64",
        host="h",
        regime="no-update",
        cause="added-after-load",
        certainty="certain",
        crash_time=7,
        seconds=0.5,
        report="{}",
    )
    with begun(file) as store:
        store.put(full)
        assert list(store.rows()) == [(full, True)]
    with begun(file) as store:
        store.put(full)
        store.put(row("/b"))
        assert list(store.rows(report=False)) == [(replace(full, report=""), False), (row("/b"), True)]


@pytest.mark.parametrize("content", [b"text", b"SQLite format 3\0 and then nothing"])
def test_a_file_that_is_no_store_is_left_alone(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "fleet.db"
    file.write_bytes(content)
    with pytest.raises(VmcheckError, match=r"fleet\.db"):
        Store(str(file))
    assert file.read_bytes() == content


def test_another_program_s_database_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "fleet.db"
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE other (x)")
    with pytest.raises(VmcheckError, match="not a store of vmcheck scan"):
        Store(str(file))


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "vmcheck", "scan", *arguments, "-s", str(STALE.symbols)]


def outputs(folder: Path) -> dict[str, str]:
    return {
        f"--{kind}": str(folder / f"fleet.{kind}")
        for kind in ("html", "json", "csv", "junit", "store", "textfile")
    }


def test_the_command_writes_every_form(crashes: Path, tmp_path: Path) -> None:
    files = outputs(tmp_path)
    options = [word for option in files.items() for word in option]
    done = subprocess.run(
        command(str(crashes), *options, "--reports", str(tmp_path / "pages")), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.startswith("3 dumps: 1 UNREADABLE, 1 INCOMPLETE, 1 COMPLETE\n")
    assert [json.loads(line)["verdict"] for line in Path(files["--json"]).read_text().splitlines()] == [
        FAILED, "incomplete", "complete"
    ]  # fmt: skip
    table = csv.DictReader(io.StringIO(Path(files["--csv"]).read_text()))
    assert [line["missing_bytes"] for line in table] == [
        "0",
        str(128 << 20),
        "0",
    ]
    suite = next(iter(JUnitXml.fromfile(files["--junit"])))
    assert (suite.tests, suite.failures, suite.errors) == (3, 1, 1)
    assert 'vmcheck_scan_dumps{verdict="incomplete"} 1' in Path(files["--textfile"]).read_text()
    page = Path(files["--html"]).read_text()
    for path in (crashes / "a" / "vmcore", crashes / "b" / "vmcore"):
        name = page_name(str(path))
        assert (tmp_path / "pages" / name).stat().st_size > 10_000
        assert f"pages/{name}" in page
    with sqlite3.connect(files["--store"]) as database:
        assert database.execute("SELECT count(*) FROM dumps WHERE verdict = 'incomplete'").fetchone() == (1,)


def test_a_scan_that_is_killed_goes_on_where_it_was(crashes: Path, tmp_path: Path) -> None:
    for number in range(6):
        shutil.copytree(crashes / "a", crashes / f"a{number}")
    store, table = str(tmp_path / "fleet.db"), tmp_path / "fleet.csv"
    arguments = command(str(crashes), "--store", store, "--jobs", "1", "--csv", str(table))
    first = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while rows_in(store) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    kept = rows_in(store)
    assert kept >= 2
    subprocess.run(arguments, stdout=subprocess.DEVNULL, check=False)
    undisturbed = tmp_path / "undisturbed.csv"
    subprocess.run(command(str(crashes), "--csv", str(undisturbed)), stdout=subprocess.DEVNULL, check=False)
    assert without_times(table) == without_times(undisturbed)


def rows_in(store: str) -> int:
    try:
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as database:
            return int(database.execute("SELECT count(*) FROM dumps").fetchone()[0])
    except sqlite3.Error:
        return 0


def without_times(table: Path) -> list[dict[str, str]]:
    return [{**line, "seconds": ""} for line in csv.DictReader(io.StringIO(table.read_text()))]


def test_dask_workers_give_the_same_table(crashes: Path, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    here, there = tmp_path / "here.csv", tmp_path / "there.csv"
    subprocess.run(command(str(crashes), "--csv", str(here)), stdout=subprocess.DEVNULL, check=False)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        subprocess.run(
            command(str(crashes), "--csv", str(there), "--dask", cluster.scheduler_address),
            stdout=subprocess.DEVNULL,
            check=False,
        )
    assert without_times(here) == without_times(there)


def test_no_scheduler_is_one_line(crashes: Path) -> None:
    done = subprocess.run(
        command(str(crashes), "--dask", "tcp://127.0.0.1:1"), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith("vmcheck: tcp://127.0.0.1:1: no Dask scheduler answers")


# What people see.


def many(number: int) -> Fleet:
    verdicts = deque(WORST_FIRST)
    rows = []
    for index in range(number):
        verdicts.rotate(1)
        rows.append(
            row(
                f"/srv/crash/host-{index % 97}/2026{index % 12 + 1:02}{index % 28 + 1:02}-{index}/vmcore",
                verdicts[0],
                missing=(index % 5) << 27,
                cpus=(index % 8,),
                kernel=f"6.{index % 13}.0-{index % 40}-amd64",
                host=f"host-{index % 97}",
                regime="no-update",
                cause="added-after-load",
                certainty="certain",
                crash_time=1_700_000_000 + index * 3600,
            )
        )
    return Fleet.of((each, False) for each in rows)


def test_the_page_of_ten_thousand_dumps_is_under_3_mb() -> None:
    assert len(fleet.page(many(10_000)).encode()) < 3_000_000


HOSTILE = '</script><script>window.owned = 1</script><img src=x onerror="window.owned = 1">'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not shutil.which("chromium"):
        pytest.skip("no chromium here")
    with Browser() as opened:
        yield opened


def test_the_page_filters_and_sorts_by_the_keyboard(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "fleet.html"
    page.write_text(fleet.page(many(1000)))
    browser.open(page)
    assert browser.ask("document.getElementById('shown').textContent") == "1000 dumps"
    browser.press("/", 191)
    assert browser.ask("document.activeElement.id") == "filter"
    browser.ask("document.getElementById('filter').value = 'host-13 misleading'")
    browser.ask("document.getElementById('filter').dispatchEvent(new Event('input'))")
    counted = browser.ask("document.querySelectorAll('#rows tbody tr').length")
    assert 0 < counted < 1000 / 97
    browser.ask("document.querySelectorAll('#rows th button')[1].click()")
    assert browser.ask("document.querySelectorAll('#rows th')[1].getAttribute('aria-sort')") == "descending"
    assert browser.told("Runtime.exceptionThrown", "Runtime.consoleAPICalled") == []


def test_hostile_names_do_nothing(browser: Browser, tmp_path: Path) -> None:
    hostile = replace(
        row("/x", "incomplete", host=HOSTILE, kernel=HOSTILE, cause=HOSTILE),
        answer=f"INCOMPLETE: {HOSTILE}",
        identity=Identity(f"/{HOSTILE}\x1b[31m", 1, 2, "aa"),
    )
    page = tmp_path / "fleet.html"
    page.write_text(fleet.page(Fleet.of([(hostile, True), (row("/y"), False)])))
    browser.open(page)
    assert browser.ask("window.owned") is None
    assert browser.ask("document.querySelectorAll('img').length") == 0
    assert browser.ask("document.getElementById('shown').textContent") == "2 dumps"


def test_a_cell_is_no_formula() -> None:
    table = fleet.as_csv(Fleet.of([(replace(row("/x", host="=HYPERLINK(1)")), False)]))
    assert next(csv.DictReader(io.StringIO(table)))["host"] == "'=HYPERLINK(1)"
