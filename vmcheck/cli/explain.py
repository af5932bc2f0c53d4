# SPDX-License-Identifier: LGPL-2.1-or-later
"""``vmcheck explain``."""

from __future__ import annotations

import difflib

import click

from vmcheck.cli.output import to_stdout

HELP = """Say what a finding means and what to do about it.

NAME is what a report has in brackets: a rule, or the cause or the update regime that
it names. Without one, list them all.
"""


@click.command(help=HELP, short_help="Say what a finding means and what to do.")
@click.argument("name", required=False)
def explain(name: str | None) -> int:
    from vmcheck.diagnose import Explanation, explanations
    from vmcheck.rules import Rule, rules

    known: dict[str, Rule | Explanation] = {**rules(), **explanations()}
    if name is None:
        width = max(map(len, known), default=0)
        to_stdout("".join(f"{each.name:{width}}  {each.title}\n" for each in known.values()).encode())
        return 0
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Is it '{near[0]}'?" if near else "'vmcheck explain' lists them."
        raise click.UsageError(f"Nothing is named {name!r}. {hint}")
    told = known[name]
    to_stdout("\n\n".join(filter(None, [told.name, told.title, told.text])).encode() + b"\n")
    return 0
