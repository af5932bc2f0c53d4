# SPDX-License-Identifier: LGPL-2.1-or-later
"""``vmcheck explain``."""

from __future__ import annotations

import difflib

import click

from vmcheck.cli.output import to_stdout

HELP = """Say what a finding means and what to do about it.

RULE is the name that a report has in brackets. Without one, list all the rules.
"""


@click.command(help=HELP, short_help="Say what a finding means and what to do.")
@click.argument("rule", required=False)
def explain(rule: str | None) -> int:
    from vmcheck.rules import rules

    known = rules()
    if rule is None:
        width = max(map(len, known), default=0)
        to_stdout("".join(f"{name:{width}}  {each.title}\n" for name, each in known.items()).encode())
        return 0
    if rule not in known:
        near = difflib.get_close_matches(rule, known, n=1)
        hint = f"Is it '{near[0]}'?" if near else "'vmcheck explain' lists them."
        raise click.UsageError(f"No rule is named {rule!r}. {hint}")
    told = known[rule]
    to_stdout("\n\n".join(filter(None, [told.name, told.title, told.text])).encode() + b"\n")
    return 0
