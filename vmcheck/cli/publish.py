# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where a report goes: the options that ``check`` and ``preflight`` share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from vmcheck.cli.output import STDOUT, forbid_overwriting, to_stdout, write

if TYPE_CHECKING:
    from rich.console import Console

    from vmcheck.check import Report
    from vmcheck.report.folder import Checked

Command = TypeVar("Command", bound=Callable[..., Any])

PIPE_WIDTH = 100
"""Columns of the text report where no terminal tells."""


class Wanted(NamedTuple):
    """The options' values."""

    json_file: str | None
    html_file: str | None
    junit_file: str | None
    fail_on: str

    def forbid(self, inputs: Sequence[str]) -> None:
        """Refuse outputs that would overwrite each other or an input."""
        outputs = self._outputs()
        if len(set(outputs)) < len(outputs):
            raise click.UsageError("--json, --html and --junit need a file each.")
        for output in outputs:
            forbid_overwriting(output, inputs)

    def _outputs(self) -> list[str]:
        return [output for output in self[:3] if output is not None]

    def prepare(self) -> None:
        """Import what :meth:`publish` will use."""
        if self.json_file is not None:
            import vmcheck.report.document
        if self.html_file is not None:
            import vmcheck.report.page
        if STDOUT not in self._outputs():
            import vmcheck.report.terminal  # noqa: F401

    def publish(self, report: Report) -> int:
        """Write the report where it is wanted; the exit status."""
        from vmcheck.findings import Severity

        severity = Severity(self.fail_on)
        if self.json_file is not None:
            from vmcheck.report.document import to_json

            write(self.json_file, to_json(report, severity))
        if self.html_file is not None:
            from vmcheck.report.page import page

            write(self.html_file, page(report).encode())
        if self.junit_file is not None:
            from vmcheck.report.junit import junit

            write(self.junit_file, junit(report, severity))
        if STDOUT not in self._outputs():
            from vmcheck.report import terminal

            _print(
                lambda: terminal.render(report, PIPE_WIDTH),
                lambda console, ascii_only: terminal.show(report, console, ascii_only),
            )
        return int(report.exit_status(severity))

    def publish_folder(self, folder: str, entries: Sequence[Checked]) -> int:
        """As :meth:`publish`, of every dump in a folder: JSON is a line a dump, JUnit a suite a dump."""
        from vmcheck.findings import Severity
        from vmcheck.report import terminal
        from vmcheck.report.folder import worst_status

        severity = Severity(self.fail_on)
        if self.json_file is not None:
            from vmcheck.report.document import to_json_line

            write(self.json_file, b"".join(to_json_line(entry, severity) for entry in entries))
        if self.html_file is not None:
            from vmcheck.report.page import page

            (only,) = entries
            if only.report is not None:
                write(self.html_file, page(only.report).encode())
        if self.junit_file is not None:
            from vmcheck.report.junit import junit_of_folder

            write(self.junit_file, junit_of_folder(entries, severity))
        if STDOUT not in self._outputs():
            _print(
                lambda: terminal.render_folder(folder, entries, PIPE_WIDTH),
                lambda console, ascii_only: terminal.show_folder(folder, entries, console, ascii_only),
            )
        return int(worst_status(entries, severity))


def report_options(command: Command) -> Command:
    """The options of :class:`Wanted`, to be passed to it by name."""
    for option in (
        click.option(
            "--fail-on",
            type=click.Choice(["lost", "wrong", "notice"]),
            default="wrong",
            show_default=True,
            help="The mildest finding that exits with 1.",
        ),
        click.option(
            "--junit", "junit_file", metavar="FILE", help="Write the report as JUnit XML, a case a rule."
        ),
        click.option(
            "--html", "html_file", metavar="FILE", help="Write the report as one self-contained page."
        ),
        click.option(
            "--json", "json_file", metavar="FILE", help="Write the report as JSON ('vmcheck schema')."
        ),
    ):
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
