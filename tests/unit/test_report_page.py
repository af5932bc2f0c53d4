# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests import reports
from tests.reports import GiB, MiB, TiB
from vmcheck.check import Report
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.ranges import RangeSet
from vmcheck.facts.topology import Unknown
from vmcheck.report.cpus import Registers, registers
from vmcheck.report.memory import memory
from vmcheck.report.memory_map import Fold, Line, MemoryMap, memory_map
from vmcheck.report.nodes import nodes_of, several_nodes
from vmcheck.report.page import page

STYLE = (Path(__file__).parents[2] / "templates" / "style.css").read_text()

VOID = {"meta", "path", "br"}


class Page(HTMLParser):
    """Every element with its attributes, and all text; asks that elements nest."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page(report))
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def attributes(self, name: str) -> list[str]:
        return [value for _, attributes in self.elements if (value := attributes.get(name)) is not None]


@pytest.mark.parametrize("report", reports.every())
def test_a_page_asks_for_nothing_and_runs_nothing(report: Report) -> None:
    made = Page(report)
    tags = {tag for tag, _ in made.elements}
    assert tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base"} == set()
    assert [name for _, attributes in made.elements for name in attributes if name.startswith("on")] == []
    assert all(address.startswith("#") for address in made.attributes("href"))
    assert "url(" not in STYLE
    assert "@import" not in STYLE
    assert "default-src 'none'; style-src 'unsafe-inline'" in made.attributes("content")


@pytest.mark.parametrize("report", reports.every())
def test_every_link_of_a_page_leads_somewhere_in_it(report: Report) -> None:
    made = Page(report)
    ids = made.attributes("id")
    assert len(ids) == len(set(ids))
    assert {address[1:] for address in made.attributes("href")} <= set(ids)
    labelled = {*made.attributes("aria-labelledby"), *made.attributes("aria-describedby")}
    assert labelled <= set(ids)


@pytest.mark.parametrize("report", reports.every())
def test_headings_leave_out_no_level(report: Report) -> None:
    levels = [int(tag[1]) for tag, _ in Page(report).elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_a_page_begins_with_the_answer() -> None:
    text = " ".join(Page(reports.ADDED).text.partition("</style>")[0].split())
    answer = "INCOMPLETE: 128 MiB of 639 MiB RAM is missing, and CPU 2 has no register note"
    assert answer in text
    assert text.index(answer) < text.index("Physical addresses")


def test_each_lost_range_is_a_mark_and_a_row_with_its_exact_bounds() -> None:
    made = Page(reports.ADDED)
    lost = "[0x100000000, 0x108000000)"
    marks = [a for tag, a in made.elements if tag == "a" and a.get("class") == "missing"]
    assert [(mark["aria-label"], mark["href"]) for mark in marks] == [
        ("missing: [0x100000000, 0x104000000), 64 MiB", "#r4"),
        ("missing: [0x104000000, 0x108000000), 64 MiB", "#r4"),
    ]
    assert lost in made.text


def test_hostile_strings_are_text_on_a_page() -> None:
    made = Page(reports.hostile())
    assert r"\x1b[2J\x1b]0;owned\x07<script>alert(1)</script>\u202egnp.exe&amp;'" in made.text
    assert [c for c in page(reports.hostile()) if not c.isprintable() and c != "\n"] == []


def test_32_tib_with_500_losses_and_1024_cpus_make_a_small_page() -> None:
    made = page(reports.huge())
    assert len(made.encode()) < 500_000
    assert made.count('class="missing thin"') == 500


def test_a_page_stays_small_where_every_other_block_of_a_large_machine_is_lost() -> None:
    blocks = [(n * 256 * MiB, n * 256 * MiB + 128 * MiB) for n in range(131_072)]
    ram, lost = RangeSet([(0, 32 * TiB)]), RangeSet(blocks)
    report = reports.report(
        ("undescribed-ram", replace(reports.LOST_DIMM, ranges=lost)),
        header=replace(reports.WHOLE_HEADER, described=ram - lost, stored=ram - lost),
        kernel=reports.topology(ram, online=8192),
    )
    made = page(report)
    assert len(made.encode()) < 1_000_000
    assert "more ranges not shown here" in made


def test_a_report_without_any_memory_or_cpu_is_still_a_page() -> None:
    dark = Unknown("nothing could be read")
    kernel = replace(
        reports.topology(),
        resources=dark,
        sections=dark,
        blocks=dark,
        excluded=dark,
        present_cpus=dark,
        online_cpus=dark,
        saved_notes=dark,
    )
    header = replace(reports.WHOLE_HEADER, described=RangeSet(), stored=RangeSet())
    text = Page(reports.report(header=header, kernel=kernel)).text
    assert "Neither the headers nor the kernel show any memory." in text
    assert "Which CPUs there were is unknown." in text


def drawn(report: Report) -> MemoryMap:
    return memory_map(memory(report), several_nodes(report), report.topology.blocks)


def test_the_map_folds_lines_without_memory_and_says_how_much_that_was() -> None:
    shown = drawn(reports.ADDED)
    assert shown.length == 64 * MiB
    assert [row.start if isinstance(row, Line) else row for row in shown.rows] == [
        *range(0, 512 * MiB, 64 * MiB),
        Fold(0x100000000 - 0x1FFDA000),
        0x100000000,
        0x104000000,
    ]


def test_nodes_are_brackets_and_blocks_are_ticks() -> None:
    lines = [row for row in drawn(reports.TWO_NODES).rows if isinstance(row, Line)]
    assert [(bracket.node, bracket.left, bracket.width) for line in lines for bracket in line.brackets] == [
        *[(0, 0.0, 100.0)] * 4,
        *[(1, 0.0, 100.0)] * 6,
    ]
    # Lines of 64 MiB, blocks of 128.
    assert [line.ticks for line in lines] == [(0.0,), (100.0,)] * 5


def test_a_range_is_of_each_node_that_it_meets_and_of_no_neighbour() -> None:
    nodes = {0: RangeSet([(0, 4096)]), 1: RangeSet([(4096, 8192), (16384, 20480)]), 2: RangeSet()}
    probes = [(0, 4096), (4096, 8192), (4095, 4097), (8192, 16384), (8192, 16385), (20480, 24576)]
    assert [nodes_of(RangeSet([probe]), nodes) for probe in probes] == [[0], [1], [0, 1], [], [1], []]
    assert nodes_of(RangeSet(), nodes) == []


def test_one_node_needs_no_bracket() -> None:
    assert [row.brackets for row in drawn(reports.ADDED).rows if isinstance(row, Line)] == [()] * 10


def test_blocks_too_small_to_see_are_not_drawn() -> None:
    shown = drawn(reports.huge())
    assert shown.block is None
    assert all(row.ticks == () for row in shown.rows if isinstance(row, Line))


def test_a_page_shows_the_missing_memory_by_node_what_it_was_and_which_tasks_lost_theirs() -> None:
    made = Page(reports.TWO_NODES)
    text = " ".join(made.text.split())
    assert "missing: [0x100000000, 0x104000000), 64 MiB, node 1" in made.attributes("aria-label")
    assert "Node 0: 256 MiB Node 1: 384 MiB, 128 MiB of it missing" in text
    assert "slab4.7 MiB3.7 %node 1 Normal" in text
    assert "sh263CPU 0its kernel stack unknownits task_struct" in text


def test_what_a_rule_means_is_told_in_whole_lines() -> None:
    report = reports.report(("undescribed-ram", reports.LOST_DIMM))
    assert "Hot-added System RAM that the headers do not describe." in Page(report).text
    assert "\\n" not in Page(report).text


def test_the_map_draws_what_is_grave_on_top() -> None:
    for row in drawn(reports.PHANTOM).rows:
        if isinstance(row, Line):
            kinds = [mark.kind for mark in row.marks]
            assert kinds == sorted(kinds, key=["described", "excluded", "phantom", "missing"].index)


def test_one_lost_page_of_32_tib_has_its_mark() -> None:
    page_lost = RangeSet([(7 * TiB, 7 * TiB + 4096)])
    ram = RangeSet([(0, 32 * TiB)])
    report = reports.report(
        ("undescribed-ram", replace(reports.LOST_DIMM, ranges=page_lost)),
        header=replace(reports.WHOLE_HEADER, described=ram - page_lost, stored=ram - page_lost),
        kernel=reports.topology(ram),
    )
    marks = [mark for row in drawn(report).rows if isinstance(row, Line) for mark in row.marks]
    assert [mark.text({}) for mark in marks if mark.kind == "missing"] == [
        "missing: [0x70000000000, 0x70000001000), 4.0 KiB"
    ]


def test_a_segment_at_an_absurd_address_is_folded_away() -> None:
    far = RangeSet([(1 << 61, (1 << 61) + GiB)])
    header = replace(reports.WHOLE_HEADER, described=far, stored=far)
    assert len(drawn(reports.report(header=header)).rows) < 30


def test_each_cpu_has_one_state_and_the_worst_finding_decides() -> None:
    doubtful = Finding(Severity.WRONG, "crash gives CPUs each other's registers", cpus=(1, 2))
    never = Finding(Severity.LOST, "never saved", cpus=(3,))
    kernel = replace(reports.topology(online=4), present_cpus=frozenset(range(5)))
    report = reports.report(
        ("notes-shifted", doubtful),
        ("cpu-without-note", reports.LOST_CPU),
        ("cpu-never-saved", never),
        kernel=kernel,
    )
    assert registers(report) == {
        0: Registers.PRESENT,
        1: Registers.DOUBTFUL,
        2: Registers.RECOVERABLE,
        3: Registers.LOST,
        4: Registers.OFFLINE,
    }


def test_an_online_cpu_whose_notes_could_not_be_read_is_not_called_present() -> None:
    kernel = replace(reports.topology(), saved_notes=Unknown("no symbol named crash_notes"))
    assert set(registers(reports.report(kernel=kernel)).values()) == {Registers.UNKNOWN}


def palettes() -> Iterator[dict[str, str]]:
    """Light, dark and print."""
    for block in re.findall(r":root \{(.*?)\}", STYLE, re.S):
        yield dict(re.findall(r"--([a-z]+): (#[0-9a-f]+)", block))


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(c * 2 for c in colour[1:])
    parts = [int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted([luminance(one), luminance(other)], reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


TEXT = [
    *itertools.product(["ink", "soft"], ["paper", "card"]),
    *itertools.product(["ink"], ["badwash", "falsewash", "unsurewash"]),
    *itertools.product(["good", "bad", "false", "unsure"], ["paper", "card"]),
    ("paper", "stored"),
    ("paper", "good"),
    ("paper", "bad"),
]
SHAPES = [("bad", "filtered"), ("false", "falsewash"), ("stored", "filtered"), ("bad", "paper")]


def test_there_are_three_palettes_with_the_same_names() -> None:
    names = [set(palette) for palette in palettes()]
    assert len(names) == 3
    assert names[0] == names[1] == names[2]


@pytest.mark.parametrize(
    ("pairs", "least"), [pytest.param(TEXT, 4.5, id="text"), pytest.param(SHAPES, 3.0, id="shapes")]
)
def test_contrast_meets_wcag_aa(pairs: list[tuple[str, str]], least: float) -> None:
    poor = [
        (number, one, other, round(contrast(palette[one], palette[other]), 2))
        for number, palette in enumerate(palettes())
        for one, other in pairs
        if contrast(palette[one], palette[other]) < least
    ]
    assert poor == []
