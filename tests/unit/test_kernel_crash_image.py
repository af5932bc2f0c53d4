# SPDX-License-Identifier: LGPL-2.1-or-later
"""kexec_crash_image, whose members are asked for by name: kernels differ in which they have."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from fixtures.capture import Capture, captures
from tests.kernels import healthy, kernel_types, words
from vmcheck.formats import open_dump
from vmcheck.kernel import read_topology
from vmcheck.topology import CrashImage, Topology, Unknown

WILD = 0xFFFF900000000000
LOADED = words(2) + words(0, 100, 0x1000, 4096) + words(0, 200, 0x8000, 8192) + bytes(14 * 32)


@cache
def release_topology(release: str) -> Topology:
    capture: Capture = next(found for found in captures() if found.folder.parent.name.startswith(release))
    with open_dump([capture.vmcore]) as dump:
        return read_topology(dump.header, dump.memory, capture.symbols)


@pytest.mark.parametrize(
    ("release", "members", "crash_hotplug"),
    [
        # CONFIG_CRASH_HOTPLUG is v6.6's.
        ("5.10", (False, None, None, None), False),
        ("6.1", (False, None, None, None), False),
        ("6.12", (True, True, 0, True), True),
    ],
)
def test_the_members_that_each_kernel_has(
    release: str, members: tuple[object, ...], crash_hotplug: bool
) -> None:
    topology = release_topology(release)
    image = topology.crash_image
    assert isinstance(image, CrashImage)
    assert (
        image.file_mode,
        image.hotplug_support,
        image.elfcorehdr_index,
        image.elfcorehdr_updated,
    ) == members
    assert topology.crash_hotplug is crash_hotplug


def test_an_image_that_was_filtered_out_is_unknown_and_its_type_is_not() -> None:
    """This 7.2 kernel's slab pages were left out by a makedumpfile that does not know them."""
    topology = release_topology("7.2")
    assert isinstance(topology.crash_image, Unknown)
    assert topology.crash_image.why.startswith("kexec_crash_image: physical address ")
    assert topology.crash_hotplug is True


@pytest.mark.parametrize("release", ["5.10", "6.1", "6.12"])
def test_the_segments_lie_in_the_crash_kernels_reservation(release: str) -> None:
    topology = release_topology(release)
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
