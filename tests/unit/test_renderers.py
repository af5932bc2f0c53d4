# SPDX-License-Identifier: LGPL-2.1-or-later
"""The table of renderers holds for every row what the command line promises."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from tests import reports
from vmcheck.check import Report
from vmcheck.cli.check import check
from vmcheck.cli.preflight import preflight
from vmcheck.facts.findings import Severity
from vmcheck.report.folder import Checked
from vmcheck.report.renderers import RENDERERS, Renderer

every_renderer = pytest.mark.parametrize("renderer", RENDERERS, ids=lambda renderer: renderer.name)


@every_renderer
def test_each_row_is_an_option_of_check_and_preflight(renderer: Renderer) -> None:
    for command in (check, preflight):
        assert f"--{renderer.name} FILE" in CliRunner().invoke(command, ["--help"]).output


@every_renderer
@pytest.mark.parametrize("report", reports.every())
def test_each_renderer_makes_utf_8_of_every_report(renderer: Renderer, report: Report) -> None:
    made = renderer.load().one(report, Severity.WRONG)
    assert made
    assert "\x1b" not in made.decode()


@every_renderer
def test_each_renderer_of_folders_shows_what_could_not_be_read(renderer: Renderer) -> None:
    entries = [
        Checked("a/vmcore", ("vmcore",), (), reports.ADDED),
        Checked("b/vmcore", ("vmcore",), (), None, "the file is empty"),
    ]
    if (folder := renderer.load().folder) is not None:
        made = folder("/var/crash", entries, Severity.WRONG).decode()
        assert "the file is empty" in made.lower()
        assert "128 MiB" in made
