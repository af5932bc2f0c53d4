"""The lab's own values: apt sources, ranges, what a guest says. No guest is needed for these."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from fixtures.lab import initramfs, kernels, run
from fixtures.lab.apt import Source, read_deb822, read_one_line, suite_sources
from fixtures.lab.errors import BootFailed, LabError
from fixtures.lab.machine import Hardware, Machine, find_qemu
from fixtures.lab.scenarios import BY_NAME, LOADS, REGIMES, SCENARIOS
from fixtures.lab.steps import Load
from fixtures.lab.truth import Header, Snapshot, Written, cpu_list, exposure, subtract, union, verdict

DEB822 = """\
Types: deb deb-src
# a remark
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: http://security.example/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://off.example
Suites: trixie
Components: main
"""

SAID = """\
@iomem
00001000-0009fbff : System RAM
00100000-07ffffff : System RAM
  02000000-02ffffff : Crash kernel
100000000-10fffffff : virtio0
  100000000-107ffffff : System RAM (virtio_mem)
@cpus online
0-2
@cpus present
0-2
@cpus possible
0-3
@memory_block_size
8000000
@memory_blocks memory0
online
@memory_blocks memory32
offline
@crash_notes cpu0
1000
368
@crash_notes cpu1
2000
368
1
@kexec_crash_loaded
1
@zones 0 Normal
1048576 32768 32568 157
"""


def test_deb822_sources_are_read_with_their_keys() -> None:
    main, updates, security = read_deb822(DEB822)
    assert (main.uri, main.suite) == ("http://mirror.example/debian", "bookworm")
    assert "BEGIN PGP" in main.signed_by
    assert updates.suite == "bookworm-updates"
    assert security == Source("http://security.example/debian-security", "bookworm-security", "")


def test_one_line_sources_are_read_with_their_keys() -> None:
    lines = [
        "deb [ arch=amd64 signed-by=/k.gpg ] http://a sid main",
        "deb-src http://a sid main",
        "deb http://b x y",
    ]
    assert list(read_one_line("\n".join(lines))) == [Source("http://a", "sid", "/k.gpg")]


def test_another_suite_comes_from_where_the_machine_gets_its_own() -> None:
    machine = [Source("http://sec", "bookworm-security", ""), Source("http://main", "bookworm", "/k.gpg")]
    trixie = suite_sources("trixie", machine)
    assert "URIs: http://main\nSuites: trixie\nComponents: main\nSigned-By: /k.gpg\n" in trixie
    assert "URIs: http://sec\nSuites: trixie-security\n" in trixie
    assert "security" not in suite_sources("sid", machine)


def test_a_machine_without_debian_sources_is_told_so() -> None:
    with pytest.raises(LabError, match="no Debian suite"):
        suite_sources("trixie", [])


def test_ranges_join_and_subtract() -> None:
    assert union([(4, 6), (0, 2), (2, 3), (5, 9)]) == [(0, 3), (4, 9)]
    assert subtract([(0, 10)], [(2, 4), (4, 5), (9, 20)]) == [(0, 2), (5, 9)]
    assert cpu_list("0-1,3\n") == {0, 1, 3}


def test_memory_that_is_in_iomem_and_offline_is_not_in_use() -> None:
    said = Snapshot.parse(SAID)
    assert said.system_ram == [(0x1000, 0x9FC00), (0x100000, 0x8000000), (0x100000000, 0x108000000)]
    assert said.online_ram == said.system_ram[:2]
    assert said.said["crash_notes"] == ["cpu0 1000 368", "cpu1 2000 368 1"]
    assert said.said["zones"] == {"0 Normal": "1048576 32768 32568 157"}


def test_memory_and_cpus_that_came_after_the_load_are_the_verdict() -> None:
    at_load = Snapshot.parse(SAID.replace("  100000000-107ffffff : System RAM (virtio_mem)\n", ""))
    now = Snapshot.parse(SAID.replace("offline", "online"))
    written = Written(at_load.system_ram, {0, 1})
    assert verdict(written, now, {1}) == {
        "missing_memory": [["0x100000000", "0x108000000"]],
        "phantom_memory": [],
        "online_cpus_without_a_note": [1, 2],
    }


def test_a_cut_snapshot_is_an_error_of_the_labs() -> None:
    with pytest.raises(LabError, match="cut short"):
        Snapshot.parse("@iomem\n")


def test_the_loaded_elfcorehdr_is_found_at_a_page_boundary() -> None:
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    ehdr = ident + struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    note = struct.pack("<IIQQQQQQ", 4, 0, 0x1000, 0, 0x1000, 368, 368, 4)
    load = struct.pack("<IIQQQQQQ", 1, 7, 0, 0, 0x100000, 0x1000, 0x1000, 0)
    reservation = bytes(10) + ehdr + bytes(4096 - 74) + ehdr + note + load + bytes(4096)
    header = Header.find(reservation)
    assert header == Header([(0x100000, 0x101000)], {0x1000})
    assert header.cpus(Snapshot.parse(SAID)) == {0}
    assert Header.find(bytes(8192)) is None


def test_every_record_of_the_archive_is_padded_and_says_its_size() -> None:
    packed = initramfs.archive({"bin": None, "bin/x": b"hello"})
    names = []
    while packed:
        size, name_size = int(packed[54:62], 16), int(packed[94:102], 16)
        names.append(packed[110 : 110 + name_size - 1].decode())
        start = -(-(110 + name_size) // 4) * 4
        content, packed = packed[start : start + size], packed[start + -(-size // 4) * 4 :]
        assert content == (b"hello" if names[-1] == "bin/x" else b"")
    assert names == ["bin", "bin/x", "TRAILER!!!"]


def test_every_scenario_loads_a_crash_kernel_in_a_known_way() -> None:
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
    for scenario in SCENARIOS:
        assert scenario.load in LOADS
        assert scenario.regime in REGIMES
        assert any(isinstance(step, Load) for step in scenario.steps), scenario.name
        assert all(str(step) for step in scenario.steps)


def test_a_machine_without_qemu_is_told_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(LabError, match="apt-get install qemu-system-x86"):
        find_qemu(unplugs_cpus=False)


def test_an_unknown_kernel_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(LabError, match=r"no kernel 4\.19: one of 5\.10, 6\.1, 6\.12, 7"):
        kernels.find("4.19")


def test_a_reload_per_event_leaves_no_true_header_from_the_first_event_to_the_last_load() -> None:
    first = ["1.0 event memory online", "1.1 unloaded", "2.0 loaded"]
    second = ["2.1 event cpu add", "2.2 unloaded", "3.0 loaded"]
    assert exposure(first + second) == {
        "events": 2,
        "reloads": 2,
        "seconds_without_a_true_header": 1.9,
        "seconds_unloaded": 1.7,
    }


def test_a_reload_that_no_event_needs_still_leaves_no_header_while_it_lasts() -> None:
    log = ["1.0 event memory online", "1.1 unloaded", "2.0 loaded", "5.0 unloaded", "6.0 loaded"]
    told = exposure(log)
    assert (told["seconds_without_a_true_header"], told["seconds_unloaded"]) == (2.0, 1.9)


def test_a_qemu_that_cannot_start_says_why(tmp_path: Path) -> None:
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\necho 'qemu: no such machine' >&2\nexit 1\n")
    program.chmod(0o755)
    machine = Machine(
        [str(program)],
        Hardware(),
        kernel=tmp_path / "vmlinuz",
        initrd=tmp_path / "initrd",
        command_line="",
        share=tmp_path,
        mounts={},
        console=tmp_path / "console.log",
    )
    with pytest.raises(LabError, match="QEMU did not start: qemu: no such machine"), machine:
        pass
    assert machine.process.poll() is not None


@pytest.mark.parametrize("failures", [0, run.BOOTS - 1, run.BOOTS])
def test_a_guest_that_does_not_boot_is_started_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failures: int
) -> None:
    left = failures

    def once(*_: Any) -> dict[str, Any]:
        nonlocal left
        if left:
            left -= 1
            raise BootFailed("the guest died")
        return {"verdict": {}}

    monkeypatch.setattr(run, "_capture", once)
    kernel = kernels.Kernel("6.1.0", tmp_path / "vmlinuz", tmp_path, "bookworm")
    if failures < run.BOOTS:
        assert run.capture(kernel, BY_NAME["fresh"], tmp_path) == {"verdict": {}}
    else:
        with pytest.raises(BootFailed):
            run.capture(kernel, BY_NAME["fresh"], tmp_path)


@pytest.mark.parametrize(
    ("kexec_tools", "described"), [("kexec-tools 2.0.20", {0, 1}), ("kexec-tools 2.0.25", {0, 1, 3})]
)
def test_old_kexec_tools_lose_the_last_cpu_to_a_gap(kexec_tools: str, described: set[int]) -> None:
    at_load = Snapshot.parse(SAID.replace("present\n0-2", "present\n0-1,3"))
    assert Written.by_load(at_load, "kexec_load", kexec_tools).cpus == described
