# SPDX-License-Identifier: LGPL-2.1-or-later
"""``vmcheck distill``."""

from __future__ import annotations

import click

from vmcheck.cli.output import forbid_overwriting, replacing

HELP = """Write a dump small enough to attach to a report.

It has the real headers, notes and bitmaps, and only the memory that a check
reads: vmcheck says the same of it as of the whole dump. VMCORE is not changed.

\b
Examples:
  vmcheck distill vmcore -o small
  vmcheck distill vmcore -o small --redact     without what identifies the machine
"""


@click.command(help=HELP, short_help="Write a dump small enough to attach to a report.")
@click.argument("vmcore", nargs=-1, required=True)
@click.option("-o", "--output", metavar="SMALL", required=True, help="The file to write.")
@click.option("-s", "--symbols", metavar="FILE", help="As for 'vmcheck check'; leaves the symbols out.")
@click.option("--flattened", is_flag=True, help="Write makedumpfile's flattened form.")
@click.option("--redact", is_flag=True, help="Leave out host name, command line and kernel log.")
def distill(vmcore: tuple[str, ...], output: str, symbols: str | None, flattened: bool, redact: bool) -> int:
    forbid_overwriting(output, [*vmcore, *([symbols] if symbols else [])])

    from vmcheck.distill import distill as write_distilled
    from vmcheck.report.words import size

    with replacing(output) as path:
        written = write_distilled(vmcore, str(path), symbols, flattened_form=flattened, redact=redact)
    click.echo(
        f"{output}: {written.pages} pages of memory kept, {size(written.copied)} on disk"
        + (
            ""
            if flattened
            else f"; with its holes {size(written.size)}, so copy it with cp --sparse or tar -S"
        )
    )
    return 0
