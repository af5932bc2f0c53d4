# SPDX-License-Identifier: LGPL-2.1-or-later
"""The made pages are what the code and the captures make now, and links between pages lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.pages import DOCS, pages

PAGES = pages()


@pytest.mark.parametrize("name", PAGES)
def test_a_made_page_is_current(name: str, accept: bool) -> None:
    """``python -m docs.pages``, or ``pytest --accept``, mends this."""
    file = DOCS / name
    if accept:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(PAGES[name], encoding="utf-8")
    assert file.read_text(encoding="utf-8") == PAGES[name]


def test_no_page_of_a_rule_that_is_gone_is_left() -> None:
    assert {f"rules/{path.name}" for path in (DOCS / "rules").iterdir()} == {
        page for page in PAGES if "/" in page
    }


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
