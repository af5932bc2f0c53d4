# SPDX-License-Identifier: LGPL-2.1-or-later
"""``vmcheck scan``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vmcheck.cli import statuses
from vmcheck.cli.limits import budget, limit_options
from vmcheck.cli.output import STDOUT, to_stdout, write
from vmcheck.operations.outputs import forbid_overwriting

if TYPE_CHECKING:
    from vmcheck.facts.fleet import Row
    from vmcheck.report.fleet import Fleet

HELP = """Check many dumps and show one table, worst first.

SOURCE is a dump, a folder with dumps below it, or a glob pattern in quotes. Each
dump is checked by a worker process: one that cannot be read, or that kills its
worker, is one row.

With --store, results are kept in an SQLite file. A scan that was stopped goes on
where it was, and a dump that has not changed is not read again. A newer vmcheck
checks it again.

\b
Examples:
  vmcheck scan /var/crash
  vmcheck scan '/srv/crash/*/vmcore' --store fleet.db --html fleet.html
  find /srv -name vmcore | vmcheck scan --from - --store fleet.db --csv fleet.csv
"""


LARGEST_LIST = 64 << 20
"""Bytes of a list of sources."""


@click.command(help=HELP + statuses.HELP, short_help="Check many dumps: one table, one store.")
@click.argument("source", nargs=-1)
@click.option(
    "--from",
    "listing",
    metavar="FILE",
    help="Read more sources from FILE, a line each ('-': standard input).",
)
@click.option("-s", "--symbols", metavar="FILE", help="As of 'vmcheck check', for every dump.")
@click.option(
    "--jobs", type=click.IntRange(1, 256), default=None, show_default="the cores", help="Worker processes."
)
@click.option(
    "--dask", metavar="ADDRESS", help="Use the workers of a Dask scheduler; they read the same paths."
)
@click.option("--store", "store_file", metavar="FILE", help="Keep the results in this SQLite file.")
@click.option("--reports", metavar="DIR", help="Write each dump's page to DIR.")
@click.option(
    "--html", "html_file", metavar="FILE", help="Write a page of all dumps: sorts, filters, needs no network."
)
@click.option("--json", "json_file", metavar="FILE", help="Write a JSON line a dump.")
@click.option("--csv", "csv_file", metavar="FILE", help="Write a CSV line a dump.")
@click.option("--junit", "junit_file", metavar="FILE", help="Write JUnit XML, a case a dump.")
@click.option("--textfile", metavar="FILE", help="Write Prometheus metrics for node_exporter.")
@click.option("--redact", is_flag=True, help="Keep hashes of host names, not the names.")
@limit_options
def scan(
    source: tuple[str, ...],
    listing: str | None,
    symbols: str | None,
    jobs: int | None,
    dask: str | None,
    store_file: str | None,
    reports: str | None,
    html_file: str | None,
    json_file: str | None,
    csv_file: str | None,
    junit_file: str | None,
    textfile: str | None,
    redact: bool,
    time_limit: float,
    memory_limit: int,
) -> int:
    sources = [*source, *(_listed(listing) if listing else [])]
    if not sources:
        raise click.UsageError("name a dump, a folder or a pattern, or give a list with --from.")
    outputs = [each for each in (html_file, json_file, csv_file, junit_file, textfile) if each is not None]
    if len(set(outputs)) < len(outputs):
        raise click.UsageError("each output needs a file of its own.")

    import vmcheck
    from vmcheck.check import ExitStatus
    from vmcheck.operations import scan as scanning
    from vmcheck.operations.store import Store
    from vmcheck.report import fleet as rendering

    dumps = scanning.find(sources)
    for output in {*outputs, *([store_file] if store_file else [])} - {STDOUT}:
        forbid_overwriting(output, [path for dump in dumps for path in dump.paths])
    workers = jobs or os.cpu_count() or 1
    pool, window = _pool(dask, workers)
    with Store(store_file) as store:
        store.begin(sources, vmcheck.__version__, int(time.time()))
        progress = Progress(len(dumps))
        how = scanning.How(symbols, redact, reports is not None, budget(time_limit, memory_limit))
        for done in scanning.scan(dumps, store, pool, window, how):
            progress.saw(done.row)
            if reports is not None and done.page:
                Path(reports).mkdir(parents=True, exist_ok=True)
                write(str(Path(reports) / scanning.page_name(done.row.identity.path)), done.page)
        progress.end()
        store.finish(int(time.time()))
        fleet = rendering.Fleet.of(store.rows(report=False))
    if html_file is not None:
        write(html_file, rendering.page(fleet, _links(fleet, reports, html_file)).encode())
    if json_file is not None:
        write(json_file, rendering.json_lines(fleet).encode())
    if csv_file is not None:
        write(csv_file, rendering.as_csv(fleet).encode("utf-8", "backslashreplace"))
    if junit_file is not None:
        write(junit_file, rendering.junit(fleet))
    if textfile is not None:
        write(textfile, rendering.prometheus(fleet, int(time.time())).encode())
    if STDOUT not in outputs:
        to_stdout("".join(f"{line}\n" for line in rendering.table(fleet, _width())).encode())
    order = (ExitStatus.UNREADABLE, ExitStatus.FOUND, ExitStatus.COULD_NOT_TELL, ExitStatus.COMPLETE)
    return int(
        min((ExitStatus(row.exit_status) for row in fleet.rows), key=order.index, default=ExitStatus.COMPLETE)
    )


def _listed(listing: str) -> list[str]:
    from vmcheck.files import read_input

    data = sys.stdin.buffer.read(LARGEST_LIST) if listing == STDOUT else read_input(listing, LARGEST_LIST)
    return [line for line in os.fsdecode(data).splitlines() if line.strip()]


def _pool(dask: str | None, workers: int) -> tuple[Callable[[], Executor], int]:
    """What makes an executor, and how many dumps it is given at a time."""
    from vmcheck.operations import scan as scanning

    if dask is None:
        return lambda: scanning.local_pool(workers), 2 * workers
    return lambda: scanning.dask_pool(dask), scanning.DASK_WINDOW


def _links(fleet: Fleet, reports: str | None, html_file: str) -> dict[str, str]:
    """Each dump's own page by the dump's path, as the page of all dumps links to it."""
    if reports is None:
        return {}
    from vmcheck.operations.scan import page_name

    beside = os.path.relpath(reports, Path(html_file).parent) if html_file != STDOUT else reports
    names = {row.identity.path: page_name(row.identity.path) for row in fleet.rows}
    return {
        path: (Path(beside) / name).as_posix()
        for path, name in names.items()
        if (Path(reports) / name).exists()
    }


def _width() -> int:
    import shutil

    return shutil.get_terminal_size((100, 24)).columns


class Progress:
    """A line on standard error, on a terminal only: done, rate, time left, found so far."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._began = self._shown = time.monotonic()
        self._verdicts: dict[str, int] = {}
        self._on = sys.stderr is not None and sys.stderr.isatty()

    def saw(self, row: Row) -> None:
        self._done += 1
        self._verdicts[row.verdict] = self._verdicts.get(row.verdict, 0) + 1
        now = time.monotonic()
        if not self._on or now - self._shown < 0.2:
            return
        self._shown = now
        rate = self._done / max(now - self._began, 1e-9)
        left = (self._total - self._done) / rate
        found = ", ".join(f"{number} {verdict}" for verdict, number in sorted(self._verdicts.items()))
        line = f"{self._done} of {self._total} dumps, {rate:.1f} a second, {left:.0f} s left: {found}"
        print(f"\r\033[K{line[: _width() - 1]}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._on and self._done:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
