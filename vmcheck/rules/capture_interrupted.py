# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.quantities import count
from vmcheck.facts.topology import known
from vmcheck.rules import rule
from vmcheck.rules.applies import needs_file, needs_page_table


@rule
def capture_interrupted(case: Case) -> Iterator[Finding]:
    """The dump was not written to its end.

    What it means: the second bitmap promises pages that have no page_desc, up to the last one.
    makedumpfile was killed, the machine was reset, or the dump is still being written.

    Why it matters: the missing pages are in no part of the file. A tool that needs one of them
    fails, or reads zeros.

    What to do: look for the capture kernel's last messages (kexec-dmesg.log), a watchdog, an
    out-of-memory kill or a full disk. Check the dump again if its file still grows.

    How it is decided: makedumpfile writes page_descs in the order of the bitmap, so empty ones at
    the end of the table were never written. A file that is marked incomplete or truncated says so
    itself, and other rules report it.
    """
    needs_file(case)
    needs_page_table(case)
    body = known(case.body)
    if body.never_written:
        pages = count(body.never_written.size // case.header.page_size, "page")
        yield Finding(
            Severity.LOST,
            f"the capture was interrupted: the last {pages} of {body.pages:,} were never written",
            ranges=body.never_written,
            evidence=(
                "their page_descs are empty, up to the end of the table",
                *(["the dump is distilled: fewer pages may have been missing"] if body.distilled else []),
                *([f"while it was read: {body.changed}"] if body.changed else []),
            ),
        )
