# SPDX-License-Identifier: LGPL-2.1-or-later
"""``vmcheck preflight``."""

from __future__ import annotations

import click

from vmcheck.cli import statuses
from vmcheck.cli.output import progress
from vmcheck.cli.publish import Wanted, report_options

HELP = """Say what a dump would lack if this machine crashed now.

The loaded elfcorehdr is read from the running kernel's memory, and the same rules
that judge a dump judge it: memory and CPUs that came after the crash kernel was
loaded are found before the crash. Root is needed to read /proc/kcore; whether a
crash kernel is loaded at all is told without.

\b
Examples:
  vmcheck preflight
  vmcheck preflight --json - | jq -r .answer
  vmcheck preflight --qemu /run/guest/qmp    a guest, from outside
"""


@click.command(help=HELP + statuses.HELP, short_help="Say what a dump would lack, before the crash.")
@click.option("--qemu", metavar="SOCKET", help="Ask the guest behind a QMP socket, not this machine.")
@report_options
def preflight(qemu: str | None, **options: str) -> int:
    wanted = Wanted(**options)
    wanted.forbid([])

    from vmcheck.preflight import preflight as look

    with progress() as tell:
        report = look(qemu, progress=tell)
    return wanted.publish(report)
