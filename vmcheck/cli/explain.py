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
    from vmcheck.diagnosis.explanation import Explanation, explanations
    from vmcheck.rules import Rule, rules

    # A rule and the cause that its finding alone proves may share a name: both are shown.
    everything: list[Rule | Explanation] = [*rules().values(), *explanations().values()]
    named: dict[str, list[Rule | Explanation]] = {}
    for each in everything:
        named.setdefault(str(each.name), []).append(each)
    if name is None:
        width = max(map(len, named))
        lines = [f"{key:{width}}  {each.title}\n" for key, meanings in named.items() for each in meanings]
        to_stdout("".join(lines).encode())
        return 0
    if name not in named:
        near = difflib.get_close_matches(name, named, n=1)
        hint = f"Is it '{near[0]}'?" if near else "'vmcheck explain' lists them."
        raise click.UsageError(f"Nothing is named {name!r}. {hint}")
    meanings = ["\n\n".join(filter(None, [name, each.title, each.text])) for each in named[name]]
    to_stdout("\n\n\n".join(meanings).encode() + b"\n")
    return 0
