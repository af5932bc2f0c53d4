# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity
from vmcheck.rules import Inapplicable, rule


@rule
def doubled_vmcoreinfo(case: Case) -> Iterator[Finding]:
    """The dump has more than one VMCOREINFO.

    What it means: two notes claim to describe the kernel. If they differ, one of them is another
    kernel's.

    Why it matters: tools differ in which of them they use.

    What to do: if they are the same, nothing. If they differ, find out how the file was made, and
    trust no tool that used the wrong one.

    How it is decided: every VMCOREINFO note of the file is compared byte by byte. vmcheck uses the
    first.
    """
    notes = case.header.vmcoreinfo_notes
    if not notes:
        raise Inapplicable("there is no VMCOREINFO")
    if len(notes) > 1:
        same = len(set(notes)) == 1
        yield Finding(
            Severity.NOTICE if same else Severity.WRONG,
            f"there are {len(notes)} VMCOREINFO notes, "
            + ("all the same" if same else "and they differ; the first was used"),
        )
