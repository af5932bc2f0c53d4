# SPDX-License-Identifier: LGPL-2.1-or-later
"""``vmcheck preflight``."""

from __future__ import annotations

from typing import Any

import click

from vmcheck.cli import statuses
from vmcheck.cli.output import progress
from vmcheck.cli.publish import Wanted, report_options

HELP = """Check what a dump would lack if this machine crashed now.

Reads the loaded elfcorehdr from the running kernel's memory, and applies the same
rules as to a dump. It finds memory and CPUs that were added after the crash kernel
was loaded, before they are missing from a dump. Needs root to read /proc/kcore;
without root it only says whether a crash kernel is loaded.

\b
Examples:
  vmcheck preflight
  vmcheck preflight --json - | jq -r .answer
  vmcheck preflight --qemu /run/guest/qmp    a QEMU guest, from its host
"""


@click.command(help=HELP + statuses.HELP, short_help="Check what a dump would lack, before a crash.")
@click.option("--qemu", metavar="SOCKET", help="Look at the guest of this QMP socket, not at this machine.")
@report_options
def preflight(qemu: str | None, **options: Any) -> int:
    wanted = Wanted.of(options)
    wanted.forbid([])

    from vmcheck.operations.preflight import preflight as look

    with progress() as tell:
        report = look(qemu, progress=tell)
    return wanted.publish(report)
