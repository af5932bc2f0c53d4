# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests import reports
from vmcheck.check import Report
from vmcheck.errors import plain
from vmcheck.facts.diagnosis import Step
from vmcheck.report import words
from vmcheck.report.folder import Checked
from vmcheck.report.markdown import code, markdown, markdown_of_folder, text

READER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])

OURS = {
    *("paragraph", "bullet_list", "ordered_list", "list_item", "strong"),
    *("text", "softbreak", "inline", "fence", "code_inline", "html_block"),
}
"""What a report's Markdown is made of."""

ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</summary></details>",
    "<!-- ",
    "[text](javascript:alert(1))",
    "![image](http://example.com/x.png)",
    "[ref]: http://example.com",
    "<http://example.com>",
    "http://example.com",
    "www.example.com",
    "mailto:a@example.com",
    "**bold** __bold__ *i* _i_ ~~s~~",
    "`code` ``` code",
    "# heading",
    "#",
    "- list",
    "1. list",
    "10) list",
    "> quote",
    "---",
    "===",
    "a | b",
    "&lt;script&gt; &#60;b&#62;",
    "\\<b> \\\\",
    "@everyone #1 !1 GH-1 ~label %milestone $snippet :tada:",
    "\n\n# two lines\r\n/close",
    "    indented",
    "\x1b[2J\u202e\ud800\x00",
    "```\nfence",
    reports.HOSTILE,
]


def tokens(source: str) -> Iterator[Token]:
    for token in READER.parse(source):
        yield token
        yield from token.children or ()


def kinds(source: str) -> set[str]:
    return {re.sub("_(open|close)$", "", token.type) for token in tokens(source)}


def shown(source: str) -> str:
    """What a reader sees of text, spaces of no width left out."""
    words = (token.content for token in tokens(source) if token.type in ("text", "code_inline"))
    return "".join(words).replace("\u200b", "")


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_string_of_a_dump_is_shown_and_does_nothing(attack: str) -> None:
    for source in (text(attack), f"- **Why**: {text(attack)}", f"- {text(attack)}"):
        assert kinds(source) <= {"paragraph", "bullet_list", "list_item", "strong", "inline", "text"}
    assert shown(text(attack)) == plain(attack).strip()


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_code_span_holds_any_string(attack: str) -> None:
    assert kinds(f"- {code(attack)}.") <= {
        "paragraph",
        "bullet_list",
        "list_item",
        "inline",
        "text",
        "code_inline",
    }
    assert shown(code(attack)) == plain(attack)


@given(st.text(alphabet="ab1 `*_[]()<>&#!~$|\\:/.-+=@\"'\n"))
def test_no_string_becomes_markup(string: str) -> None:
    assert kinds(f"- {text(string)}") <= {"paragraph", "bullet_list", "list_item", "inline", "text"}
    assert shown(f"x {text(string)}") == f"x {plain(string).strip()}".strip()


@pytest.mark.parametrize(
    "attack", ["@everyone", "#1", "!1", "~label", "%1", "$1", "a:tada:", "http://x", "www.x"]
)
def test_nothing_is_mentioned_or_linked_after_the_markdown_is_html(attack: str) -> None:
    """GitHub and GitLab look for these in the text that they made, where no escape is left."""
    made = READER.render(text(attack))
    assert attack not in made
    assert "\u200b" in made


def only_ours(source: str) -> None:
    assert kinds(source) <= OURS
    blocks = [token.content for token in tokens(source) if token.type == "html_block"]
    assert all(
        re.fullmatch(r"<details><summary>[\w ]+</summary>|</details>", block.strip()) for block in blocks
    )
    assert source.count("\n</details>\n") == source.count("<details>")


@pytest.mark.parametrize("report", reports.every())
def test_a_report_is_made_of_what_we_wrote(report: Report) -> None:
    source = markdown(report).decode()
    only_ours(source.replace("```sh", "```"))
    assert all(char.isprintable() for char in source.replace("\n", ""))


def test_a_command_with_a_fence_in_it_does_not_end_its_block() -> None:
    steps = (Step("do", ("echo ``` </details>", "```")),) * 12
    report = replace(reports.DIAGNOSED, diagnosis=replace(reports.DIAGNOSIS, next_dump=steps))
    source = markdown(report).decode()
    only_ours(source)
    fences = [token.content for token in tokens(source) if token.type == "fence"]
    assert fences == ["echo ``` </details>\n```\n"] * 12


def test_the_report_of_a_dump_that_lacks_memory_and_a_cpu() -> None:
    head, *folded = markdown(reports.DIAGNOSED).decode().split("\n<details>")
    assert (
        head
        == f"""\
**INCOMPLETE**: {words.answer(reports.DIAGNOSED).removeprefix("INCOMPLETE: ")}

- **Why**: memory and a CPU were added after the crash kernel was loaded, and it was not loaded again
- **What it costs**: the crashing task's stack is in missing memory, so its backtrace is cut
- **What to do**: load the crash kernel with the kernel's own loader

**Missing**

- System RAM added after elfcorehdr was written, in no PT_LOAD segment (`undescribed-ram`)
  - `[0x100000000, 0x108000000)  128 MiB`
- An online CPU saved its registers and no NT_PRSTATUS of the dump has them (`cpu-without-note`)
  - `CPU 2`
  - recoverable: what the headers lack is still in the dump's memory
"""
    )
    titles = [each.partition("</summary>")[0] for each in folded]
    assert titles == [
        f"<summary>{title}"
        for title in ("Evidence", "Why", "What it costs", "What to do", "The dump and its kernel")
    ]
    assert "   ```sh\n   kexec -s -p /boot/vmlinuz\n   ```\n" in folded[3]


def test_a_folder_is_a_list_worst_first() -> None:
    entries = [
        Checked("a/vmcore", ("vmcore",), (), reports.WHOLE),
        Checked("b/`vmcore`", ("vmcore",), (), None, "the file is *empty*"),
    ]
    assert markdown_of_folder("/var/crash", entries).decode().split("\n")[:6] == [
        "**2 dumps in /var/crash: 1 UNREADABLE, 1 COMPLETE**",
        "",
        "- `` b/`vmcore` ``: **UNREADABLE**",
        r"  - The file is \*empty\*",
        "- `a/vmcore`: **COMPLETE**",
        "  - This dump describes all 319 MiB of RAM that it should and the registers of both online CPUs",
    ]
