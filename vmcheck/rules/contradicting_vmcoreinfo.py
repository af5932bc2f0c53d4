# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import re
from collections.abc import Iterator

from vmcheck.facts.case import Case
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.header import Producer
from vmcheck.rules import Inapplicable, rule


@rule
def contradicting_vmcoreinfo(case: Case) -> Iterator[Finding]:
    """VMCOREINFO contradicts the rest of the dump's headers.

    What it means: the kernel release, page size or physical address width in VMCOREINFO is not the
    one in the other headers, or VMCOREINFO lacks CRASHTIME, which the kernel adds when it crashes.

    Why it matters: the headers and the memory may be of two kernels, or the memory may not be of a
    crash. Every tool finds its way in a dump by VMCOREINFO.

    What to do: find out how the file was made. If a tool put it together or edited it, look for the
    original.

    How it is decided: OSRELEASE, PAGESIZE and MAX_PHYSMEM_BITS are compared with utsname, block_size
    and the highest address that the headers describe. CRASHTIME is asked only of kdump's dumps.
    """
    header = case.header
    if not header.vmcoreinfo_notes:
        raise Inapplicable("there is no VMCOREINFO")
    info, wrong = header.vmcoreinfo, []
    if not info.get("OSRELEASE"):
        wrong.append("OSRELEASE is absent")
    elif len(header.utsname) > 2 and header.utsname[2] and header.utsname[2] != info["OSRELEASE"]:
        wrong.append(f"OSRELEASE is {info['OSRELEASE']}, the file's header has {header.utsname[2]}")
    if header.header_version is not None and info.get("PAGESIZE", "") not in ("", str(header.page_size)):
        wrong.append(f"PAGESIZE is {info['PAGESIZE']}, block_size is {header.page_size}")
    bits = info.get("NUMBER(MAX_PHYSMEM_BITS)", "")
    if re.fullmatch("[1-5]?[0-9]", bits) and header.described.end > 1 << int(bits):
        wrong.append(f"MAX_PHYSMEM_BITS is {bits}, memory is described up to {header.described.end:#x}")
    if header.producer is Producer.KDUMP and "CRASHTIME" not in info:
        wrong.append("CRASHTIME is absent: this VMCOREINFO was not completed by a crash")
    if wrong:
        yield Finding(
            Severity.WRONG, "VMCOREINFO contradicts the dump's other headers", evidence=tuple(wrong)
        )
