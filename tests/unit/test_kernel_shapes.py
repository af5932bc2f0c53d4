# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kernels without BTF: structures recognised by their shape."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.builders import GiB, ram
from tests.kernels import PAGE_OFFSET, SECTION_SIZE, words
from tests.old_kernels import BUILD, COMM, ERAS, TASKS, Era, old_kernel
from vmcheck.check import Report, Verdict, check
from vmcheck.facts.case import Case
from vmcheck.facts.diagnosis import Regime
from vmcheck.facts.findings import State
from vmcheck.facts.ranges import RangeSet
from vmcheck.facts.topology import EarlyBy, Topology, Unknown, known
from vmcheck.operations.examine import examine

every_era = pytest.mark.parametrize("era", ERAS, ids=lambda era: era.release)
SEVENTH = RangeSet([(8 * SECTION_SIZE, 9 * SECTION_SIZE)])
"""128 MiB above the memory of the boot."""


def report(tmp_path: Path, era: Era, **machine: object) -> Report:
    """Of a dump that describes the memory of the boot and CPUs 0 and 1."""
    kernel = old_kernel(era, **machine)  # type: ignore[arg-type]
    kernel.memory += bytes(-len(kernel.memory) % 4096)
    path = kernel.vmcore(tmp_path / "vmcore", [ram(len(kernel.memory), GiB)])
    return examine([path], kernel.symbol_file(tmp_path))


@every_era
def test_every_fact_of_a_check_is_read(tmp_path: Path, era: Era) -> None:
    topology = report(tmp_path, era, offline=[8]).topology
    assert known(topology.resources).account.ram == RangeSet([(0, 9 * SECTION_SIZE)])
    assert known(topology.blocks).account.ram == RangeSet([(0, 8 * SECTION_SIZE)])
    assert known(topology.blocks).offline == SEVENTH
    sections = known(topology.sections)
    assert sections.account.ram == known(sections.early) == RangeSet([(0, 8 * SECTION_SIZE)])
    assert sections.early_by is (EarlyBy.FLAG if "5.4" in era.release else EarlyBy.FIRMWARE)
    assert known(topology.online_cpus) == {0, 1}
    assert known(topology.possible_cpus) == {0, 1, 2, 3}
    image = known(topology.crash_image)
    assert image is not None
    assert image.segments == ((0x3000000, 4096, 100), (0x3001000, 8192, 8192))
    assert (image.file_mode, image.hotplug_support) == (False, None)
    assert topology.crash_hotplug is False
    assert topology.build_id == BUILD.hex()
    assert topology.log == (
        f"[    1.000000] Linux version {era.release}\n[    2.500000] sysrq: Trigger a crash"
    )


@every_era
def test_a_whole_dump_is_complete(tmp_path: Path, era: Era) -> None:
    made = report(tmp_path, era)
    assert made.verdict is Verdict.COMPLETE, [o for o in made.outcomes if o.state is State.SKIPPED]


@every_era
def test_memory_that_was_added_is_missing(tmp_path: Path, era: Era) -> None:
    made = report(tmp_path, era, added=[8])
    assert made.verdict is Verdict.INCOMPLETE
    assert made.lost_memory == SEVENTH
    assert [outcome.rule for outcome in made.outcomes if outcome.findings] == ["undescribed-ram"]


@every_era
def test_memory_that_was_never_onlined_is_no_loss(tmp_path: Path, era: Era) -> None:
    """Before v4.13 no section has SECTION_IS_ONLINE: "present" was once taken for online."""
    assert report(tmp_path, era, offline=[8]).verdict is Verdict.COMPLETE


@every_era
def test_a_cpu_that_was_added_has_no_note(tmp_path: Path, era: Era) -> None:
    made = report(tmp_path, era, cpus=3)
    assert made.verdict is Verdict.INCOMPLETE
    assert made.lost_cpus == (2,)


@pytest.mark.parametrize(
    ("release", "regime"),
    [
        ("3.10.0", Regime.RHEL7_PER_EVENT_RELOAD),
        ("4.18.0", Regime.RHEL_THROTTLED_RELOAD),
    ],
)
def test_the_regime_goes_by_the_tasks_and_the_release(tmp_path: Path, release: str, regime: Regime) -> None:
    (era,) = (era for era in ERAS if era.release.startswith(release))
    kernel = old_kernel(era, added=[8])
    header = kernel.header(tmp_path)
    from vmcheck.kernel.read import Reading

    reading = Reading(header, kernel, kernel.symbol_file(tmp_path))
    topology = reading.loss(reading.topology(), SEVENTH)
    assert [(task.pid, task.name) for task in known(topology.tasks).tasks] == [
        (1, "systemd"),
        (2, "kthreadd"),
        (303, "systemd-udevd"),
        (304, "sshd"),
    ]
    diagnosis = check(Case(header, topology)).diagnosis
    assert diagnosis is not None
    assert diagnosis.regime.name == regime


# What does not verify is unknown.


def facts(tmp_path: Path, era: Era, change: dict[str, bytes]) -> Topology:
    kernel = old_kernel(era)
    for symbol, data in change.items():
        kernel.put(kernel.symbols[symbol], data)
    return kernel.topology(tmp_path)


def test_a_resource_root_whose_child_has_another_parent_has_no_known_shape(tmp_path: Path) -> None:
    kernel = old_kernel(ERAS[4])
    child = kernel.word(kernel.symbols["iomem_resource"] + 56)
    kernel.put(child + 40, words(PAGE_OFFSET))
    resources = kernel.topology(tmp_path).resources
    assert isinstance(resources, Unknown)
    assert "struct resource has none of the known shapes" in resources.why


def test_cpu_masks_that_contradict_each_other_are_unknown(tmp_path: Path) -> None:
    online = facts(tmp_path, ERAS[4], {"__cpu_present_mask": words(1)}).online_cpus
    assert isinstance(online, Unknown)
    assert "contradict" in online.why


@pytest.mark.parametrize("count", [0, 8193])
def test_a_number_of_cpus_that_is_impossible_is_unknown(tmp_path: Path, count: int) -> None:
    online = facts(tmp_path, ERAS[4], {"nr_cpu_ids": count.to_bytes(4, "little")}).online_cpus
    assert isinstance(online, Unknown)
    assert "nr_cpu_ids" in online.why


def test_an_image_whose_lists_do_not_close_has_no_known_shape(tmp_path: Path) -> None:
    kernel = old_kernel(ERAS[4])
    image = kernel.word(kernel.symbols["kexec_crash_image"])
    kernel.put(image + 8 * (7 + 1 + 64), words(PAGE_OFFSET))
    found = kernel.topology(tmp_path).crash_image
    assert isinstance(found, Unknown)
    assert "struct kimage" in found.why


def test_a_block_that_is_not_its_number_has_no_known_shape(tmp_path: Path) -> None:
    kernel = old_kernel(ERAS[4])
    name = kernel.memory.find(b"memory3\0")
    kernel.memory[name : name + 8] = b"memory5\0"
    blocks = kernel.topology(tmp_path).blocks
    assert isinstance(blocks, Unknown)
    assert "struct memory_block has none of the known shapes" in blocks.why


def test_a_list_of_blocks_that_does_not_lead_back_is_unknown(tmp_path: Path) -> None:
    kernel = old_kernel(ERAS[4])
    (place,) = (
        at
        for at in range(0, len(kernel.memory) - 48, 8)
        if kernel.memory[at + 24 : at + 40]
        == words(kernel.symbols["klist_devices_get"], kernel.symbols["klist_devices_put"])
    )
    first = int.from_bytes(kernel.memory[place + 8 : place + 16], "little")
    second = kernel.word(first)
    kernel.put(second, words(first))
    blocks = kernel.topology(tmp_path).blocks
    assert isinstance(blocks, Unknown)
    assert "lead back" in blocks.why or "close" in blocks.why


def test_a_firmware_map_that_is_impossible_dates_nothing(tmp_path: Path) -> None:
    sections = facts(tmp_path, ERAS[0], {"e820_saved": b"\xff" * 4}).sections
    assert isinstance(known(sections).early, Unknown)


def test_a_task_that_is_lost_cuts_the_list_from_one_end_only(tmp_path: Path) -> None:
    kernel = old_kernel(ERAS[4])
    second = kernel.word(kernel.word(kernel.symbols["init_task"] + TASKS)) - TASKS
    kernel.put(second + COMM, b"\xff" * 16)
    from vmcheck.kernel.task_list import read_task_list

    with pytest.raises(LookupError, match="no list of tasks"):
        read_task_list(kernel.kernel(tmp_path))


@pytest.mark.parametrize("seed", range(8))
def test_no_wrong_layout_is_believed(tmp_path: Path, seed: int) -> None:
    """Words of the structures are changed: a check says less, never that memory is there which is not."""
    noise = random.Random(seed)
    for number in range(12):
        era = noise.choice(ERAS)
        kernel = old_kernel(era, added=[8])
        targets = [kernel.symbols[name] for name in ("iomem_resource", "memory_subsys", "sections_per_block")]
        targets += [kernel.word(kernel.symbols["kexec_crash_image"]), kernel.symbols["init_task"]]
        for _ in range(noise.randrange(1, 4)):
            address = noise.choice(targets) + 8 * noise.randrange(16)
            value = noise.choice([0, 1, 2**64 - 1, PAGE_OFFSET, PAGE_OFFSET + 8 * noise.randrange(1 << 13)])
            kernel.put(address, words(value))
        folder = tmp_path / str(number)
        folder.mkdir()
        made = check(Case(kernel.header(folder), kernel.topology(folder)))
        assert made.verdict is not Verdict.COMPLETE
