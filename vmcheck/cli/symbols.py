# SPDX-License-Identifier: LGPL-2.1-or-later
"""``vmcheck symbols``."""

from __future__ import annotations

import click

from vmcheck.cli.output import say
from vmcheck.operations.outputs import forbid_overwriting

HELP = """Write the symbols and types of one kernel to a small file, for 'check -s'.

SOURCE is a vmlinux, or a dump that has its kernel's symbols and types in memory.

\b
Example:
  vmcheck symbols vmlinux -o 6.1.0-56.symbols
"""


@click.command(help=HELP, short_help="Write one kernel's symbols to a small file.")
@click.argument("source")
@click.option("-o", "--output", metavar="FILE", required=True, help="The file to write.")
def symbols(source: str, output: str) -> int:
    forbid_overwriting(output, [source])

    from vmcheck.operations.symbols import collect_symbols
    from vmcheck.report.words import size

    count, written = collect_symbols(source, output)
    say(f"{output}: {count} symbols and the types of one kernel build, {size(written)}")
    return 0
