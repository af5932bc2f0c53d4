# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line: the only place that prints or exits.

Commands import what they need when they run, so that ``--help`` starts at once.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

import vmcheck
from vmcheck.cli import statuses
from vmcheck.cli.check import check
from vmcheck.cli.distill import distill
from vmcheck.cli.expect import expect
from vmcheck.cli.explain import explain
from vmcheck.cli.output import CannotWrite
from vmcheck.cli.preflight import preflight
from vmcheck.cli.record import record
from vmcheck.cli.schema import schema
from vmcheck.cli.symbols import symbols
from vmcheck.cli.watch import watch
from vmcheck.errors import VmcheckError

HELP = """Say what a Linux kernel crash dump lacks, and why.

The first line of every report is the answer. Nothing but the dump is needed: no
debuginfo, no root, no network. A dump is never modified.

\b
Examples:
  vmcheck check /var/crash/202411230915/vmcore
  vmcheck check vmcore --json report.json --html report.html
  vmcheck check vmcore.1 vmcore.2        the parts of one makedumpfile --split dump
  vmcheck explain undescribed-ram        what a finding means and what to do
"""


@click.group(help=HELP + statuses.HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(vmcheck.__version__, message="vmcheck %(version)s")
def cli() -> None:
    pass


for command in (check, preflight, watch, record, explain, expect, distill, symbols, schema):
    cli.add_command(command)


def main() -> NoReturn:
    # numpy's threads slow the start, and a fork in a program with threads can hang.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(_run())


def _run() -> int:
    try:
        return int(cli.main(prog_name="vmcheck", standalone_mode=False) or 0)
    except click.UsageError as error:
        error.show()
        return statuses.USAGE
    except CannotWrite as error:
        print(f"vmcheck: {error}", file=sys.stderr)
        return statuses.USAGE
    except VmcheckError as error:
        print(f"vmcheck: {error}", file=sys.stderr)
        return statuses.UNREADABLE
    except (click.Abort, KeyboardInterrupt):
        return statuses.INTERRUPTED
    except Exception:
        import traceback

        traceback.print_exc()
        print("vmcheck: this is a bug in vmcheck; the lines above say where", file=sys.stderr)
        return statuses.BUG
