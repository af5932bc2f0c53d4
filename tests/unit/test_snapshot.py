# SPDX-License-Identifier: LGPL-2.1-or-later
"""A topology written down, read again, and heard as a witness beside a dump."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from tests.builders import GiB, MiB
from tests.rules.cases import DUMP, HEALTHY, KERNEL, VMCOREINFO, kernel
from vmcheck.check import ExitStatus, Verdict, check
from vmcheck.diagnosis import Comparison
from vmcheck.errors import UnreadableFile
from vmcheck.header import DumpHeader
from vmcheck.ranges import RangeSet
from vmcheck.records import snapshot as records
from vmcheck.records.snapshot import Snapshot, parse, read_snapshot, to_json
from vmcheck.rules import Case
from vmcheck.topology import CrashImage, Topology, Unknown, nothing_known
from vmcheck.witness import LIVE, hear

ADDED = RangeSet([(4 * GiB, 5 * GiB)])
BOOT = "1648b4ad-593f-4ab6-bec6-144aad40d937"
OTHER_BOOT = "00000000-593f-4ab6-bec6-144aad40d937"
IMAGE = CrashImage(((0x10000000, 16384, 4096),), True, True, 0, False)
FORGOTTEN = ("saved_notes", "log", "page_offset", "filtered_slab", "tasks", "nodes", "remarks")
"""Facts that a record does not keep."""
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
    """A dump whose kernel cannot be asked."""
    return nothing_known(header, "its memory is lost")


def test_what_is_written_is_read_again() -> None:
    snapshot = recorded(kernel(hot_added=ADDED, offline=RangeSet([(5 * GiB, 5 * GiB + 128 * MiB)])))
    again = parse(to_json(snapshot), "topology.json")
    facts = [each.name for each in fields(Topology) if each.name not in FORGOTTEN]
    assert {name: getattr(again.topology, name) for name in facts} == {
        name: getattr(snapshot.topology, name) for name in facts
    }
    assert (again.recorded, again.node, again.vmcoreinfo, again.described) == (
        snapshot.recorded,
        "host",
        LIVE_VMCOREINFO,
        HEALTHY,
    )


def test_what_was_not_known_stays_unknown_with_its_reason() -> None:
    topology = replace(KERNEL, sections=Unknown("no types"), excluded=Unknown("no symbols"))
    again = parse(to_json(recorded(topology)), "topology.json").topology
    assert again.sections == Unknown("no types (recorded)")
    assert isinstance(again.excluded, Unknown)


def test_a_kernel_without_a_crash_kernel_is_not_one_that_could_not_tell() -> None:
    for image in (None, Unknown("only root")):
        snapshot = replace(recorded(), topology=replace(KERNEL, crash_image=image))
        again = parse(to_json(snapshot), "topology.json").topology
        assert isinstance(again.crash_image, Unknown) == isinstance(image, Unknown)
        assert again.crash_image is None or image is not None


def changed(**members: Any) -> bytes:
    return json.dumps({**json.loads(to_json(recorded())), **members}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not JSON",
        b"[]",
        b"{}",
        changed(schema=99),
        changed(recorded=-1),
        changed(recorded=10**18),
        changed(described=[[5, -1]]),
        changed(described=[[0, 1 << 63]]),
        changed(described=[[0, 10**30]]),
        changed(online_cpus=[-1]),
        changed(surprise=1),
        changed(sections={"size": 0, "online": [], "present": [], "early": [], "unread": []}),
        changed()[:-200],
    ],
)
def test_what_is_no_record_is_an_error_of_one_line(data: bytes) -> None:
    with pytest.raises(UnreadableFile, match="not written by 'vmcheck record'") as caught:
        parse(data, "topology.json")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_too_large_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "LARGEST", 1000)
    path = tmp_path / "topology.json"
    path.write_bytes(to_json(recorded()))
    with pytest.raises(UnreadableFile, match="larger than 1000 bytes"):
        read_snapshot(str(path))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UnreadableFile, match="/no/such: No such file"):
        read_snapshot("/no/such")


def test_a_witness_of_the_same_boot_tells_the_loss_that_the_dump_cannot() -> None:
    topology, compared = hear(DUMP, mute(), recorded(kernel(hot_added=ADDED)), "topology.json")
    report = check(Case(DUMP, topology), [compared])
    assert report.verdict is Verdict.INCOMPLETE
    assert report.lost_memory == ADDED
    assert compared.text.startswith("of the same boot (VMCOREINFO is the same to the byte)")
    assert report.diagnosis is not None
    assert report.diagnosis.witnesses == (compared,)


def test_a_witness_never_proves_that_nothing_is_missing() -> None:
    topology, _ = hear(DUMP, mute(), recorded(), "topology.json")
    report = check(Case(DUMP, topology))
    assert report.exit_status() is ExitStatus.COULD_NOT_TELL
    assert "what came after that is not in it" in report.outcomes[-1].why + "".join(
        outcome.why for outcome in report.outcomes
    )


def test_the_dumps_own_kernel_is_preferred() -> None:
    own = replace(KERNEL, boot_id=BOOT, crash_hotplug=True)
    topology, compared = hear(DUMP, own, recorded(kernel(hot_added=ADDED)), "topology.json")
    assert topology == own
    assert compared.agrees is False
    assert "1.0 GiB went between then and the crash" in compared.text


def test_what_agrees_is_said_to_agree() -> None:
    _, compared = hear(DUMP, replace(KERNEL, boot_id=BOOT), recorded(), "topology.json")
    assert compared.agrees is True
    assert compared.text.endswith("the same memory was online; elfcorehdr described all of it then")


def test_a_header_that_was_stale_when_recorded_is_told() -> None:
    _, compared = hear(DUMP, replace(KERNEL, boot_id=BOOT), recorded(kernel(hot_added=ADDED)), "t.json")
    assert compared.text.endswith("elfcorehdr lacked 1.0 GiB of it already")


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
def test_a_witness_of_another_boot_is_refused(own: Topology, snapshot: Snapshot, why: str) -> None:
    assert hear(DUMP, own, snapshot, "topology.json") == (
        own,
        Comparison("topology.json", "topology", None, f"refused, it is of another boot: {why}"),
    )


def test_a_witness_that_cannot_be_placed_is_heard_on_the_users_word() -> None:
    snapshot = recorded(kernel(hot_added=ADDED), boot_id=Unknown(""), vmcoreinfo=None)
    topology, compared = hear(DUMP, mute(), snapshot, "topology.json")
    assert check(Case(DUMP, topology)).lost_memory == ADDED
    assert "rests on your word" in compared.text


def test_the_running_machine_shows_what_the_hardware_has_and_no_more() -> None:
    snapshot = recorded(kernel(ram=HEALTHY | ADDED), boot_id=OTHER_BOOT)
    topology, compared = hear(DUMP, replace(mute(), boot_id=BOOT), snapshot, LIVE)
    assert topology == replace(mute(), boot_id=BOOT), "what another boot has proves no loss"
    assert check(Case(DUMP, topology), [compared]).exit_status() is ExitStatus.COULD_NOT_TELL
    assert compared.agrees is False
    assert "another boot of this machine" in compared.text
    assert "memory that the dump does not describe: [" in compared.text
    assert "may be a part of it" in compared.text, "the dump's kernel does not tell what was reserved"


def test_the_running_machine_that_has_no_more_memory_proves_nothing() -> None:
    topology, compared = hear(DUMP, replace(mute(), boot_id=BOOT), recorded(boot_id=OTHER_BOOT), LIVE)
    assert check(Case(DUMP, topology)).exit_status() is ExitStatus.COULD_NOT_TELL
    assert "describes all the memory that it has" in compared.text


def test_another_machine_is_not_taken_for_this_one() -> None:
    small = recorded(kernel(ram=RangeSet([(0, 512 * MiB)])), boot_id=OTHER_BOOT)
    own = replace(mute(), boot_id=BOOT)
    topology, compared = hear(DUMP, own, small, LIVE)
    assert topology == own
    assert compared.text.startswith("refused: this machine has no memory at 512 MiB")
    named = replace(DUMP, utsname=("Linux", "elsewhere", "", "", "", ""))
    _, compared = hear(named, own, recorded(boot_id=OTHER_BOOT), LIVE)
    assert compared.text == "refused: the dump is of elsewhere, this machine is host"
