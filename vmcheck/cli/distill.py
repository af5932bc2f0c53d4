# SPDX-License-Identifier: LGPL-2.1-or-later
"""``vmcheck distill``."""

from __future__ import annotations

import click

from vmcheck.cli.output import say
from vmcheck.operations.outputs import forbid_overwriting

HELP = """Write a small copy of a dump, to attach to a bug report.

The copy has the headers, notes and bitmaps of the dump, and only the memory that a
check reads: vmcheck gives the same answer for both. VMCORE is not changed.

\b
Examples:
  vmcheck distill vmcore -o small
  vmcheck distill vmcore -o small --redact     without what identifies the machine
"""


@click.command(help=HELP, short_help="Write a small copy of a dump for a bug report.")
@click.argument("vmcore", nargs=-1, required=True)
@click.option("-o", "--output", metavar="SMALL", required=True, help="The file to write.")
@click.option("-s", "--symbols", metavar="FILE", help="As for 'vmcheck check'. The copy then has no symbols.")
@click.option("--flattened", is_flag=True, help="Write makedumpfile's flattened format.")
@click.option("--redact", is_flag=True, help="Blank the host name, the command line and the kernel log.")
def distill(vmcore: tuple[str, ...], output: str, symbols: str | None, flattened: bool, redact: bool) -> int:
    forbid_overwriting(output, [*vmcore, *([symbols] if symbols else [])])

    from vmcheck.operations.distill import distill as write_distilled
    from vmcheck.report.words import size

    written = write_distilled(vmcore, output, symbols, flattened_form=flattened, redact=redact)
    say(
        f"{output}: {written.pages} pages of memory kept, {size(written.copied)} on disk"
        + (
            ""
            if flattened
            else f"; with its holes {size(written.size)}, so copy it with cp --sparse or tar -S"
        )
    )
    return 0
