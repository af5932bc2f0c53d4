# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import re
from collections.abc import Iterator

from vmcheck.findings import Finding, Severity
from vmcheck.header import Producer
from vmcheck.rules import Case, Inapplicable, rule


@rule
def contradicting_vmcoreinfo(case: Case) -> Iterator[Finding]:
    """VMCOREINFO contradicts the rest of the dump's headers.

    Its kernel release, page size or physical address width is not what the other headers
    have, or it lacks CRASHTIME, which the kernel adds when it crashes: then it was not
    written by a crash. The headers and the memory may be of two kernels.
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
