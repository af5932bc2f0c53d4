# SPDX-License-Identifier: LGPL-2.1-or-later
"""``vmcheck schema``."""

from __future__ import annotations

import click

from vmcheck.cli.output import to_stdout


@click.command(short_help="Print the JSON Schema of a report.")
@click.option("--folder", is_flag=True, help="Print the schema of one line of 'vmcheck check DIR --json'.")
def schema(folder: bool) -> int:
    """Print the JSON Schema of the report that 'vmcheck check --json' writes."""
    from vmcheck.report.document import json_schema

    to_stdout(json_schema(folder))
    return 0
