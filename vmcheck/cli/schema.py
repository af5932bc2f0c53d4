# SPDX-License-Identifier: LGPL-2.1-or-later
"""``vmcheck schema``."""

from __future__ import annotations

import click

from vmcheck.cli.output import to_stdout


@click.command(short_help="Print the JSON Schema of 'check --json'.")
@click.option("--folder", is_flag=True, help="Of a line of what it writes of a directory.")
def schema(folder: bool) -> int:
    """Print the JSON Schema of what 'vmcheck check --json' writes."""
    from vmcheck.report.document import Document, Entry, json_schema

    to_stdout(json_schema(Entry if folder else Document))
    return 0
