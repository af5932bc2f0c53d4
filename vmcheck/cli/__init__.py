# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line: the only place that prints or exits.

Commands import what they need when they run, so that ``--help`` starts at once.
"""

from __future__ import annotations

import contextlib
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
from vmcheck.cli.output import complain, reopen_closed_streams
from vmcheck.cli.preflight import preflight
from vmcheck.cli.record import record
from vmcheck.cli.scan import scan
from vmcheck.cli.schema import schema
from vmcheck.cli.symbols import symbols
from vmcheck.cli.watch import watch
from vmcheck.errors import VmcheckError, plain
from vmcheck.operations.outputs import CannotWrite

HELP = """Find out what a Linux kernel crash dump lacks, and why.

Start with 'vmcheck check VMCORE': the first line of the report is the answer. It
needs only the dump: no debuginfo, no root, no network. A dump is never modified.

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


for command in (check, scan, preflight, watch, record, explain, expect, distill, symbols, schema):
    cli.add_command(command)


def main() -> NoReturn:
    reopen_closed_streams()
    # numpy's threads slow the start, and a fork in a program with threads can hang.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(_run())


def _run() -> int:
    try:
        return int(cli.main(prog_name="vmcheck", standalone_mode=False) or 0)
    except click.ClickException as error:
        with contextlib.suppress(OSError):
            error.show()
        return statuses.USAGE
    except CannotWrite as error:
        complain(f"vmcheck: {error}")
        return statuses.USAGE
    except VmcheckError as error:
        complain(f"vmcheck: {error}")
        return statuses.UNREADABLE
    except (click.Abort, KeyboardInterrupt):
        return statuses.INTERRUPTED
    except SystemExit as ended:
        # click exits with 1 where the reader of --help went away.
        return 0 if ended.code == 1 else int(ended.code or 0)
    except MemoryError:
        complain("vmcheck: not enough memory (see ulimit -v and ulimit -d)")
        return statuses.UNREADABLE
    except (OSError, ImportError) as error:
        # Too few descriptors or too little memory, to import too. A file's own error names the file.
        complain(f"vmcheck: the system refused: {plain(str(error))}")
        return statuses.UNREADABLE
    except Exception:
        with contextlib.suppress(OSError, ImportError):
            import traceback

            traceback.print_exc()
        complain("vmcheck: this is a bug in vmcheck; the lines above say where")
        return statuses.BUG
