# SPDX-License-Identifier: LGPL-2.1-or-later
"""A record written, read again, and compared with a dump."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from tests.builders import GiB, MiB
from tests.rules.cases import DUMP, HEALTHY, KERNEL, VMCOREINFO, kernel
from vmcheck.check import ExitStatus, Verdict, check
from vmcheck.errors import UnreadableFile
from vmcheck.facts.case import Case
from vmcheck.facts.diagnosis import Comparison
from vmcheck.facts.exclusions import Exclusion
from vmcheck.facts.header import DumpHeader
from vmcheck.facts.ranges import RangeSet
from vmcheck.facts.topology import (
    Blocks,
    CrashImage,
    MemoryAccount,
    Resources,
    Sections,
    Topology,
    Unknown,
    nothing_known,
)
from vmcheck.records import snapshot as records
from vmcheck.records.comparison import LIVE, hear
from vmcheck.records.snapshot import NOT_RECORDED, Snapshot, parse, read_snapshot, to_json

ADDED = RangeSet([(4 * GiB, 5 * GiB)])
BOOT = "1648b4ad-593f-4ab6-bec6-144aad40d937"
OTHER_BOOT = "00000000-593f-4ab6-bec6-144aad40d937"
IMAGE = CrashImage(((0x10000000, 16384, 4096),), True, True, 0, False)
LIVE_VMCOREINFO = VMCOREINFO.replace("CRASHTIME=1\n", "")


def recorded(
    topology: Topology = KERNEL,
    boot_id: str | Unknown = BOOT,
    vmcoreinfo: str | None = LIVE_VMCOREINFO,
    described: RangeSet | None = HEALTHY,
) -> Snapshot:
    topology = replace(
        topology, boot_id=boot_id, crash_image=IMAGE, banner="Linux version 6.1.0-test", crash_hotplug=True
    )
    return Snapshot(1_700_000_000, "host", vmcoreinfo, topology, described)


def mute(header: DumpHeader = DUMP) -> Topology:
    """A dump whose kernel cannot be read."""
    return nothing_known(header, "its memory is lost")


def test_what_is_written_is_read_again() -> None:
    offline = RangeSet([(5 * GiB, 5 * GiB + 128 * MiB)])
    snapshot = recorded(replace(kernel(hot_added=ADDED, offline=offline), nodes={0: HEALTHY}))
    again = parse(to_json(snapshot), "topology.json")
    facts = [each.name for each in fields(Topology) if each.name not in NOT_RECORDED]
    assert {name: getattr(again.topology, name) for name in facts} == {
        name: getattr(snapshot.topology, name) for name in facts
    }
    assert (again.recorded, again.node, again.vmcoreinfo, again.described) == (
        snapshot.recorded,
        "host",
        LIVE_VMCOREINFO,
        HEALTHY,
    )


def test_an_unknown_fact_stays_unknown_with_its_reason() -> None:
    topology = replace(KERNEL, sections=Unknown("no types"), excluded=Unknown("no symbols"))
    again = parse(to_json(recorded(topology)), "topology.json").topology
    assert again.sections == Unknown("no types (recorded)")
    assert isinstance(again.excluded, Unknown)


def test_no_crash_kernel_is_not_the_same_as_an_unknown_crash_kernel() -> None:
    for image in (None, Unknown("only root")):
        snapshot = replace(recorded(), topology=replace(KERNEL, crash_image=image))
        again = parse(to_json(snapshot), "topology.json").topology
        assert isinstance(again.crash_image, Unknown) == isinstance(image, Unknown)
        assert again.crash_image is None or image is not None


def test_an_account_says_which_structure_it_is_of() -> None:
    resources = Resources(MemoryAccount("/proc/iomem", HEALTHY), RangeSet())
    again = parse(to_json(recorded(replace(KERNEL, resources=resources))), "topology.json").topology
    assert again.resources == resources


def test_every_fact_that_may_be_recorded_is_written_and_read() -> None:
    """A new fact of Topology needs no line in snapshot.py."""
    topology = replace(
        KERNEL,
        nodes={0: HEALTHY, 3: ADDED},
        crash_reserved=256 * MiB,
        remarks=("a fall-back was taken",),
        sections=Sections(
            128 * MiB, MemoryAccount("mem_section", HEALTHY, ("cut",)), HEALTHY, Unknown("no flag")
        ),
        blocks=Unknown("no symbols"),
    )
    again = parse(to_json(recorded(topology)), "topology.json").topology
    assert (again.nodes, again.crash_reserved, again.remarks, again.sections) == (
        topology.nodes,
        topology.crash_reserved,
        topology.remarks,
        topology.sections,
    )
    assert again.blocks == Unknown("no symbols (recorded)")


def test_what_identifies_people_and_the_crash_are_not_recorded() -> None:
    document = json.loads(to_json(recorded(replace(KERNEL, log="secret"))))
    assert NOT_RECORDED & document["topology"].keys() == set()


OLD: dict[str, Any] = {
    "schema": 1,
    "vmcheck": "0.1.0",
    "recorded": 1_700_000_000,
    "source": "/proc and /sys",
    "node": "host",
    "release": "6.1.0-test",
    "build_id": None,
    "boot_id": BOOT,
    "banner": "Linux version 6.1.0-test",
    "vmcoreinfo": None,
    "sections": {
        "size": 128 * MiB,
        "online": [[0, GiB]],
        "present": [[0, GiB]],
        "early": None,
        "unread": ["cut"],
    },
    "resources": {"ram": [[0, GiB]], "driver_managed": [], "unread": []},
    "blocks": {"size": 128 * MiB, "online": [[0, GiB]], "offline": [], "unread": []},
    "excluded": [{"reason": "crash kernel", "ranges": [[MiB, 2 * MiB]]}],
    "possible_cpus": [0, 1],
    "present_cpus": [0, 1],
    "online_cpus": None,
    "crash_kernel_loaded": True,
    "crash_reserved": 268435456,
    "crash_image": {
        "segments": [[0x10000000, 16384, 4096]],
        "file_mode": True,
        "hotplug_support": True,
        "elfcorehdr_index": 0,
        "elfcorehdr_updated": False,
    },
    "crash_hotplug": True,
    "described": [[0, GiB]],
    "unknown": {"online_cpus": "no mask"},
}
"""What vmcheck wrote before records had schema 2."""


def old(**members: Any) -> bytes:
    return json.dumps(OLD | members).encode()


def test_a_record_of_schema_1_is_still_read() -> None:
    ram = RangeSet([(0, GiB)])
    assert parse(old(), "topology.json") == Snapshot(
        1_700_000_000,
        "host",
        None,
        Topology(
            source="/proc and /sys",
            release="6.1.0-test",
            build_id=Unknown("the record does not have it (recorded)"),
            symbols_build_id=None,
            sections=Sections(
                128 * MiB,
                MemoryAccount("mem_section", ram, ("cut",)),
                ram,
                Unknown("the record does not have it"),
            ),
            resources=Resources(MemoryAccount("/proc/iomem", ram), RangeSet()),
            blocks=Blocks(128 * MiB, MemoryAccount("memory blocks", ram), RangeSet()),
            excluded=(Exclusion("crash kernel", RangeSet([(MiB, 2 * MiB)])),),
            possible_cpus=frozenset({0, 1}),
            present_cpus=frozenset({0, 1}),
            online_cpus=Unknown("no mask (recorded)"),
            saved_notes=Unknown("not recorded"),
            crash_image=IMAGE,
            banner="Linux version 6.1.0-test",
            boot_id=BOOT,
            crash_hotplug=True,
            crash_reserved=268435456,
            nodes=Unknown("NUMA nodes were not read (recorded)"),
        ),
        ram,
    )


@pytest.mark.parametrize(
    ("members", "image"),
    [
        ({"crash_kernel_loaded": False, "crash_image": None}, None),
        (
            {"crash_kernel_loaded": None, "crash_image": None},
            Unknown("the record does not have it (recorded)"),
        ),
    ],
)
def test_schema_1_says_apart_whether_a_crash_kernel_was_loaded(
    members: dict[str, Any], image: Unknown | None
) -> None:
    assert parse(old(**members), "topology.json").topology.crash_image == image


def test_resources_that_schema_1_read_from_memory_are_the_kernel_s() -> None:
    resources = parse(old(source="the running kernel's memory"), "topology.json").topology.resources
    assert not isinstance(resources, Unknown)
    assert resources.account.structure == "iomem_resource"


def changed(*path: str, to: Any) -> bytes:
    """A record with one member changed."""
    document = json.loads(to_json(recorded()))
    member = document
    for name in path[:-1]:
        member = member[name]
    member[path[-1]] = to
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "Input data was truncated"),
        (b"not JSON", "invalid"),
        (b"[]", "Expected `object`"),
        (b"{}", "its schema is None, and this vmcheck reads 1 and 2"),
        (changed("schema", to=99), "its schema is 99"),
        (changed("schema", to="1" * 5000), "its schema is 1111"),
        (changed("schema", to=True), "its schema is True"),
        (changed("recorded", to=-1), "recorded is -1, which is no time"),
        (changed("recorded", to=2**40 - 1), "recorded is 1099511627775, which is no time"),
        (changed("recorded", to=10**18), "which is no time"),
        (changed("recorded", to=1.5), "record.recorded is 1.5, which is no integer"),
        (changed("described", to=[[5, -1]]), "no physical address"),
        (changed("described", to=[[0, 1 << 62]]), "no physical address is above 0x1000000000000000"),
        (changed("described", to=[[0, 10**30]]), "record.described has a list of 2"),
        (changed("described", to=[[0]]), r"which is no \[start, end\]"),
        (changed("described", to=[[True, 5]]), r"which is no \[start, end\]"),
        (changed("topology", "online_cpus", to=[-1]), "online_cpus has CPU -1"),
        (changed("topology", "online_cpus", to=[1 << 40]), "online_cpus has CPU 1099511627776"),
        (changed("topology", "sections", "size", to=0), "sections.size is 0 bytes"),
        (changed("topology", "sections", "size", to=(1 << 63) - 1), "sections.size is 9223372036854775807"),
        (changed("topology", "blocks", "size", to=1 << 63), "which 64 bits do not hold"),
        (changed("topology", "crash_reserved", to=-1), "crash_reserved is -1"),
        (changed("topology", "crash_image", "file_mode", to=1), "which is no true or false"),
        (changed("topology", "crash_image", "segments", to=[[1, 2]]), "has 2 members, not 3"),
        (changed("topology", "nodes", to={"x": []}), "which is no number"),
        (changed("topology", "release", to="x" * 100_000), "has 100000 characters"),
        (changed("topology", "log", to="x"), "topology.log is not recorded"),
        (changed("topology", "surprise", to=1), "has a member 'surprise' that is not known"),
        (changed("surprise", to=1), "has a member 'surprise' that is not known"),
        (changed("node", to=None), "record.node is None, which is no string"),
        (changed("schema", to=2)[:-200], "Input data was truncated"),
        (b'{"schema": 2, "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "its lists are too deep"),
        (old(sections=3), "sections is 3, which is no object"),
        (old(sections={}), "sections has no size"),
        (old(resources={"ram": 1, "driver_managed": [], "unread": []}), "which is no list"),
        (old(topology={}), "has a member 'topology' that is not known"),
    ],
)
def test_anything_but_a_record_is_an_error_of_one_line(data: bytes, why: str) -> None:
    with pytest.raises(
        UnreadableFile, match=f"^topology.json: not written by 'vmcheck record': .*{why}"
    ) as caught:
        parse(data, "topology.json")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_record_of_too_many_values_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MOST_VALUES", 10)
    with pytest.raises(UnreadableFile, match="it has more than 10 values"):
        parse(to_json(recorded()), "topology.json")


def test_block_sizes_that_fit_64_bits_make_no_trouble_in_a_check() -> None:
    """Rounding up to a section or block of this size must stay in 64 bits."""
    last = [[0, 1 << 60]]
    document = json.loads(to_json(recorded()))
    for name in ("sections", "blocks"):
        document["topology"][name]["size"] = 1 << 50
        document["topology"][name]["account"]["ram"] = last
    topology, _ = hear(DUMP, mute(), parse(json.dumps(document).encode(), "t.json"), "t.json")
    assert check(Case(DUMP, topology)).verdict is Verdict.INCOMPLETE


def test_a_file_that_is_too_large_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "LARGEST", 1000)
    path = tmp_path / "topology.json"
    path.write_bytes(to_json(recorded()))
    with pytest.raises(UnreadableFile, match="larger than 1,000 bytes"):
        read_snapshot(str(path))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UnreadableFile, match="/no/such: No such file"):
        read_snapshot("/no/such")


def test_a_record_of_the_same_boot_shows_a_loss_that_the_dump_cannot() -> None:
    topology, compared = hear(DUMP, mute(), recorded(kernel(hot_added=ADDED)), "topology.json")
    report = check(Case(DUMP, topology), [compared])
    assert report.verdict is Verdict.INCOMPLETE
    assert report.lost_memory == ADDED
    assert compared.text.startswith("of the same boot (VMCOREINFO is the same to the byte)")
    assert report.diagnosis is not None
    assert report.diagnosis.witnesses == (compared,)


def test_a_record_never_proves_that_nothing_is_missing() -> None:
    topology, _ = hear(DUMP, mute(), recorded(), "topology.json")
    report = check(Case(DUMP, topology))
    assert report.exit_status() is ExitStatus.COULD_NOT_TELL
    assert "it lacks what came after that" in report.outcomes[-1].why + "".join(
        outcome.why for outcome in report.outcomes
    )


def test_the_dumps_own_kernel_is_preferred() -> None:
    own = replace(KERNEL, boot_id=BOOT, crash_hotplug=True)
    topology, compared = hear(DUMP, own, recorded(kernel(hot_added=ADDED)), "topology.json")
    assert topology == own
    assert compared.agrees is False
    assert "1.0 GiB was removed between then and the crash" in compared.text


def test_what_agrees_is_said_to_agree() -> None:
    _, compared = hear(DUMP, replace(KERNEL, boot_id=BOOT), recorded(), "topology.json")
    assert compared.agrees is True
    assert compared.text.endswith("the same memory was online; elfcorehdr described all of it then")


def test_a_header_that_was_stale_when_recorded_is_reported() -> None:
    _, compared = hear(DUMP, replace(KERNEL, boot_id=BOOT), recorded(kernel(hot_added=ADDED)), "t.json")
    assert compared.text.endswith("elfcorehdr already lacked 1.0 GiB of it")


@pytest.mark.parametrize(
    ("own", "snapshot", "why"),
    [
        (replace(KERNEL, boot_id=OTHER_BOOT), recorded(), f"boot_id is {BOOT}, the dump's is {OTHER_BOOT}"),
        (
            mute(),
            recorded(vmcoreinfo=LIVE_VMCOREINFO.replace("phys_base)=0", "phys_base)=4096")),
            "VMCOREINFO has another NUMBER(phys_base)",
        ),
        (
            mute(),
            recorded(replace(KERNEL, release="5.10.0"), boot_id=Unknown(""), vmcoreinfo=None),
            "its kernel is 5.10.0, the dump's is 6.1.0-test",
        ),
    ],
)
def test_a_record_of_another_boot_is_refused(own: Topology, snapshot: Snapshot, why: str) -> None:
    assert hear(DUMP, own, snapshot, "topology.json") == (
        own,
        Comparison("topology.json", "topology", None, f"refused, it is of another boot: {why}"),
    )


def test_a_record_of_an_unknown_boot_can_show_a_loss() -> None:
    snapshot = recorded(kernel(hot_added=ADDED), boot_id=Unknown(""), vmcoreinfo=None)
    topology, compared = hear(DUMP, mute(), snapshot, "topology.json")
    assert check(Case(DUMP, topology)).lost_memory == ADDED
    assert compared.text.startswith(
        "recorded 2023-11-14 22:13:20 UTC; vmcheck cannot check that it is of the"
    )


def test_a_record_of_an_unknown_boot_adds_nothing_to_whole_accounts() -> None:
    """Its reservation may be elsewhere, and would hide memory that is missing."""
    own = replace(kernel(hot_added=ADDED), boot_id=Unknown(""), excluded=Unknown("no symbols"))
    elsewhere = (Exclusion("crash kernel", ADDED | RangeSet([(0, GiB)])),)
    snapshot = recorded(replace(KERNEL, excluded=elsewhere), boot_id=Unknown(""), vmcoreinfo=None)
    topology, compared = hear(DUMP, own, snapshot, "topology.json")
    assert topology == own
    assert "vmcheck cannot check that it is of the same boot" in compared.text


def test_a_stranger_s_names_are_cut_and_shown_as_escapes() -> None:
    hostile = replace(recorded(boot_id="\x1b[2J" * 1000), node="\x1b]0;x" * 1000)
    _, compared = hear(DUMP, replace(KERNEL, boot_id=BOOT), hostile, "t\x1b.json")
    assert compared.witness == r"t\x1b.json"
    assert compared.text.isprintable()
    assert len(compared.text) < 500


def test_the_running_machine_shows_what_the_hardware_has_and_no_more() -> None:
    snapshot = recorded(kernel(ram=HEALTHY | ADDED), boot_id=OTHER_BOOT)
    topology, compared = hear(DUMP, replace(mute(), boot_id=BOOT), snapshot, LIVE)
    assert topology == replace(mute(), boot_id=BOOT), "what another boot has proves no loss"
    assert check(Case(DUMP, topology), [compared]).exit_status() is ExitStatus.COULD_NOT_TELL
    assert compared.agrees is False
    assert "another boot of this machine" in compared.text
    assert "memory that the dump does not describe: [" in compared.text
    assert "may include what was reserved" in compared.text, (
        "the dump's kernel does not say what was reserved"
    )


def test_the_running_machine_that_has_no_more_memory_proves_nothing() -> None:
    topology, compared = hear(DUMP, replace(mute(), boot_id=BOOT), recorded(boot_id=OTHER_BOOT), LIVE)
    assert check(Case(DUMP, topology)).exit_status() is ExitStatus.COULD_NOT_TELL
    assert "describes all the memory that it has now" in compared.text


def test_another_machine_is_not_taken_for_this_one() -> None:
    small = recorded(kernel(ram=RangeSet([(0, 512 * MiB)])), boot_id=OTHER_BOOT)
    own = replace(mute(), boot_id=BOOT)
    topology, compared = hear(DUMP, own, small, LIVE)
    assert topology == own
    assert compared.text.startswith("refused: this machine has no memory at 512 MiB")
    named = replace(DUMP, utsname=("Linux", "elsewhere", "", "", "", ""))
    _, compared = hear(named, own, recorded(boot_id=OTHER_BOOT), LIVE)
    assert compared.text == "refused: the dump is of elsewhere, this machine is host"
