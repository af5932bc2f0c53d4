# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.findings import Finding, Severity
from vmcheck.rules import Case, Inapplicable, rule


@rule
def doubled_vmcoreinfo(case: Case) -> Iterator[Finding]:
    """The dump has more than one VMCOREINFO.

    Which one a tool takes differs from tool to tool. If they are not equal, one of them is
    another kernel's.
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
