# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.findings import Finding, Severity
from vmcheck.rules import Case, Inapplicable, rule
from vmcheck.topology import known


@rule
def build_id_mismatch(case: Case) -> Iterator[Finding]:
    """The symbols given with --symbols are of another kernel build.

    The build ID of the vmlinux or symbol file is not the one in VMCOREINFO. Reading this
    dump with it gives plausible nonsense, in any tool; vmcheck did not use it.
    """
    given = case.topology.symbols_build_id
    if given is None:
        raise Inapplicable("no vmlinux or symbol file with a build ID was given")
    if given != (dumped := known(case.topology.build_id)):
        yield Finding(
            Severity.WRONG,
            "the given symbols are of another kernel",
            evidence=(f"their build ID is {given}, the crashed kernel's is {dumped}",),
        )
