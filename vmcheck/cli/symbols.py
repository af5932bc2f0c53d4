# SPDX-License-Identifier: LGPL-2.1-or-later
"""``vmcheck symbols``."""

from __future__ import annotations

import click

from vmcheck.cli.output import forbid_overwriting, replacing

HELP = """Write the symbols and types of one kernel to a small file for 'check -s'.

SOURCE is a vmlinux, or a dump whose kernel has its own symbols and types in memory.

\b
Example:
  vmcheck symbols vmlinux -o 6.1.0-56.symbols
"""


@click.command(help=HELP, short_help="Write one kernel's symbols to a small file.")
@click.argument("source")
@click.option("-o", "--output", metavar="FILE", required=True, help="The file to write.")
def symbols(source: str, output: str) -> int:
    forbid_overwriting(output, [source])

    from vmcheck.collect_symbols import collect_symbols
    from vmcheck.report.words import size

    with replacing(output) as path:
        count = collect_symbols(source, str(path))
        written = path.stat().st_size
    click.echo(f"{output}: {count} symbols and the types of one kernel build, {size(written)}")
    return 0
