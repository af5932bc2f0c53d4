# SPDX-License-Identifier: LGPL-2.1-or-later
"""``vmcheck schema``."""

from __future__ import annotations

import click

from vmcheck.cli.output import to_stdout


@click.command(short_help="Print the JSON Schema of 'check --json'.")
def schema() -> int:
    """Print the JSON Schema of what 'vmcheck check --json' writes."""
    from vmcheck.report.document import json_schema

    to_stdout(json_schema())
    return 0
