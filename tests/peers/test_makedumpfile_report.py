# SPDX-License-Identifier: LGPL-2.1-or-later
"""makedumpfile's report of fresh captures beside what vmcheck reads from the dump it wrote.

Two of them: this machine's, and sid's, which the lab's capture kernels run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from tests.peers.fresh import LOST, MIDDLE, REMOVED, UPDATED, WHOLE, Captures, Dressed, Wanted
from tests.peers.programs import here, of_suite, version_of
from vmcheck.facts.findings import State
from vmcheck.facts.header import DumpHeader
from vmcheck.facts.ranges import EMPTY, RangeSet
from vmcheck.facts.topology import Unknown

pytestmark = pytest.mark.lab

PAGE = 4096
LEFT_OUT = "kernel-data-filtered"


@dataclass(frozen=True)
class Makedumpfile:
    command: list[str]
    version: str


@pytest.fixture(scope="session", params=["machine", "sid"])
def makedumpfile(request: pytest.FixtureRequest) -> Makedumpfile:
    on_machine = request.param == "machine"
    command = here("makedumpfile") if on_machine else of_suite("sid", "makedumpfile", "makedumpfile")
    return Makedumpfile(command, version_of(command, r"version (\S+)", "-v"))


@pytest.fixture(params=[WHOLE, LOST, MIDDLE, UPDATED, REMOVED], ids=str)
def wanted(request: pytest.FixtureRequest) -> Wanted:
    found: Wanted = request.param
    return found


@pytest.fixture
def dressed(captures: Captures, makedumpfile: Makedumpfile, wanted: Wanted) -> Dressed:
    return captures.dressed(wanted, makedumpfile.command, makedumpfile.version)


def pages(dressed: Dressed, line: str) -> int:
    """A number of the report."""
    found = re.search(rf"^ *{line} *: 0x([0-9a-f]+)$", dressed.said, re.MULTILINE)
    assert found, f"no line {line!r} in {dressed.said[-2000:]}"
    return int(found[1], 16)


def segment_pages(header: DumpHeader) -> int:
    """Whole pages of every PT_LOAD segment, those of two segments counted twice."""
    parts = [RangeSet([(s.p_paddr, s.p_paddr + s.p_memsz)]) for s in header.segments]
    return sum(part.aligned_inward(PAGE).size for part in parts) // PAGE


def described_pages(header: DumpHeader) -> int:
    return header.described.aligned_inward(PAGE).size // PAGE


def test_it_is_content_with_every_capture(dressed: Dressed) -> None:
    assert dressed.status == 0
    assert "makedumpfile Completed." in dressed.said


def test_original_pages_are_those_of_every_segment(
    captures: Captures, dressed: Dressed, wanted: Wanted
) -> None:
    assert pages(dressed, "Original pages") == segment_pages(captures[wanted].header)


def test_total_pages_end_with_the_highest_segment(
    captures: Captures, dressed: Dressed, wanted: Wanted
) -> None:
    assert pages(dressed, "Total pages") * PAGE == captures[wanted].header.described.end
    assert pages(dressed, "Total pages") - pages(dressed, "Original pages") == pages(dressed, "Memory Hole")


def test_the_dump_it_writes_describes_the_capture(
    captures: Captures, dressed: Dressed, wanted: Wanted
) -> None:
    assert dressed.report.header.described == captures[wanted].header.described.aligned_inward(PAGE)
    assert dressed.report.header.cpu_notes == captures[wanted].header.cpu_notes


def test_what_it_leaves_out_is_filtered_and_never_missing(
    captures: Captures, dressed: Dressed, wanted: Wanted
) -> None:
    """Zero pages apart, which are stored as one.

    1.7.2 takes slabs of newer kernels for user pages. Where the resource tree is in one of them,
    what is missing is unknown: never a range that the capture has.
    """
    excluded = pages(dressed, "Excluded pages") - pages(dressed, "Pages filled with zero")
    assert dressed.report.header.filtered.size // PAGE == excluded
    missing = captures[wanted].report.lost_memory
    resources = dressed.report.topology.resources
    if not isinstance(resources, Unknown) and resources.account.complete:
        assert dressed.report.lost_memory == missing
    else:
        assert dressed.report.lost_memory - missing == EMPTY
        assert LEFT_OUT in [outcome.rule for outcome in dressed.report.outcomes_in(State.FOUND)]


@dataclass(frozen=True)
class Disagreement:
    """What makedumpfile says of a capture and vmcheck does not, and why."""

    name: str
    capture: Wanted
    says: str
    """A regular expression."""
    rule: str
    """What vmcheck finds in the dump that makedumpfile wrote. Empty: nothing, and rightly."""
    why: str
    versions: str = ""
    """A regular expression of the versions concerned. Empty: all."""


DISAGREEMENTS = [
    Disagreement(
        "silent-about-missing-memory", LOST, r"^makedumpfile Completed\.$", "undescribed-ram",
        "it copies what elfcorehdr names, and asks no kernel whether that is all",
    ),
    Disagreement(
        "silent-about-missing-registers", LOST, r"^makedumpfile Completed\.$", "cpu-without-note",
        "it copies the notes that /proc/vmcore has",
    ),
    Disagreement(
        "silent-about-shifted-notes", MIDDLE, r"^makedumpfile Completed\.$", "notes-shifted",
        "it copies the notes in their order, and knows no CPU numbers",
    ),
    Disagreement(
        "silent-about-removed-memory", REMOVED, r"^ *Pages filled with zero *: 0x0*[1-9a-f]",
        "described-without-ram", "removed memory reads as zeros: original pages, and left out as such",
    ),
    Disagreement(
        "cries-wolf", WHOLE, r"^The kernel version is not supported\.$", "",
        "1.7.2 knows kernels up to 6.0, and says this of every newer one, rightly filtered or not",
        versions=r"1\.7\.2$",
    ),
    Disagreement(
        "takes-slabs-for-user-pages", UPDATED, r"^makedumpfile Completed\.$", "kernel-data-filtered",
        "1.7.2 looks for PG_slab in the flags of a page; since v6.10 it is in page_type",
        versions=r"1\.7\.2$",
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", DISAGREEMENTS, ids=lambda row: str(row.name))
def test_known_disagreement(captures: Captures, makedumpfile: Makedumpfile, row: Disagreement) -> None:
    if not re.match(row.versions, makedumpfile.version):
        pytest.skip(f"this one is of {row.versions}, and here is {makedumpfile.version}")
    dressed = captures.dressed(row.capture, makedumpfile.command, makedumpfile.version)
    assert re.search(row.says, dressed.said, re.MULTILINE)
    found = [outcome.rule for outcome in dressed.report.outcomes_in(State.FOUND)]
    assert row.rule in found if row.rule else not found


def test_the_kernel_text_is_counted_twice_and_zero_pages_are_stored(
    captures: Captures, dressed: Dressed, wanted: Wanted
) -> None:
    """Two known disagreements, in one sum.

    The kernel's text has a segment of its own over memory that another describes: the report's original
    and remaining pages are too many by it, where vmcheck's sets count a page once. And an excluded zero
    page is in the file after all: it has a descriptor, of a page of zeros that all of them share.
    """
    header = captures[wanted].header
    twice = segment_pages(header) - described_pages(header)
    zeros = pages(dressed, "Pages filled with zero")
    assert min(twice, zeros) > 0
    stored = dressed.report.header.stored.size // PAGE
    assert stored == pages(dressed, "Remaining pages") - twice + zeros
