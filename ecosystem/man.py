# SPDX-License-Identifier: LGPL-2.1-or-later
"""Man pages of every command, from the same words as ``--help``: ``python ecosystem/man.py FOLDER``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

import vmcheck
from vmcheck.cli import cli


def pages() -> Iterator[tuple[str, str]]:
    """(file name, roff source)."""
    commands = sorted(cli.commands)
    yield "vmcheck.1", page("vmcheck", cli, [f"vmcheck-{name}" for name in commands])
    for name in commands:
        yield f"vmcheck-{name}.1", page(f"vmcheck {name}", cli.commands[name], ["vmcheck"])


def page(name: str, command: click.Command, beside: list[str]) -> str:
    context = click.Context(command, info_name=name)
    usage = " ".join(command.collect_usage_pieces(context))
    short = command.get_short_help_str(200).rstrip(".")
    lines = [
        f'.TH "{name.upper().replace(" ", "-")}" 1 "" "vmcheck {vmcheck.__version__}"',
        ".SH NAME",
        escaped(f"{name.replace(' ', '-')} \\- {short}", keep="\\-"),
        ".SH SYNOPSIS",
        f".B {escaped(name)}",
        escaped(usage),
        ".SH DESCRIPTION",
        *body(command.help or ""),
    ]
    records = [
        record for option in command.get_params(context) if (record := option.get_help_record(context))
    ]
    if records:
        lines.append(".SH OPTIONS")
        for names, text in records:
            lines += [".TP", f".B {escaped(names)}", escaped(text)]
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for each in sorted(command.commands):
            lines += [".TP", f".B {escaped(each)}", escaped(command.commands[each].get_short_help_str(200))]
    lines += [".SH SEE ALSO", ", ".join(f".BR {escaped(each)} (1)" for each in beside[:1])]
    lines += [f".BR {escaped(each)} (1)" for each in beside[1:]]
    return "\n".join(lines) + "\n"


def body(text: str) -> Iterator[str]:
    """Click's help: paragraphs, of which those after ``\\b`` keep their lines."""
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        if paragraph.lstrip().startswith("\b"):
            heading, *rest = [line for line in paragraph.split("\n") if line.strip() != "\b"]
            yield f".SS {escaped(heading.strip().rstrip(':'))}"
            yield ".nf"
            yield from (escaped(line) for line in rest)
            yield ".fi"
        else:
            yield ".PP"
            yield escaped(" ".join(paragraph.split()))


def escaped(text: str, keep: str = "") -> str:
    """Backslashes, hyphens and leading dots mean themselves."""
    parts = [part.replace("\\", "\\e").replace("-", "\\-") for part in (text.split(keep) if keep else [text])]
    joined = keep.join(parts)
    return f"\\&{joined}" if joined.startswith((".", "'")) else joined


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/man")
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in pages():
        (folder / name).write_text(source, encoding="utf-8")
        print(folder / name)


if __name__ == "__main__":
    main()
