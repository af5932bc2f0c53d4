# SPDX-License-Identifier: LGPL-2.1-or-later
"""``vmcheck check``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from vmcheck.cli import statuses
from vmcheck.cli.output import STDOUT, forbid_overwriting, progress, to_stdout, write

if TYPE_CHECKING:
    from vmcheck.check import Report

PIPE_WIDTH = 100
"""Columns of the text report where no terminal tells."""

HELP = """Say whether a dump holds all the memory and CPUs that its kernel had.

VMCORE is a dump as /proc/vmcore, makedumpfile or QEMU write it, in any of their
formats. Several are the parts of one makedumpfile --split dump.

The crashed kernel inside the dump is asked what memory and CPUs it had; its
answer is compared with what the dump's headers describe. Pages that the dump
level filtered out are not missing.

\b
Examples:
  vmcheck check vmcore
  vmcheck check vmcore --html report.html     a page with a map of the memory
  vmcheck check vmcore --json - | jq -r .answer
  vmcheck check vmcore -s /usr/lib/debug/boot/vmlinux-6.1.0-56-amd64
  vmcheck check vmcore --junit kdump.xml --fail-on notice
"""


@click.command(help=HELP + statuses.HELP, short_help="Say what a dump lacks, and why.")
@click.argument("vmcore", nargs=-1, required=True)
@click.option(
    "-s",
    "--symbols",
    metavar="FILE",
    help="A vmlinux with debuginfo, or a file made by 'vmcheck symbols'. "
    "Only needed where the dump does not hold its kernel's own symbols.",
)
@click.option("--json", "json_file", metavar="FILE", help="Write the report as JSON ('vmcheck schema').")
@click.option("--html", "html_file", metavar="FILE", help="Write the report as one self-contained page.")
@click.option("--junit", "junit_file", metavar="FILE", help="Write the report as JUnit XML, a case a rule.")
@click.option(
    "--fail-on",
    type=click.Choice(["lost", "wrong", "notice"]),
    default="wrong",
    show_default=True,
    help="The mildest finding that exits with 1.",
)
def check(
    vmcore: tuple[str, ...],
    symbols: str | None,
    json_file: str | None,
    html_file: str | None,
    junit_file: str | None,
    fail_on: str,
) -> int:
    outputs = [output for output in (json_file, html_file, junit_file) if output is not None]
    if len(set(outputs)) < len(outputs):
        raise click.UsageError("--json, --html and --junit need a file each.")
    for output in outputs:
        forbid_overwriting(output, [*vmcore, *([symbols] if symbols else [])])

    from vmcheck.examine import examine
    from vmcheck.findings import Severity

    with progress() as tell:
        report = examine(vmcore, symbols=symbols, progress=tell)
    severity = Severity(fail_on)
    if json_file is not None:
        from vmcheck.report.document import to_json

        write(json_file, to_json(report, severity))
    if html_file is not None:
        from vmcheck.report.page import page

        write(html_file, page(report).encode())
    if junit_file is not None:
        from vmcheck.report.junit import junit

        write(junit_file, junit(report, severity))
    if STDOUT not in outputs:
        _print(report)
    return int(report.exit_status(severity))


def _print(report: Report) -> None:
    from vmcheck.report import terminal

    if not sys.stdout.isatty():
        to_stdout(terminal.render(report, PIPE_WIDTH).encode())
        return
    from rich.console import Console

    # rich asks NO_COLOR and TERM, and knows how wide the terminal is.
    console = Console(highlight=False)
    with console.capture() as captured:
        terminal.show(report, console, ascii_only="utf" not in (sys.stdout.encoding or "").lower())
    to_stdout(captured.get().encode(sys.stdout.encoding or "ascii", "backslashreplace"))
