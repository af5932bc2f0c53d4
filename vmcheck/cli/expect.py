# SPDX-License-Identifier: LGPL-2.1-or-later
"""``vmcheck expect``."""

from __future__ import annotations

from pathlib import Path

import click

from vmcheck.cli.output import progress, to_stdout
from vmcheck.errors import UnreadableFile

HELP = """Compare a dump's report with a stored one.

EXPECTED is what 'vmcheck check --json' wrote, of this dump or of one that should
be like it. What is taken out of EXPECTED is not compared, so that a file of one
line can say all that a test asks for. The version of vmcheck and the dump's file
name are never compared.

\b
Examples:
  vmcheck expect vmcore expected.json
  echo '{"verdict": "complete", "findings": []}' > whole.json
  vmcheck expect vmcore whole.json

\b
Exit status:
  0   as expected
  1   different; each difference is a line on standard output
  2   wrong usage
  3   the dump or EXPECTED cannot be read
"""


@click.command(help=HELP, short_help="Compare a dump's report with a stored one.")
@click.argument("vmcore", nargs=-1, required=True)
@click.argument("expected")
@click.option("-s", "--symbols", metavar="FILE", help="As for 'vmcheck check'.")
def expect(vmcore: tuple[str, ...], expected: str, symbols: str | None) -> int:
    import msgspec

    from vmcheck.examine import examine
    from vmcheck.report.difference import differences
    from vmcheck.report.document import to_json

    try:
        stored = msgspec.json.decode(Path(expected).read_bytes(), type=dict)
    except OSError as error:
        raise UnreadableFile(f"{expected}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableFile(
            f"{expected}: not a report as 'vmcheck check --json' writes it: {error}"
        ) from error
    with progress() as tell:
        report = examine(vmcore, symbols=symbols, progress=tell)
    different = differences(stored, msgspec.json.decode(to_json(report)))
    to_stdout("".join(f"{line}\n" for line in different or ["as expected"]).encode())
    return 1 if different else 0
