# SPDX-License-Identifier: LGPL-2.1-or-later
"""The way into a kernel's memory: VMCOREINFO, and what is told where it leads nowhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from drgn import FaultError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import GiB, elf_vmcore, kdump_vmcore, ram, write
from tests.kernels import PAGE_OFFSET, Machine, Types, healthy, words
from vmcheck.errors import PageNotStored
from vmcheck.facts.header import DumpHeader
from vmcheck.facts.ranges import RangeSet
from vmcheck.facts.topology import Fault, Topology, Unknown, known, nothing_known
from vmcheck.formats import read_header
from vmcheck.kernel import btf
from vmcheck.operations.examine import examine, read_kernel
from vmcheck.operations.isolation import run_isolated

HEALTHY = healthy()
KEYS = sorted(HEALTHY.vmcoreinfo)
ABSURD = [
    *("", "0", "-1", "99999999", "9999999999999999999", "9" * 5000, "ffffffffffffffff", "0x", "²"),
    *(
        "\x1b[2J\x1b]0;owned\x07",
        "<script>alert(1)</script>",
        "a=b=c",
        "\N{RIGHT-TO-LEFT OVERRIDE}gnp",
        "\ud800",
    ),
]


class Nothing:
    """A dump without memory."""

    def read(self, address: int, size: int) -> bytes:
        raise PageNotStored(f"physical address {address:#x}: not here", address)


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], Topology]:
    """What the healthy kernel answers where its VMCOREINFO is another."""
    directory = tmp_path_factory.mktemp("healthy")
    header, symbols = HEALTHY.header(directory), HEALTHY.symbol_file(directory)
    return lambda text: read_kernel(replace(header, vmcoreinfo_notes=(text,)), HEALTHY, symbols)


def with_items(changes: Mapping[str, str | None]) -> bytes:
    items = {**HEALTHY.vmcoreinfo, **changes}
    text = "".join(f"{name}={item}\n" for name, item in items.items() if item is not None)
    return text.encode("utf-8", "surrogatepass")


def one_line(text: str) -> bool:
    return "\n" not in text and len(text) < 6000


def sound(topology: Topology) -> bool:
    """Every reason is one line."""
    facts = [fact for fact in vars(topology).values() if isinstance(fact, Unknown)]
    return all(one_line(fact.why) for fact in facts) and all(map(one_line, topology.remarks))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", [*ABSURD, None])
def test_an_absurd_item_of_vmcoreinfo_is_survived(
    ask: Callable[[bytes], Topology], key: str, value: str | None
) -> None:
    assert sound(ask(with_items({key: value})))


numbers = st.one_of(st.integers(-(2**63), 2**64).map(str), st.integers(0, 2**64).map("{:x}".format))


@settings(max_examples=100, deadline=None)
@given(
    changes=st.dictionaries(
        st.sampled_from(KEYS), st.one_of(st.sampled_from(ABSURD), numbers), min_size=2, max_size=5
    )
)
def test_any_vmcoreinfo_is_survived(ask: Callable[[bytes], Topology], changes: dict[str, str]) -> None:
    assert sound(ask(with_items(changes)))


@settings(max_examples=100, deadline=None)
@given(text=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_a_vmcoreinfo_that_is_none_is_survived(ask: Callable[[bytes], Topology], text: bytes) -> None:
    assert sound(ask(text))


# No way in.


def header(directory: Path, **options: object) -> DumpHeader:
    return read_header([write(directory / "vmcore", elf_vmcore([ram(0, GiB)], **options))])  # type: ignore[arg-type]


@pytest.mark.parametrize("symbols", [False, True])
def test_without_vmcoreinfo_there_is_no_way_in(tmp_path: Path, symbols: bool) -> None:
    """Whether or not symbols were given: the headers can be judged all the same."""
    given = HEALTHY.symbol_file(tmp_path) if symbols else None
    dump = header(tmp_path, vmcoreinfo=None)
    assert read_kernel(dump, Nothing(), given) == nothing_known(
        dump, "no VMCOREINFO, so the kernel's memory cannot be read"
    )


@pytest.mark.parametrize(("machine", "bits"), [("sparc64", 64), ("mips", 32)])
def test_a_machine_that_drgn_does_not_know(tmp_path: Path, machine: str, bits: int) -> None:
    dump = replace(header(tmp_path), machine=machine, bits=bits)
    assert read_kernel(dump, Nothing()) == nothing_known(dump, f"drgn reads no {machine} kernels")


@pytest.mark.parametrize(
    ("machine", "bits", "byteorder"),
    [
        ("i686", 32, "little"),
        ("armv7l", 32, "little"),
        ("aarch64", 64, "little"),
        ("ppc64", 64, "big"),
        ("ppc64le", 64, "little"),
        ("s390x", 64, "big"),
        ("riscv64", 64, "little"),
    ],
)
def test_kernels_of_other_machines_are_asked(tmp_path: Path, machine: str, bits: int, byteorder: str) -> None:
    """By the names that uname -m has for them; that these dumps are empty is another matter."""
    text = HEALTHY.text()
    dump = header(tmp_path, machine=machine, bits=bits, byteorder=byteorder, vmcoreinfo=text)
    found = read_kernel(dump, Nothing())
    assert found.source != nothing_known(dump, "").source
    assert sound(found)


@pytest.mark.parametrize("build", [elf_vmcore, kdump_vmcore])
def test_a_dump_with_nothing_but_vmcoreinfo_cannot_be_told(tmp_path: Path, build: object) -> None:
    path = write(tmp_path / "vmcore", build([ram(GiB, 2 * GiB)], [1], vmcoreinfo=HEALTHY.text()))  # type: ignore[operator]
    report = examine([str(path)])
    assert report.verdict.value == "could not tell"
    assert report.exit_status() == 4
    assert isinstance(report.topology.resources, Unknown)


# Types and symbols in the dump's own memory.


def test_without_btf_the_sections_are_told_all_the_same(tmp_path: Path) -> None:
    machine = healthy()
    machine.btf = b"no BTF"
    found = machine.topology(tmp_path)
    assert known(found.sections).account.ram == RangeSet([(0, GiB)])
    assert known(found.resources).account.ram == RangeSet([(0, GiB)])
    assert found.remarks == ("types are recognised by their shape: BTF is 6 bytes, its header alone has 24",)


def test_faults_are_put_down_to_what_was_being_read(tmp_path: Path) -> None:
    machine = healthy()
    lost = machine.on_its_own_page(words(PAGE_OFFSET), "page_offset_base")
    machine.lose(lost)
    physical = lost - PAGE_OFFSET
    assert machine.topology(tmp_path).faults == (
        Fault("page_offset_base", physical, f"physical address {physical:#x}: lost"),
    )


def test_a_page_table_that_is_lost_is_told(tmp_path: Path) -> None:
    machine = healthy()
    machine.lost.add(1)
    found = machine.topology(tmp_path)
    assert isinstance(found.sections, Unknown)
    assert {fault.address // 4096 for fault in found.faults} == {1}


def test_page_tables_that_map_themselves_are_survived(tmp_path: Path) -> None:
    """Entries without the bit for a 1 GiB page, whose tables are the table itself."""
    machine = healthy()
    for n in range(512):
        machine.memory[0x2000 + 8 * n : 0x2000 + 8 * n + 8] = (0x2003).to_bytes(8, "little")
    assert sound(machine.topology(tmp_path))


def test_a_read_of_a_gigabyte_is_refused(tmp_path: Path) -> None:
    kernel = Machine().kernel(tmp_path)
    with pytest.raises(FaultError, match="no structure of a kernel is that large"):
        kernel.read(PAGE_OFFSET, 1 << 30)


def test_types_of_four_gigabytes_cost_what_needs_them(tmp_path: Path) -> None:
    types = Types()
    for name in ("resource", "cpumask", "xarray", "xa_node", "memory_block", "kimage", "range"):
        types.add(btf.STRUCT, name, 2**32 - 1, [types.string("bits"), 1, 0], vlen=1)
    machine = healthy()
    machine.btf = types.section()
    header, symbols = machine.header(tmp_path), machine.symbol_file(tmp_path)
    found = run_isolated(lambda: read_kernel(header, machine, symbols), 30, 3 << 30)
    assert sound(found)
    assert isinstance(found.resources, Unknown)
    assert known(found.sections).account.ram == RangeSet([(0, GiB)])
