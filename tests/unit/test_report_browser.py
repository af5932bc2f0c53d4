# SPDX-License-Identifier: LGPL-2.1-or-later
"""The page as a browser shows it. VMCHECK_SCREENSHOTS=FOLDER keeps the pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests import reports
from tests.browser import CHROMIUM, Browser
from tests.reports import MiB
from vmcheck.check import Report
from vmcheck.facts.ranges import RangeSet
from vmcheck.report.page import page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")

DIMMS = RangeSet([(n << 32, (n << 32) + 128 * MiB) for n in range(1, 33)])

REPORTS = {
    "whole": reports.WHOLE,
    "memory-missing": reports.report(
        ("undescribed-ram", reports.LOST_DIMM), kernel=reports.topology(reports.BOOT | reports.DIMM)
    ),
    "cpus-missing": reports.report(
        ("cpu-without-note", replace(reports.LOST_CPU, cpus=(5, 6, 7))), kernel=reports.topology(online=8)
    ),
    "both": reports.TWO_NODES,
    "many-dimms": reports.report(
        ("undescribed-ram", replace(reports.LOST_DIMM, ranges=DIMMS)),
        kernel=reports.topology(reports.BOOT | DIMMS),
    ),
    "phantom": reports.PHANTOM,
    "could-not-tell": reports.BLIND,
    "hostile": reports.hostile(),
    "huge": reports.huge(),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


@pytest.fixture(params=list(REPORTS))
def named(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def written(report: Report, tmp_path: Path) -> Path:
    file = tmp_path / "report.html"
    file.write_text(page(report), encoding="utf-8")
    return file


def opened(
    browser: Browser, report: Report, tmp_path: Path, width: int = 1200, scheme: str = "light"
) -> None:
    """With everything unfolded that a reader can unfold."""
    browser.open(written(report, tmp_path), width=width, height=900, scheme=scheme)
    browser.ask("document.querySelectorAll('details').forEach(details => details.open = true)")


def keep(browser: Browser, name: str) -> None:
    if folder := os.environ.get("VMCHECK_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{name}.png").write_bytes(browser.screenshot())


def test_a_page_loads_without_a_request_a_message_or_a_dialog(
    browser: Browser, named: str, tmp_path: Path
) -> None:
    file = written(REPORTS[named], tmp_path)
    browser.open(file)
    keep(browser, f"{named}-wide")
    requests = [told["request"]["url"] for told in browser.told("Network.requestWillBeSent")]
    assert requests == [file.as_uri()]
    assert browser.told("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown") == []
    assert browser.told("Page.javascriptDialogOpening") == []
    assert browser.ask("document.scripts.length") == 0


def test_a_phone_shows_the_whole_width_in_readable_letters(
    browser: Browser, named: str, tmp_path: Path
) -> None:
    browser.open(written(REPORTS[named], tmp_path), width=320)
    keep(browser, f"{named}-phone")
    opened(browser, REPORTS[named], tmp_path, width=320)
    assert browser.ask("document.documentElement.scrollWidth") == 320
    smallest = """
        Math.min(...[...document.querySelectorAll("body *")]
            .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
            .filter(e => e.getClientRects().length)
            .map(e => parseFloat(getComputedStyle(e).fontSize)))
    """
    assert browser.ask(smallest) >= 12


def test_the_dark_page_is_dark_and_the_printed_one_is_not(
    browser: Browser, named: str, tmp_path: Path
) -> None:
    background = "getComputedStyle(document.documentElement).backgroundColor"
    browser.open(written(REPORTS[named], tmp_path), scheme="dark")
    keep(browser, f"{named}-dark")
    assert browser.ask(background) == "rgb(20, 24, 27)"
    browser.media("print", "dark")
    keep(browser, f"{named}-print")
    assert browser.ask(background) == "rgb(255, 255, 255)"
    assert browser.ask("getComputedStyle(document.querySelector('.scroll')).maxHeight") == "none"


LABELS = "[...document.querySelectorAll('.line a')].map(a => a.getAttribute('aria-label'))"
TIP = "getComputedStyle({0}, '::after').content"
MAPS = ["both", "many-dimms", "phantom"]


@pytest.mark.parametrize("name", MAPS)
def test_the_keyboard_reaches_every_range_and_shows_it(browser: Browser, name: str, tmp_path: Path) -> None:
    browser.open(written(REPORTS[name], tmp_path))
    labels = browser.ask(LABELS)
    reached = []
    for _ in range(len(labels) + 12):
        browser.press("Tab", 9)
        label = browser.ask("document.activeElement.getAttribute('aria-label')")
        if browser.ask("document.activeElement.matches('.line a')"):
            assert browser.ask(TIP.format("document.activeElement")) == f'"{label}"'
            reached.append(label)
    # The last Tabs begin anew.
    assert reached[: len(labels)] == labels
    if name == "both":
        assert "missing: [0x100000000, 0x104000000), 64 MiB, node 1" in reached


WHERE_SEEN = """
    (mark => {
        mark.scrollIntoView({block: 'center', behavior: 'instant'});
        const {left, right, top, bottom} = mark.getBoundingClientRect();
        for (let x = left + .5; x < right; x += .5) {
            const y = (top + bottom) / 2, there = document.elementFromPoint(x, y);
            if (mark.contains(there)) return [x, y];
        }
    })
"""
"""A point where nothing lies over the mark."""


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("width", [320, 1200])
def test_the_mouse_reaches_every_range_and_shows_it(
    browser: Browser, name: str, width: int, tmp_path: Path
) -> None:
    browser.open(written(REPORTS[name], tmp_path), width=width)
    for number, label in enumerate(browser.ask(LABELS)):
        mark = f"document.querySelectorAll('.line a')[{number}]"
        point = browser.ask(f"{WHERE_SEEN}({mark})")
        assert point is not None, label
        browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=point[0], y=point[1])
        assert browser.ask(TIP.format(mark)) == f'"{label}"'
    keep(browser, f"{name}-hover-{width}")


def test_a_mark_leads_to_its_row_in_the_table(browser: Browser, tmp_path: Path) -> None:
    browser.open(written(REPORTS["both"], tmp_path))
    browser.ask("document.querySelector('.line a.missing').click()")
    assert browser.ask("document.querySelector(':target code').textContent") == "[0x100000000, 0x108000000)"


def test_text_stands_out_from_what_is_behind_it(browser: Browser, named: str, tmp_path: Path) -> None:
    """WCAG AA, of every text with a plain background; patterns are in test_report_page."""
    poor = """
        (() => {
            const rgb = text => text.match(/[\\d.]+/g).map(Number);
            const linear = c => (c /= 255) <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
            const light = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
            const behind = e => {
                for (; e; e = e.parentElement) {
                    const colour = rgb(getComputedStyle(e).backgroundColor);
                    if (colour.length === 3 || colour[3] === 1) return colour;
                }
            };
            return [...document.querySelectorAll("body *")]
                .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
                .filter(e => getComputedStyle(e).backgroundImage === "none")
                .filter(e => {
                    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))];
                    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05) < 4.5;
                })
                .map(e => e.outerHTML.slice(0, 200));
        })()
    """
    for scheme in ("light", "dark"):
        opened(browser, REPORTS[named], tmp_path, scheme=scheme)
        assert browser.ask(poor) == []


def test_the_page_of_a_huge_machine_is_drawn_whole(browser: Browser, tmp_path: Path) -> None:
    browser.open(written(REPORTS["huge"], tmp_path))
    drawn = "[...document.querySelectorAll('{}')].filter(e => e.getClientRects().length).length"
    assert browser.ask(drawn.format(".line a.missing")) == 500
    assert browser.ask(drawn.format(".cpus .cpu")) == 1024
