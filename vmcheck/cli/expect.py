# SPDX-License-Identifier: LGPL-2.1-or-later
"""``vmcheck expect``."""

from __future__ import annotations

import click

from vmcheck.cli.limits import budget, limit_options
from vmcheck.cli.output import progress, to_stdout
from vmcheck.errors import UnreadableFile
from vmcheck.files import read_input

LARGEST = 64 << 20
"""Bytes of a report as JSON."""

HELP = """Compare a dump's report with a stored one, in a test of kdump.

EXPECTED is a report of 'vmcheck check --json', of this dump or of one like it. Only
the members that EXPECTED has are compared: delete what your test does not care
about. The version of vmcheck and the dump's file name are never compared.

\b
Examples:
  vmcheck expect vmcore expected.json
  echo '{"verdict": "complete", "findings": []}' > whole.json
  vmcheck expect vmcore whole.json

\b
Exit status:
  0   as expected
  1   different; standard output has a line for each difference
  2   wrong usage
  3   the dump or EXPECTED cannot be read
"""


@click.command(help=HELP, short_help="Compare a dump's report with a stored one.")
@click.argument("vmcore", nargs=-1, required=True)
@click.argument("expected")
@click.option("-s", "--symbols", metavar="FILE", help="As for 'vmcheck check'.")
@limit_options
def expect(
    vmcore: tuple[str, ...], expected: str, symbols: str | None, time_limit: float, memory_limit: int
) -> int:
    import msgspec

    from vmcheck.operations.examine import examine
    from vmcheck.report.difference import differences
    from vmcheck.report.document import to_json

    try:
        stored = msgspec.json.decode(read_input(expected, LARGEST), type=dict)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableFile(f"{expected}: not a report of 'vmcheck check --json': {error}") from None
    except RecursionError:
        raise UnreadableFile(
            f"{expected}: not a report of 'vmcheck check --json': its lists are too deep"
        ) from None
    with progress() as tell:
        report = examine(vmcore, symbols=symbols, progress=tell, budget=budget(time_limit, memory_limit))
    different = differences(stored, msgspec.json.decode(to_json(report)))
    to_stdout("".join(f"{line}\n" for line in different or ["as expected"]).encode())
    return 1 if different else 0
