# SPDX-License-Identifier: LGPL-2.1-or-later
"""``vmcheck check``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vmcheck.budget import Budget
from vmcheck.cli import statuses
from vmcheck.cli.limits import budget, limit_options
from vmcheck.cli.output import Tell, progress
from vmcheck.cli.publish import Wanted, report_options
from vmcheck.errors import VmcheckError, plain

if TYPE_CHECKING:
    from vmcheck.facts.body import Verified
    from vmcheck.operations.crash_folder import FoundDump
    from vmcheck.records.snapshot import Snapshot
    from vmcheck.report.folder import Checked

HELP = """Check whether a dump has all the memory and CPUs that its kernel had.

VMCORE is a dump from /proc/vmcore, makedumpfile or QEMU, in any of their formats.
Give all parts of a makedumpfile --split dump together. For a directory, every
dump below it is checked; the exit status is the worst (3, 1, 4, 0).

vmcheck reads from the dump's own memory which memory and CPUs the crashed kernel
had, and compares that with what the dump's headers describe. Pages that
makedumpfile drops on purpose (its dump level) are not missing.

\b
Examples:
  vmcheck check vmcore
  vmcheck check vmcore --full                      every section and all evidence
  vmcheck check vmcore --html report.html          a page with a map of the memory
  vmcheck check vmcore --markdown -                to paste into a ticket
  vmcheck check vmcore --json - | jq -r .answer    for programs
  vmcheck check vmcore --junit kdump.xml           for CI
  vmcheck check /var/crash                         a table of all dumps
"""


class _Address(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A physical address, in hexadecimal with 0x or in decimal."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            address = int(value, 0)
        except ValueError:
            address = -1
        if not 0 <= address < 1 << 62:
            self.fail(f"{value!r} is no physical address, such as 0x100000000", param, ctx)
        return address


ADDRESS = _Address()


@click.command(help=HELP + statuses.HELP, short_help="Check what a dump lacks, and why.")
@click.argument("vmcore", nargs=-1, required=True)
@click.option(
    "-s",
    "--symbols",
    metavar="FILE",
    help="A vmlinux with debuginfo, or a file of 'vmcheck symbols'. "
    "Only needed if the dump does not have its kernel's symbols.",
)
@click.option(
    "--topology",
    metavar="FILE|live",
    help="A record of the same boot, written by 'vmcheck record', or 'live' for this machine as it runs now. "
    "It adds facts that the dump does not have.",
)
@click.option(
    "--compare",
    "--witness",
    "compared",
    metavar="FILE",
    multiple=True,
    help="Compare a log or a sos report of the crash with the dump. Logs beside the dump that have their "
    "usual names, such as kexec-dmesg.log, are always compared.",
)
@click.option(
    "--pages",
    type=click.Choice(["sample", "all"]),
    default="sample",
    show_default=True,
    help="Unpack a sample of the stored pages, or all of them, on all processors.",
)
@click.option(
    "--pages-from",
    type=ADDRESS,
    metavar="ADDRESS",
    help="With --pages all: begin at this physical address, such as where a check was stopped.",
)
@click.option(
    "--pages-to", type=ADDRESS, metavar="ADDRESS", help="With --pages all: end before this physical address."
)
@limit_options
@report_options
def check(
    vmcore: tuple[str, ...],
    symbols: str | None,
    topology: str | None,
    compared: tuple[str, ...],
    pages: str,
    pages_from: int | None,
    pages_to: int | None,
    time_limit: float,
    memory_limit: int,
    **options: Any,
) -> int:
    wanted = Wanted.of(options)
    limits = budget(time_limit, memory_limit)
    # Path.is_dir() raises where the folder may not be searched.
    folders = [path for path in vmcore if os.path.isdir(path)]  # noqa: PTH112
    if folders and len(vmcore) > 1:
        raise click.UsageError(f"{folders[0]} is a directory: check it alone.")
    if folders and topology is not None:
        raise click.UsageError("--topology is of one boot: check one dump with it, not a directory.")
    if folders and compared:
        raise click.UsageError("--compare is of one crash: check one dump with it, not a directory.")
    if pages != "all" and (pages_from is not None or pages_to is not None):
        raise click.UsageError("--pages-from and --pages-to are for --pages all.")
    if folders and pages == "all":
        raise click.UsageError("--pages all is for one dump: name it.")
    if folders:
        return _check_folder(folders[0], symbols, wanted, limits)
    wanted.forbid([*vmcore, *(each for each in (symbols, topology) if each), *compared])

    from vmcheck.operations.examine import Examination

    with progress() as tell:
        record = _record(topology) if topology is not None else None
        verified = _verified(vmcore, pages_from, pages_to, tell) if pages == "all" else None
        with Examination(vmcore, symbols, tell, limits, verified) as examination:
            # Imports while the kernel is read.
            wanted.prepare()
            report = examination.report(record, compared)
    return wanted.publish(report)


def _verified(vmcore: tuple[str, ...], first: int | None, last: int | None, tell: Tell) -> Verified:
    from vmcheck.facts.ranges import ADDRESS_LIMIT
    from vmcheck.operations.pages import verify_pages

    begin, end = first or 0, ADDRESS_LIMIT if last is None else last
    if begin >= end:
        raise click.UsageError("--pages-from must be below --pages-to.")
    return verify_pages(vmcore, begin, end, tell)


def _record(topology: str) -> tuple[str, Snapshot]:
    from vmcheck.records.comparison import LIVE

    if topology == LIVE:
        from vmcheck.operations.record import record

        return LIVE, record()
    from vmcheck.records.snapshot import read_snapshot

    return Path(topology).name, read_snapshot(topology)


def _check_folder(folder: str, symbols: str | None, wanted: Wanted, limits: Budget) -> int:
    from vmcheck.operations.crash_folder import find_dumps

    dumps = find_dumps(folder)
    inputs = [*(path for dump in dumps for path in dump.paths), *([symbols] if symbols else [])]
    wanted.forbid(inputs, len(dumps))
    with progress() as tell:
        entries = [_checked(folder, dump, symbols, tell, limits) for dump in dumps]
    return wanted.publish_folder(folder, entries)


def _checked(folder: str, dump: FoundDump, symbols: str | None, tell: Tell, limits: Budget) -> Checked:
    """One dump's report, or why there is none: the other dumps are checked in any case."""
    from vmcheck.operations.examine import examine
    from vmcheck.report.folder import Checked

    path = os.path.relpath(dump.paths[0], folder)
    parts, beside = (tuple(Path(each).name for each in files) for files in (dump.paths, dump.beside))
    try:
        if dump.refusal:
            raise VmcheckError(dump.refusal)
        report = examine(dump.paths, symbols=symbols, progress=tell, budget=limits)
    except VmcheckError as error:
        return Checked(path, parts, beside, None, str(error).removeprefix(f"{plain(dump.paths[0])}: "))
    except (OSError, MemoryError) as error:
        return Checked(path, parts, beside, None, plain(f"the system refused: {str(error) or 'memory'}"))
    except Exception as error:
        why = plain(f"a bug in vmcheck: {type(error).__name__}: {error}")
        return Checked(path, parts, beside, None, why)
    return Checked(path, parts, beside, report)
