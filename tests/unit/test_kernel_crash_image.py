# SPDX-License-Identifier: LGPL-2.1-or-later
"""kexec_crash_image, whose members are asked for by name: kernels differ in which they have."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from fixtures.capture import Capture, captures
from tests.kernels import healthy, kernel_types, words
from vmcheck.facts.topology import CrashImage, Topology, Unknown
from vmcheck.formats import open_dump
from vmcheck.operations.examine import read_kernel

WILD = 0xFFFF900000000000
LOADED = words(2) + words(0, 100, 0x1000, 4096) + words(0, 200, 0x8000, 8192) + bytes(14 * 32)


def one_for_each_way_to_load() -> dict[str, Capture]:
    """By kernel series and system call, the first capture of each."""
    found: dict[str, Capture] = {}
    for capture in captures():
        series = ".".join(capture.folder.parent.name.split(".")[:2])
        load = str(capture.truth["load"]).split(" (")[0]
        if "hypervisor" not in capture.name:
            found.setdefault(f"{series} {load}", capture)
    return found


LOADED_BY = one_for_each_way_to_load()


@cache
def topology_of(way: str) -> Topology:
    capture = LOADED_BY[way]
    with open_dump([capture.vmcore]) as dump:
        return read_kernel(dump.header, dump.memory, capture.symbols)


def test_there_are_captures_of_both_system_calls_with_and_without_crash_hotplug() -> None:
    assert LOADED_BY.keys() >= {"5.10 kexec_load", "6.1 kexec_load", "6.12 kexec_file_load"}


@pytest.mark.parametrize("way", LOADED_BY)
def test_the_image_says_what_sysfs_said(way: str) -> None:
    """Of /sys/devices/system/{cpu,memory}/crash_hotplug, which only a kernel that has it shows."""
    topology = topology_of(way)
    before = LOADED_BY[way].truth["before_the_crash"]
    assert isinstance(before, dict)
    sysfs = before.get("crash_hotplug", {})
    assert topology.crash_hotplug is bool(sysfs)
    image = topology.crash_image
    if isinstance(image, Unknown):
        # Slab pages of 7.2 were left out by a makedumpfile that does not know them.
        assert way.startswith("7.2 ")
        assert image.why.startswith("kexec_crash_image: filtered: ")
        return
    assert image is not None
    assert image.file_mode is ("kexec_file_load" in way)
    if not sysfs:
        assert (image.hotplug_support, image.elfcorehdr_index, image.elfcorehdr_updated) == (None, None, None)
    else:
        assert (image.file_mode or image.hotplug_support) is (sysfs["memory"] == "1")
        assert image.elfcorehdr_index is not None


@pytest.mark.parametrize("way", [way for way in LOADED_BY if not way.startswith("7.2")])
def test_the_segments_lie_in_the_crash_kernels_reservation(way: str) -> None:
    topology = topology_of(way)
    assert isinstance(topology.crash_image, CrashImage)
    assert not isinstance(topology.excluded, Unknown)
    reserved = next(part.ranges for part in topology.excluded if "crashkernel" in part.reason)
    assert len(topology.crash_image.segments) >= 3
    for mem, memsz, bufsz in topology.crash_image.segments:
        assert mem in reserved
        assert mem + memsz - 1 in reserved
        assert bufsz <= memsz


def test_without_a_crash_kernel_there_is_no_image(tmp_path: Path) -> None:
    assert healthy().topology(tmp_path).crash_image is None


def test_segments_are_as_many_as_the_image_says(tmp_path: Path) -> None:
    machine = healthy()
    machine.place(words(machine.place(LOADED)), "kexec_crash_image")
    assert machine.topology(tmp_path).crash_image == CrashImage(
        segments=((0x1000, 4096, 100), (0x8000, 8192, 200)),
        file_mode=None,
        hotplug_support=None,
        elfcorehdr_index=None,
        elfcorehdr_updated=None,
    )


def test_an_image_says_of_no_more_segments_than_there_can_be(tmp_path: Path) -> None:
    machine = healthy()
    machine.place(words(machine.place(words(2**64 - 1) + LOADED[8:])), "kexec_crash_image")
    image = machine.topology(tmp_path).crash_image
    assert isinstance(image, CrashImage)
    assert len(image.segments) == 16


@pytest.mark.parametrize("name", ["hotplug_support", "update_elfcorehdr"])
def test_a_member_goes_by_either_of_its_names(tmp_path: Path, name: str) -> None:
    """update_elfcorehdr was renamed by commit 79365026f869 (in v6.10)."""
    machine = healthy(kernel_types(image=("file_mode", name, "elfcorehdr_index", "elfcorehdr_updated")))
    machine.place(words(machine.place(LOADED + words(1 << 32, 1 << 32 | 3))), "kexec_crash_image")
    image = machine.topology(tmp_path).crash_image
    assert isinstance(image, CrashImage)
    assert (
        image.file_mode,
        image.hotplug_support,
        image.elfcorehdr_index,
        image.elfcorehdr_updated,
    ) == (False, True, 3, True)


@pytest.mark.parametrize("pointer", [WILD, 1, 2**64 - 1])
def test_a_wild_pointer_is_unknown(tmp_path: Path, pointer: int) -> None:
    machine = healthy()
    machine.place(words(pointer), "kexec_crash_image")
    image = machine.topology(tmp_path).crash_image
    assert isinstance(image, Unknown)
    assert image.why.startswith("kexec_crash_image: ")
