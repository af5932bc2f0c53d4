# SPDX-License-Identifier: LGPL-2.1-or-later
"""``vmcheck watch``."""

from __future__ import annotations

import signal
import sys
import time
from types import FrameType
from typing import TYPE_CHECKING

import click

from vmcheck.cli.output import write

if TYPE_CHECKING:
    from vmcheck.watch import State

HELP = """Say when a crash would no longer be captured whole, and when it would again.

Listens to the kernel for memory and CPUs that come and go, and looks as 'vmcheck
preflight' does after each burst of them, while something is stale, and every
hour. What changed is logged on standard error, with the priorities that the
journal understands. Waiting costs nothing.

\b
Examples:
  vmcheck watch
  vmcheck watch --textfile /var/lib/prometheus/node-exporter/vmcheck.prom
  vmcheck watch --once          exits as 'vmcheck preflight' does: for cron and monitors
"""


@click.command(help=HELP, short_help="Say when a crash would no longer be captured whole.")
@click.option("--once", is_flag=True, help="Look once, log it, exit with what preflight would exit with.")
@click.option("--textfile", metavar="FILE", help="Write Prometheus metrics after each look.")
@click.option(
    "--every",
    type=click.FloatRange(min=1.0),
    default=3600.0,
    show_default=True,
    metavar="SECONDS",
    help="Look at least as often, events or not.",
)
def watch(once: bool, textfile: str | None, every: float) -> int:
    from vmcheck import watch as watching

    def report(state: State) -> None:
        for priority, text in state.messages:
            prefix = "" if sys.stderr.isatty() else f"<{priority}>"
            print(f"{prefix}{text}", file=sys.stderr, flush=True)
        if textfile is not None:
            told = watching.textfile(state, time.monotonic(), time.time())
            write(textfile, told.encode())

    if once:
        state = watching.State()
        look = watching.take_look()
        state.see(look, time.monotonic())
        report(state)
        return look.status
    signal.signal(signal.SIGTERM, _end)
    watching.watch(watching.Uevents(), report, every=every)
    return 0


def _end(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)
