# SPDX-License-Identifier: LGPL-2.1-or-later
"""``vmcheck check``."""

from __future__ import annotations

import click

from vmcheck.cli import statuses
from vmcheck.cli.output import progress
from vmcheck.cli.publish import Wanted, report_options

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
@report_options
def check(vmcore: tuple[str, ...], symbols: str | None, **options: str) -> int:
    wanted = Wanted(**options)
    wanted.forbid([*vmcore, *([symbols] if symbols else [])])

    from vmcheck.examine import examine

    with progress() as tell:
        report = examine(vmcore, symbols=symbols, progress=tell)
    return wanted.publish(report)
