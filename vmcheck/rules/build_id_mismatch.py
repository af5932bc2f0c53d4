# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.topology import known
from vmcheck.rules import Inapplicable, rule


@rule
def build_id_mismatch(case: Case) -> Iterator[Finding]:
    """The symbols given with --symbols are of another kernel build.

    What it means: the build ID of the vmlinux or symbol file is not the one of the crashed kernel.

    Why it matters: any tool that reads this dump with these symbols shows plausible nonsense. vmcheck
    did not use them.

    What to do: give the vmlinux or symbol file of the crashed kernel, or none: most kernels carry
    their own types and symbols.

    How it is decided: the GNU build ID of the given file is compared with BUILD-ID in VMCOREINFO.
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
