# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where a report goes: the options that ``check`` and ``preflight`` share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from vmcheck.cli.output import STDOUT, to_stdout, write
from vmcheck.operations.outputs import forbid_overwriting
from vmcheck.report.renderers import RENDERERS, Renderer

if TYPE_CHECKING:
    from rich.console import Console

    from vmcheck.check import Report
    from vmcheck.report.folder import Checked

Command = TypeVar("Command", bound=Callable[..., Any])

PIPE_WIDTH = 100
"""Columns of the text report where there is no terminal."""


class Wanted(NamedTuple):
    """The options' values."""

    files: Sequence[tuple[Renderer, str]]
    full: bool
    fail_on: str

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Wanted:
        """``options`` are those of :func:`report_options`, by name."""
        files = [(each, options[each.name]) for each in RENDERERS if options[each.name] is not None]
        return cls(files, options["full"], options["fail_on"])

    def forbid(self, inputs: Sequence[str], dumps: int = 1) -> None:
        """Refuse outputs that would overwrite each other or an input, and one page of several ``dumps``."""
        outputs = self._outputs()
        if len(set(outputs)) < len(outputs):
            names = ", ".join(f"--{renderer.name}" for renderer, _ in self.files)
            raise click.UsageError(f"{names}: each output needs a file of its own.")
        for output in outputs:
            if output != STDOUT:
                forbid_overwriting(output, inputs)
        for renderer, _ in self.files if dumps > 1 else ():
            if renderer.load().folder is None:
                raise click.UsageError(
                    f"--{renderer.name} shows one dump, and the folder has {dumps}: name one of them."
                )

    def _outputs(self) -> list[str]:
        return [output for _, output in self.files]

    def prepare(self) -> None:
        """Import what :meth:`publish` will use."""
        for renderer, _ in self.files:
            renderer.load()
        if STDOUT not in self._outputs():
            import vmcheck.report.terminal  # noqa: F401

    def publish(self, report: Report) -> int:
        """Write the report to each output; the exit status."""
        from vmcheck.facts.findings import Severity

        severity = Severity(self.fail_on)
        for renderer, output in self.files:
            write(output, renderer.load().one(report, severity))
        if STDOUT not in self._outputs():
            from vmcheck.report import terminal

            _print(
                lambda: terminal.render(report, PIPE_WIDTH, self.full),
                lambda console, ascii_only: terminal.show(report, console, ascii_only, self.full),
            )
        return int(report.exit_status(severity))

    def publish_folder(self, folder: str, entries: Sequence[Checked]) -> int:
        """As :meth:`publish`, for every dump in a folder."""
        from vmcheck.facts.findings import Severity
        from vmcheck.report import terminal
        from vmcheck.report.folder import worst_status

        severity = Severity(self.fail_on)
        for renderer, output in self.files:
            rendering = renderer.load()
            if rendering.folder is not None:
                write(output, rendering.folder(folder, entries, severity))
            elif (only := entries[0].report) is not None:
                write(output, rendering.one(only, severity))
        if STDOUT not in self._outputs():
            _print(
                lambda: terminal.render_folder(folder, entries, PIPE_WIDTH, self.full),
                lambda console, ascii_only: terminal.show_folder(
                    folder, entries, console, ascii_only, self.full
                ),
            )
        return int(worst_status(entries, severity))


def report_options(command: Command) -> Command:
    """The options that :meth:`Wanted.of` takes: one for each renderer, --full and --fail-on."""
    options = [
        click.option("--full", is_flag=True, help="Print every section and all evidence."),
        *(click.option(f"--{each.name}", metavar="FILE", help=each.help) for each in RENDERERS),
        click.option(
            "--fail-on",
            type=click.Choice(["lost", "wrong", "notice"]),
            default="wrong",
            show_default=True,
            help="The mildest finding that gives exit status 1: lost (something is missing), "
            "wrong (something is untrue) or notice.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _print(render: Callable[[], str], show: Callable[[Console, bool], None]) -> None:
    """``render()`` for a pipe or a file; ``show(console, ascii_only)`` for a terminal."""
    if not sys.stdout.isatty():
        to_stdout(render().encode())
        return
    from rich.console import Console

    # rich asks NO_COLOR and TERM, and knows how wide the terminal is.
    console = Console(highlight=False)
    with console.capture() as captured:
        show(console, "utf" not in (sys.stdout.encoding or "").lower())
    to_stdout(captured.get().encode(sys.stdout.encoding or "ascii", "backslashreplace"))
