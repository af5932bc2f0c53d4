# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.quantities import size
from vmcheck.facts.topology import known
from vmcheck.rules import Inapplicable, rule


@rule
def no_crash_kernel(case: Case) -> Iterator[Finding]:
    """No crash kernel is loaded: a crash leaves no dump at all.

    What it means: no memory is reserved for a crash kernel, or it is reserved and nothing is loaded
    there. The second happens if the kdump service is off or failed, and for a moment during a reload,
    since kexec unloads the old image before it loads the new one.

    Why it matters: a crash now would reboot or hang the machine and leave no dump.

    What to do: put crashkernel= on the kernel's command line and reboot, if no memory is reserved.
    Otherwise start the kdump service and read its log.

    How it is decided: kexec_crash_size and kexec_crash_image of a running kernel. A dump has been
    captured already, so the rule does not apply to one.
    """
    if not case.forecast:
        raise Inapplicable("the kernel has crashed, and there is a dump")
    if known(case.topology.crash_image) is not None:
        return
    reserved = case.topology.crash_reserved
    if reserved == 0:
        yield Finding(
            Severity.LOST,
            "no memory is reserved for a crash kernel: a crash now would leave no dump at all",
            evidence=("kexec_crash_size is 0: crashkernel= is not on the command line, or could not be met",),
        )
    else:
        yield Finding(
            Severity.LOST,
            "no crash kernel is loaded: a crash now would leave no dump at all",
            evidence=(
                *([f"{size(reserved)} are reserved for one (kexec_crash_size)"] if reserved else []),
                "kexec_crash_image is NULL (kexec_crash_loaded is 0)",
            ),
        )
