# SPDX-License-Identifier: LGPL-2.1-or-later
"""/proc and /sys, of a live machine or a collected tree, as files below a root."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.builders import GiB, MiB
from vmcheck.facts.ranges import RangeSet
from vmcheck.facts.topology import MemoryAccount, Resources, Unknown, known
from vmcheck.records.sysfs import CrashKernel, crash_kernel, sysfs_topology

# As a guest with a DIMM and virtio-mem printed it.
IOMEM = """\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
000f0000-000fffff : System ROM
00100000-1ffdffff : System RAM
  01000000-01e00e07 : Kernel code
  0f000000-1affffff : Crash kernel
fd000000-fdffffff : PCI Bus 0000:00
100000000-107ffffff : System RAM
140000000-17fffffff : virtio0
  140000000-147ffffff : System RAM (virtio_mem)
"""
FILES = {
    "proc/iomem": IOMEM,
    "proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu vme\n",
    "proc/sys/kernel/osrelease": "6.1.0-56-amd64\n",
    "proc/sys/kernel/random/boot_id": "1648b4ad-593f-4ab6-bec6-144aad40d937\n",
    "sys/devices/system/memory/block_size_bytes": "8000000\n",
    "sys/devices/system/memory/memory0/state": "online\n",
    "sys/devices/system/memory/memory32/state": "online\n",
    "sys/devices/system/memory/memory40/state": "offline\n",
    "sys/devices/system/cpu/possible": "0-5\n",
    "sys/devices/system/cpu/present": "0-1,3\n",
    "sys/devices/system/cpu/online": "0-1\n",
    "sys/kernel/kexec_crash_loaded": "1\n",
    "sys/kernel/kexec_crash_size": "201326592\n",
}


def tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_memory_is_what_is_system_ram_at_any_depth_and_in_an_online_block(tmp_path: Path) -> None:
    topology = sysfs_topology(tree(tmp_path, FILES))
    virtio = (5 * GiB, 5 * GiB + 128 * MiB)
    assert topology.resources == Resources(
        MemoryAccount(
            "/proc/iomem",
            RangeSet([(0x1000, 0x9FC00), (0x100000, 0x1FFE0000), (4 * GiB, 4 * GiB + 128 * MiB), virtio]),
        ),
        RangeSet([virtio]),
    )
    assert known(topology.system_ram) == RangeSet(
        [(0x1000, 0x9FC00), (0x100000, 0x8000000), (4 * GiB, 4 * GiB + 128 * MiB)]
    )


def test_what_a_healthy_header_leaves_out_is_told(tmp_path: Path) -> None:
    excluded = known(sysfs_topology(tree(tmp_path, FILES)).excluded)
    assert [part.ranges for part in excluded] == [RangeSet([(0, MiB)]), RangeSet([(0xF000000, 0x1B000000)])]


def test_cpus_and_the_boot_are_told(tmp_path: Path) -> None:
    topology = sysfs_topology(tree(tmp_path, FILES))
    assert (topology.possible_cpus, topology.present_cpus, topology.online_cpus) == (
        frozenset(range(6)),
        frozenset({0, 1, 3}),
        frozenset({0, 1}),
    )
    assert topology.boot_id == "1648b4ad-593f-4ab6-bec6-144aad40d937"
    assert topology.release == "6.1.0-56-amd64"


def test_iomem_that_was_read_without_root_is_recognised_by_its_zeros(tmp_path: Path) -> None:
    zeros = "\n".join("00000000-00000000 : " + line.split(" : ")[1] for line in IOMEM.splitlines())
    topology = sysfs_topology(tree(tmp_path, {**FILES, "proc/iomem": zeros}))
    assert topology.resources == Unknown("/proc/iomem has only zeros: it was read without root")
    assert topology.excluded == topology.system_ram == topology.resources


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("proc/iomem", "\x00\xff not iomem at all\n" * 100),
        ("proc/iomem", "ffffffffffffffff-0 : System RAM\n"),
        ("proc/iomem", "0-ffffffffffffffff : System RAM\n"),
        ("sys/devices/system/memory/block_size_bytes", "0\n"),
        ("sys/devices/system/memory/block_size_bytes", "a lot\n"),
        ("sys/devices/system/cpu/online", "0-999999999999\n"),
        ("sys/devices/system/cpu/online", "\x1b[31m\n"),
    ],
)
def test_files_that_make_no_sense_are_not_believed(tmp_path: Path, name: str, text: str) -> None:
    topology = sysfs_topology(tree(tmp_path, {**FILES, name: text}))
    facts = {"proc": topology.resources, "sys/devices/system/m": topology.blocks}
    fact = next((fact for start, fact in facts.items() if name.startswith(start)), topology.online_cpus)
    assert isinstance(fact, Unknown)


def test_a_fifo_in_a_strangers_tree_is_not_waited_on(tmp_path: Path) -> None:
    root = tree(tmp_path, {name: text for name, text in FILES.items() if name != "proc/iomem"})
    os.mkfifo(root / "proc/iomem")
    assert sysfs_topology(root).resources == Unknown("/proc/iomem is not there")


def test_a_tree_without_anything_leaves_everything_unknown(tmp_path: Path) -> None:
    topology = sysfs_topology(tmp_path)
    facts = (topology.resources, topology.blocks, topology.online_cpus, topology.release, topology.boot_id)
    assert all(isinstance(fact, Unknown) for fact in facts)


def test_the_build_id_is_in_the_kernels_own_notes(tmp_path: Path) -> None:
    notes = tmp_path / "sys/kernel/notes"
    notes.parent.mkdir(parents=True)
    notes.write_bytes(
        struct.pack("=III", 6, 4, 1)
        + b"Linux\0\0\0"
        + bytes(4)
        + struct.pack("=III", 4, 20, 3)
        + b"GNU\0"
        + b"\xab" * 20
    )
    assert sysfs_topology(tmp_path).build_id == "ab" * 20


def test_no_crash_kernel_is_several_nodes_from_none_possible(tmp_path: Path) -> None:
    told = crash_kernel(tmp_path)
    assert told == CrashKernel(None, None, False, False, False, told.hotplug)
    tree(tmp_path, {"sys/kernel/kexec_crash_loaded": "0\n", "sys/kernel/kexec_crash_size": "0\n"})
    assert crash_kernel(tmp_path) == CrashKernel(0, False, False, False, False, told.hotplug)


@pytest.mark.parametrize("kind", ["memory", "cpu"])
@pytest.mark.parametrize("value", ["0\n", "1\n"])
def test_a_kernel_that_can_update_the_header_has_the_file(tmp_path: Path, kind: str, value: str) -> None:
    file = {f"sys/devices/system/{kind}/crash_hotplug": value}
    assert sysfs_topology(tree(tmp_path, {**FILES, **file})).crash_hotplug is True


def test_a_collected_tree_without_the_file_proves_nothing(tmp_path: Path) -> None:
    """It may not have been collected: a 6.12 kernel was said to be unable to update its header."""
    assert "not collected" in sysfs_topology(tree(tmp_path, FILES)).crash_hotplug.why  # type: ignore[union-attr]


def test_newer_kernels_keep_the_files_in_a_folder(tmp_path: Path) -> None:
    files = {"sys/kernel/kexec/crash_loaded": "1\n", "sys/kernel/kexec/crash_size": "4096\n"}
    told = crash_kernel(tree(tmp_path, files))
    assert (told.loaded, told.reserved) == (True, 4096)


def test_fadump_is_told(tmp_path: Path) -> None:
    files = {f"sys/kernel/fadump/{name}": "1\n" for name in ("enabled", "registered", "hotplug_ready")}
    told = crash_kernel(tree(tmp_path, files))
    assert told.fadump
    assert told.fadump_registered
    assert told.fadump_made_after
