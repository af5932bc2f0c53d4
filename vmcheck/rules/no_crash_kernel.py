# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from collections.abc import Iterator

from vmcheck.findings import Finding, Severity
from vmcheck.quantities import size
from vmcheck.rules import Case, Inapplicable, rule
from vmcheck.topology import known


@rule
def no_crash_kernel(case: Case) -> Iterator[Finding]:
    """No crash kernel is loaded: a crash leaves no dump at all.

    Only asked of a running kernel. Either no memory is reserved for a crash kernel, which
    takes crashkernel= on the kernel's command line and a reboot; or it is reserved and
    nothing was loaded there: the kdump service is off or failed, or a reload is under way,
    for kexec unloads the old image before it loads the new one.
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
