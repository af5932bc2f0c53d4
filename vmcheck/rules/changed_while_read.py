# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.topology import known
from vmcheck.rules import rule
from vmcheck.rules.applies import needs_file


@rule
def changed_while_read(case: Case) -> Iterator[Finding]:
    """The file changed while it was checked.

    What it means: the dump is still being written, copied or cut.

    Why it matters: what was read before and after the change does not belong together, so no
    other answer about this dump is sure.

    What to do: wait until the file is complete, and check it again.

    How it is decided: its size and modification time, when it is opened and after it was read.
    """
    needs_file(case)
    if changed := known(case.body).changed:
        summary = "the file changed while it was checked: it is still being written"
        yield Finding(Severity.WRONG, summary, evidence=(changed,))
