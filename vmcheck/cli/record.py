# SPDX-License-Identifier: LGPL-2.1-or-later
"""``vmcheck record``."""

from __future__ import annotations

import click

from vmcheck.cli.output import STDOUT, write

HELP = """Record which memory and CPUs this kernel has, to compare with a later dump.

Reads the kernel's memory as root, else /proc and /sys. The record identifies the
boot: 'vmcheck check --topology' refuses it for a dump of another boot.

\b
Examples:
  vmcheck record -o /var/lib/vmcheck/topology.json
  vmcheck record --root sosreport-host-2025 -o host.json    from a collected /proc and /sys
"""


@click.command(help=HELP, short_help="Record this kernel's memory and CPUs.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    default=STDOUT,
    show_default="standard output",
    help="The file to write.",
)
@click.option("--root", metavar="DIR", help="Read proc and sys below DIR, such as an unpacked sos report.")
def record(output: str, root: str | None) -> int:
    from vmcheck.operations.record import record as look
    from vmcheck.records.snapshot import to_json

    write(output, to_json(look(root)))
    return 0
