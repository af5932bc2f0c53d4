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
    from vmcheck.operations.watch import State

HELP = """Run as a service, and log when a crash would no longer leave a complete dump.

Waits until the kernel adds or removes memory or CPUs, then looks as 'vmcheck
preflight' does. Looks again while something is missing, and every hour. Changes
are logged to standard error, with priorities that the journal understands.

\b
Examples:
  vmcheck watch
  vmcheck watch --textfile /var/lib/prometheus/node-exporter/vmcheck.prom
  vmcheck watch --once          one look, with the exit status of 'vmcheck preflight'
"""


@click.command(help=HELP, short_help="Log when a dump would no longer be complete.")
@click.option("--once", is_flag=True, help="Look once; the exit status is that of 'vmcheck preflight'.")
@click.option("--textfile", metavar="FILE", help="Write Prometheus metrics after each look.")
@click.option(
    "--every",
    type=click.FloatRange(min=1.0),
    default=3600.0,
    show_default=True,
    metavar="SECONDS",
    help="Look at least this often.",
)
def watch(once: bool, textfile: str | None, every: float) -> int:
    from vmcheck.operations import watch as watching

    def report(state: State) -> None:
        for priority, text in state.messages:
            prefix = "" if sys.stderr.isatty() else f"<{priority}>"
            print(f"{prefix}{text}", file=sys.stderr, flush=True)
        if textfile is not None:
            metrics = watching.textfile(state, time.monotonic(), time.time())
            write(textfile, metrics.encode())

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
