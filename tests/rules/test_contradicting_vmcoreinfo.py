# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

from dataclasses import replace

import pytest

from tests.rules.cases import COMPRESSED, DUMP, FROM_QEMU, VMCOREINFO, clean, findings, inapplicable, outcome
from vmcheck.facts.findings import Finding, Severity
from vmcheck.facts.header import DumpHeader

RULE = "contradicting-vmcoreinfo"


def saying(text: str, header: DumpHeader = DUMP) -> DumpHeader:
    return replace(header, vmcoreinfo_notes=(text.encode(),))


def contradictions(header: DumpHeader) -> tuple[str, ...]:
    (finding,) = findings(RULE, header)
    assert finding == Finding(
        Severity.WRONG, "VMCOREINFO contradicts the dump's other headers", evidence=finding.evidence
    )
    return finding.evidence


def test_the_releases_of_two_kernels_are_wrong() -> None:
    dump = replace(COMPRESSED, utsname=("Linux", "host", "5.10.0", "#1", "x86_64", ""))
    assert contradictions(dump) == ("OSRELEASE is 6.1.0-test, the file's header has 5.10.0",)


def test_an_absent_release_is_wrong() -> None:
    assert contradictions(saying("PAGESIZE=4096\nCRASHTIME=1\n")) == ("OSRELEASE is absent",)


def test_another_page_size_is_wrong() -> None:
    dump = saying(VMCOREINFO.replace("PAGESIZE=4096", "PAGESIZE=65536"), COMPRESSED)
    assert contradictions(dump) == ("PAGESIZE is 65536, block_size is 4096",)


def test_memory_past_max_physmem_bits_is_wrong() -> None:
    dump = saying(VMCOREINFO + "NUMBER(MAX_PHYSMEM_BITS)=29\n")
    assert contradictions(dump) == ("MAX_PHYSMEM_BITS is 29, memory is described up to 0x40000000",)


def test_a_vmcoreinfo_that_no_crash_completed_is_wrong() -> None:
    dump = saying(VMCOREINFO.replace("CRASHTIME=1\n", ""))
    assert contradictions(dump) == ("CRASHTIME is absent: this VMCOREINFO was not completed by a crash",)


def test_a_hypervisor_needs_no_crash() -> None:
    dump = saying(VMCOREINFO.replace("CRASHTIME=1\n", ""), FROM_QEMU)
    assert outcome(RULE, dump) == clean(RULE)


@pytest.mark.parametrize("bits", ["²", "-1", "9" * 5000, "52\x1b[2J", "", "46"])
def test_a_width_that_is_no_number_proves_nothing(bits: str) -> None:
    """int() refuses what str.isdigit() takes, and anything longer than 4,300 digits."""
    assert outcome(RULE, saying(VMCOREINFO + f"NUMBER(MAX_PHYSMEM_BITS)={bits}\n")) == clean(RULE)


def test_headers_that_agree_are_clean() -> None:
    dump = replace(COMPRESSED, utsname=("Linux", "host", "6.1.0-test", "#1", "x86_64", ""))
    assert outcome(RULE, dump) == clean(RULE)


def test_without_vmcoreinfo_there_is_no_question() -> None:
    assert outcome(RULE, replace(DUMP, vmcoreinfo_notes=())) == inapplicable(RULE, "there is no VMCOREINFO")
