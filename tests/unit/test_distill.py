# SPDX-License-Identifier: LGPL-2.1-or-later
"""A distilled dump says what the whole one says, and a redacted one not whose it was."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from fixtures.capture import captures
from tests.builders import GiB, MiB, elf_vmcore, flattened, kdump_vmcore, ram, split, write
from tests.dumps import every_real_dump
from tests.kernels import PAGE_OFFSET, Machine, healthy, resource, words
from vmcheck.errors import PageNotStored, VmcheckError
from vmcheck.facts.ranges import RangeSet
from vmcheck.formats import open_dump
from vmcheck.formats.file import StoredFile
from vmcheck.operations import distill as distilling
from vmcheck.operations.distill import Kept, distill
from vmcheck.operations.examine import examine, read_kernel
from vmcheck.operations.symbols import collect_symbols
from vmcheck.report.document import to_json

CAPTURES = {capture.name: capture for capture in captures()}


def report(path: str | Path, symbols: str | None = None) -> dict[str, Any]:
    """The JSON report, without what is the file's own: its name and its clothing."""
    made: dict[str, Any] = json.loads(to_json(examine([str(path)], symbols)))
    for key in ("file", "flattened"):
        del made["dump"][key]
    # A distilled dump has no sample to unpack, and says so.
    del made["body"]
    return made


def digest(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def symbols_of(path: Path, folder: Path) -> str:
    """A symbol file of the dump's own kernel."""
    symbols = folder / "kernel.symbols"
    assert collect_symbols(str(path), str(symbols))
    return str(symbols)


# Real dumps.


@every_real_dump
@pytest.mark.parametrize("form", ["sparse", "flattened with symbols"])
def test_a_distilled_dump_gives_the_same_report(real: Path, form: str, tmp_path: Path) -> None:
    symbols = symbols_of(real, tmp_path) if "symbols" in form else None
    small, before = str(tmp_path / "small"), digest(real)
    written = distill([str(real)], small, symbols, flattened_form="flattened" in form)
    assert report(small, symbols) == report(real, symbols)
    assert digest(real) == before
    assert written.copied < Path(real).stat().st_size // 2
    assert Path(small).stat().st_size == written.size
    if form == "sparse":
        assert written.size == real.stat().st_size
        assert Path(small).stat().st_blocks * 512 < written.copied + (1 << 20)


def test_a_distilled_dump_is_distilled_to_itself(tmp_path: Path) -> None:
    capture = CAPTURES["6.1.0-56-amd64/memory-and-cpu-added"]
    once, again = tmp_path / "once", tmp_path / "again"
    distill([str(capture.vmcore)], str(once), capture.symbols, flattened_form=True)
    distill([str(once)], str(again), capture.symbols, flattened_form=True)
    assert digest(again) == digest(once)
    assert report(once, capture.symbols) == report(capture.vmcore, capture.symbols)


def test_crash_accepts_a_distilled_dump(tmp_path: Path) -> None:
    if not shutil.which("crash"):
        pytest.skip("no crash here")
    capture = CAPTURES["6.1.0-56-amd64/whole"]
    small = str(tmp_path / "small")
    distill([str(capture.vmcore)], small, capture.symbols)
    for path in (small, str(capture.vmcore)):
        run = subprocess.run(["crash", "--osrelease", path], capture_output=True, text=True, check=False)
        assert (run.returncode, run.stdout) == (0, "6.1.0-56-amd64\n")


# Dumps of a kernel laid out by hand.

BUILDERS: dict[str, Callable[..., bytes]] = {
    "ELF": elf_vmcore,
    "kdump-zlib": kdump_vmcore,
    "kdump-none": lambda *arguments, **options: kdump_vmcore(*arguments, compression="none", **options),
    "flattened": lambda *arguments, **options: flattened(kdump_vmcore(*arguments, **options), 1 << 16),
}
every_form = pytest.mark.parametrize("form", BUILDERS)


def built(machine: Machine, form: str, path: Path, **options: object) -> str:
    end = -(-len(machine.memory) // 4096) * 4096
    loads = [ram(0, end, bytes(machine.memory)), ram(end, 64 * MiB)]
    options = {"vmcoreinfo": machine.text(), **options}
    return str(write(path, BUILDERS[form](loads, [100, 101], **options)))


@every_form
@pytest.mark.parametrize("flattened_form", [False, True])
def test_each_form_distilled_gives_the_same_report(form: str, flattened_form: bool, tmp_path: Path) -> None:
    machine = healthy()
    symbols = machine.symbol_file(tmp_path)
    machine.place(b"never read " * 100_000)
    whole, small = built(machine, form, tmp_path / "whole"), str(tmp_path / "small")
    before = digest(whole)
    written = distill([whole], small, symbols, flattened_form=flattened_form)
    assert report(small, symbols) == report(whole, symbols)
    assert digest(whole) == before
    assert written.copied < 200_000
    assert b"never read" * 50 not in Path(small).read_bytes()


def test_the_program_headers_of_a_distilled_elf_are_the_dumps_own(tmp_path: Path) -> None:
    if not shutil.which("readelf"):
        pytest.skip("no readelf here")
    machine = healthy()
    whole, small = built(machine, "ELF", tmp_path / "vmcore"), str(tmp_path / "small")
    distill([whole], small, machine.symbol_file(tmp_path))
    printed = [
        subprocess.run(["readelf", "-lnW", path], capture_output=True, text=True, check=True).stdout
        for path in (whole, small)
    ]
    assert printed[0].replace(whole, small) == printed[1]
    assert "VMCOREINFO" in printed[1]


def test_a_part_of_a_split_dump_is_distilled_by_itself(tmp_path: Path) -> None:
    paths = [
        str(write(tmp_path / f"part{n}", data))
        for n, data in enumerate(split(2, loads=[ram(0, 4 * MiB, b"x" * (4 * MiB))]))
    ]
    with pytest.raises(VmcheckError, match="one at a time"):
        distill(paths, str(tmp_path / "small"))


# Redaction.

NODE, DOMAIN = "kestrel-17", "example.org"
PARAMETERS = ["root=UUID=1234-abcd-5678", "quiet", "crashkernel=512M", "secret.token=hunter2hunter2"]
COMMAND_LINE = " ".join(PARAMETERS).encode()
UTS = [b"Linux", NODE.encode(), b"6.1.0-test", b"#1 SMP", b"x86_64", DOMAIN.encode()]


def named_machine(node: str = NODE, align: int = 4096) -> Machine:
    """A machine with a name and a command line, in the pages that a check reads."""
    machine = healthy()
    uts = b"".join(field.ljust(65, b"\0") for field in [UTS[0], node.encode(), *UTS[2:]])
    machine.vmcoreinfo["SYMBOL(init_uts_ns)"] = f"{machine.place(uts, align=align):x}"
    machine.vmcoreinfo["OFFSET(uts_namespace.name)"] = "0"
    text = machine.place(COMMAND_LINE + b"\0")
    machine.place(words(text), "saved_command_line")
    # parse_args() puts a NUL behind each parameter of its copy.
    machine.place(COMMAND_LINE.replace(b" ", b"\0") + b"\0")
    machine.place(b"hostname " + node.encode() + b"." + DOMAIN.encode() + b" ok\0")
    # All of this is in pages that are read for something else.
    root = machine.symbols["iomem_resource"]
    last = machine.place(resource(4 * GiB, 5 * GiB, flags=0, sibling=machine.word(root + 56)))
    machine.put(root + 56, words(last))
    return machine


def kept_memory(path: str, pages: Iterable[int]) -> bytes:
    """The memory that a dump holds, page by page."""
    found = []
    with open_dump([path]) as dump:
        for page in pages:
            try:
                found.append(dump.memory.read(page * 4096, 4096))
            except PageNotStored:
                continue
    return b"".join(found)


def all_memory(machine: Machine, path: str) -> bytes:
    return kept_memory(path, range(-(-len(machine.memory) // 4096)))


@every_form
def test_redacted_pages_do_not_tell_whose_they_were(form: str, tmp_path: Path) -> None:
    machine = named_machine()
    symbols = machine.symbol_file(tmp_path)
    names = ("Linux", NODE, "6.1.0-test", "#1 SMP", "", DOMAIN)
    options = {} if form == "ELF" else {"utsname": names}
    whole = built(machine, form, tmp_path / "whole", **options)
    plain, small = str(tmp_path / "plain"), str(tmp_path / "small")
    distill([whole], plain, symbols)
    distill([whole], small, symbols, redact=True)
    telling = [NODE.encode(), DOMAIN.encode(), COMMAND_LINE, PARAMETERS[0].encode(), PARAMETERS[3].encode()]
    # As ELF has it, only what is read is kept; as pages, what lies beside it too.
    assert form == "ELF" or all(text in all_memory(machine, plain) for text in telling)
    kept = all_memory(machine, small)
    assert [text for text in telling if text in kept or text in Path(small).read_bytes()] == []
    redacted, unredacted = report(small, symbols), report(whole, symbols)
    assert redacted["findings"] == unredacted["findings"]
    assert redacted["memory"] == unredacted["memory"]
    assert NODE not in json.dumps(redacted)


@pytest.mark.parametrize("node", ["start", "slots", "state", "flags", "child"])
def test_a_host_named_like_a_member_of_a_struct_keeps_its_types(node: str, tmp_path: Path) -> None:
    """Blanking its name wherever it stands would blank it in BTF's strings and in kallsyms."""
    machine = named_machine(node)
    place_types(machine)
    whole, small = built(machine, "kdump-zlib", tmp_path / "whole"), str(tmp_path / "small")
    distill([whole], small, redact=True)
    assert report(small)["memory"] == report(whole)["memory"]
    assert f"hostname {node}".encode() not in all_memory(machine, small)
    assert b"\0" + node.encode() + b"\0" in all_memory(machine, small)


def place_types(machine: Machine) -> None:
    """kallsyms and BTF in the machine's own memory, as a real kernel has them."""
    from tests import kallsyms

    types = machine.types.section()
    machine.place(types, "__start_BTF", align=4096)
    machine.symbols["__stop_BTF"] = machine.symbols["__start_BTF"] + len(types)
    stext = int(machine.vmcoreinfo["SYMBOL(_stext)"], 16)
    symbols = [("T_stext", stext), *(("D" + name, address) for name, address in machine.symbols.items())]
    begin = machine.place(b"", align=4096)
    for name, (address, data) in kallsyms.tables(symbols, place=begin, scheme="addresses").items():
        machine.memory += bytes(address - PAGE_OFFSET - len(machine.memory))
        machine.memory += data
        machine.vmcoreinfo[f"SYMBOL(kallsyms_{name})"] = f"{address:x}"
    machine.memory += bytes(-len(machine.memory) % 4096)


@pytest.mark.parametrize("split_at", [1, 8, 20, len(COMMAND_LINE) - 1])
def test_a_text_across_two_pages_is_blanked_in_both(split_at: int, tmp_path: Path) -> None:
    machine = named_machine()
    machine.place(b"", align=4096)
    machine.memory += bytes(4096 - split_at)
    address = len(machine.memory) + PAGE_OFFSET
    machine.memory += COMMAND_LINE + b"\0"
    machine.memory += bytes(-len(machine.memory) % 4096)
    machine.place(words(address), "saved_command_line")
    # Both of its pages are read, for a resource on the one and on the other.
    root = machine.symbols["iomem_resource"]
    for place in (address - split_at - 3000, address - split_at + 4096 - 600):
        machine.put(place, resource(4 * GiB, 5 * GiB, flags=0, sibling=machine.word(root + 56)))
        machine.put(root + 56, words(place))
    whole, small = built(machine, "kdump-zlib", tmp_path / "whole"), str(tmp_path / "small")
    symbols = machine.symbol_file(tmp_path)
    distill([whole], small, symbols, redact=True)
    kept = all_memory(machine, small)
    for begin in range(len(COMMAND_LINE) - 16):
        assert COMMAND_LINE[begin : begin + 16] not in kept


def test_a_redacted_real_dump_has_no_command_line(tmp_path: Path) -> None:
    """The capture has the pages, of which each is kept whole; the guests' host name is ``(none)``."""
    capture = CAPTURES["6.12.107+deb13-amd64/memory-removed"]
    small = str(tmp_path / "small")
    distill([str(capture.vmcore)], small, redact=True)
    with open_dump([capture.vmcore]) as dump:
        memory = distilling._Recorder(dump.memory, 4096)
        read_kernel(dump.header, memory)
    parameter = str(capture.truth["command_line"]).split()[-1].encode()
    assert parameter == b"memhp_default_state=offline"
    assert parameter in kept_memory(str(capture.vmcore), memory.pages)
    assert parameter not in kept_memory(small, memory.pages)
    redacted, whole = report(small), report(capture.vmcore)
    assert redacted["findings"] == whole["findings"]
    assert redacted["memory"] == whole["memory"]
    assert not examine([small]).header.utsname[1]


# Pieces.


def pieces(data: bytes, kept: Kept, path: Path) -> bytes:
    """What ``distill`` writes of a file."""
    found = bytearray(len(data))
    with StoredFile(write(path, data)) as source:
        for offset, piece in distilling._pieces(source, kept):
            assert offset + len(piece) <= len(data)
            found[offset : offset + len(piece)] = piece
    return bytes(found)


def test_a_patch_across_two_chunks_is_whole(tmp_path: Path) -> None:
    data = b"a" * (3 << 20)
    place = (1 << 20) - 5
    kept = Kept(RangeSet([(0, len(data))]), {place: b"PATCHED..."}, 0)
    assert pieces(data, kept, tmp_path / "file") == data[:place] + b"PATCHED..." + data[place + 10 :]


def test_a_patch_of_which_only_a_part_is_kept(tmp_path: Path) -> None:
    """An ELF dump keeps just the bytes that are read, and a page is blanked whole."""
    data = b"a" * 16384
    kept = Kept(RangeSet([(4196, 4200), (8000, 8300)]), {4096: b"B" * 4096}, 0)
    expected = bytes(4196) + b"B" * 4 + bytes(3800) + b"B" * 192 + b"a" * 108 + bytes(16384 - 8300)
    assert pieces(data, kept, tmp_path / "file") == expected


def test_blocks_of_zeros_are_holes(tmp_path: Path) -> None:
    data = b"a" * 4096 + bytes(8192) + b"b" * 100
    with StoredFile(write(tmp_path / "file", data)) as source:
        kept = Kept(RangeSet([(0, len(data))]), {}, 0)
        assert [(offset, len(piece)) for offset, piece in distilling._pieces(source, kept)] == [
            (0, 4096),
            (12288, 100),
        ]
