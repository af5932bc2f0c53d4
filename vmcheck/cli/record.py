# SPDX-License-Identifier: LGPL-2.1-or-later
"""``vmcheck record``."""

from __future__ import annotations

import click

from vmcheck.cli.output import STDOUT, write

HELP = """Write down what memory and CPUs this kernel has, as a witness for a later dump.

Read from the kernel's memory where root may, else from /proc and /sys. The record
has the boot's identity, so that 'vmcheck check --topology' refuses it beside a
dump of another boot.

\b
Examples:
  vmcheck record -o /var/lib/vmcheck/topology.json
  vmcheck record --root sosreport-host-2025 -o host.json    from a collected tree
"""


@click.command(help=HELP, short_help="Write down this kernel's memory and CPUs.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    default=STDOUT,
    show_default="standard output",
    help="The file to write.",
)
@click.option("--root", metavar="DIR", help="A tree with proc and sys in it, such as an unpacked sos report.")
def record(output: str, root: str | None) -> int:
    from vmcheck.record import record as look
    from vmcheck.records.snapshot import to_json

    write(output, to_json(look(root)))
    return 0
