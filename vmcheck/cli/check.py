# SPDX-License-Identifier: LGPL-2.1-or-later
"""``vmcheck check``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vmcheck.cli import statuses
from vmcheck.cli.output import Tell, progress
from vmcheck.cli.publish import Wanted, report_options
from vmcheck.errors import VmcheckError, plain

if TYPE_CHECKING:
    from vmcheck.crash_folder import FoundDump
    from vmcheck.records.snapshot import Snapshot
    from vmcheck.report.folder import Checked

HELP = """Say whether a dump holds all the memory and CPUs that its kernel had.

VMCORE is a dump as /proc/vmcore, makedumpfile or QEMU write it, in any of their
formats. Several are the parts of one makedumpfile --split dump. A directory stands
for every dump in it and below: a table tells the verdict of each, worst first, and
the exit status is the worst (3, 1, 4, 0).

The crashed kernel inside the dump is asked what memory and CPUs it had; its
answer is compared with what the dump's headers describe. Pages that the dump
level filtered out are not missing.

\b
Examples:
  vmcheck check vmcore
  vmcheck check /var/crash
  vmcheck check vmcore --html report.html     a page with a map of the memory
  vmcheck check vmcore --json - | jq -r .answer
  vmcheck check vmcore -s /usr/lib/debug/boot/vmlinux-6.1.0-56-amd64
  vmcheck check vmcore --junit kdump.xml --fail-on notice
  vmcheck check vmcore --topology topology.json    what 'vmcheck record' wrote before
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
@click.option(
    "--topology",
    metavar="FILE|live",
    help="What 'vmcheck record' wrote in the same boot, or this machine as it runs now: "
    "for what the dump cannot tell itself.",
)
@click.option(
    "--witness",
    "witnesses",
    metavar="FILE",
    multiple=True,
    help="A log or a sos report of the crash, to be compared with the dump. Those that lie beside the dump "
    "under their usual names, such as kexec-dmesg.log, are compared anyway.",
)
@report_options
def check(
    vmcore: tuple[str, ...],
    symbols: str | None,
    topology: str | None,
    witnesses: tuple[str, ...],
    **options: str,
) -> int:
    wanted = Wanted(**options)
    folders = [path for path in vmcore if Path(path).is_dir()]
    if folders and len(vmcore) > 1:
        raise click.UsageError(f"{folders[0]} is a directory, and is checked alone.")
    if folders and topology is not None:
        raise click.UsageError("--topology is of one boot, and so of one dump.")
    if folders and witnesses:
        raise click.UsageError("--witness is of one crash, and so of one dump.")
    if folders:
        return _check_folder(folders[0], symbols, wanted)
    wanted.forbid([*vmcore, *(each for each in (symbols, topology) if each), *witnesses])

    from vmcheck.examine import examine

    with progress() as tell:
        witness = _witness(topology) if topology is not None else None
        report = examine(
            vmcore,
            symbols=symbols,
            progress=tell,
            witness=witness,
            files=witnesses,
            meanwhile=wanted.prepare,
        )
    return wanted.publish(report)


def _witness(topology: str) -> tuple[str, Snapshot]:
    from vmcheck.witness import LIVE

    if topology == LIVE:
        from vmcheck.record import record

        return LIVE, record()
    from vmcheck.records.snapshot import read_snapshot

    return Path(topology).name, read_snapshot(topology)


def _check_folder(folder: str, symbols: str | None, wanted: Wanted) -> int:
    from vmcheck.crash_folder import find_dumps

    dumps = find_dumps(folder)
    wanted.forbid([*(path for dump in dumps for path in dump.paths), *([symbols] if symbols else [])])
    if wanted.html_file is not None and len(dumps) > 1:
        raise click.UsageError(f"--html shows one dump, and {folder} has {len(dumps)}: name one of them.")
    with progress() as tell:
        entries = [_checked(folder, dump, symbols, tell) for dump in dumps]
    return wanted.publish_folder(folder, entries)


def _checked(folder: str, dump: FoundDump, symbols: str | None, tell: Tell) -> Checked:
    """One dump's report, or why there is none: it never stops the others."""
    from vmcheck.examine import examine
    from vmcheck.report.folder import Checked

    path = os.path.relpath(dump.paths[0], folder)
    parts, beside = (tuple(Path(each).name for each in files) for files in (dump.paths, dump.beside))
    try:
        if dump.refusal:
            raise VmcheckError(dump.refusal)
        report = examine(dump.paths, symbols=symbols, progress=tell)
    except VmcheckError as error:
        return Checked(path, parts, beside, None, str(error).removeprefix(f"{plain(dump.paths[0])}: "))
    return Checked(path, parts, beside, report)
