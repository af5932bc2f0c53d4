# SPDX-License-Identifier: LGPL-2.1-or-later
"""A topology written down: what a kernel had at one moment, as JSON, to be a witness later."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

import vmcheck
from vmcheck.errors import UnreadableFile
from vmcheck.exclusions import Exclusion
from vmcheck.ranges import RangeSet
from vmcheck.topology import (
    Blocks,
    CrashImage,
    MemoryAccount,
    Resources,
    Sections,
    Topology,
    Unknown,
)

T = TypeVar("T")

SCHEMA = 1
LARGEST = 64 << 20
"""Bytes. A machine of 262,144 scattered memory blocks takes 20 MB."""

Ranges = list[tuple[Annotated[int, msgspec.Meta(ge=0)], Annotated[int, msgspec.Meta(ge=0)]]]
"""Physical addresses [start, end)."""
Cpus = list[Annotated[int, msgspec.Meta(ge=0, le=1 << 20)]]


@dataclass(frozen=True)
class Snapshot:
    """What a kernel had, when, and as whose memory."""

    recorded: int
    """Seconds since the epoch."""
    node: str
    """The host's name."""
    vmcoreinfo: str | None
    """What a dump of this boot will have, but for CRASHTIME. None: it was recorded from /proc and /sys."""
    topology: Topology
    described: RangeSet | None
    """What the elfcorehdr that was loaded then described. None: none was, or it could not be read."""


class _Sections(msgspec.Struct, forbid_unknown_fields=True):
    size: Annotated[int, msgspec.Meta(ge=1)]
    online: Ranges
    present: Ranges
    early: Ranges
    unread: list[str]


class _Resources(msgspec.Struct, forbid_unknown_fields=True):
    ram: Ranges
    driver_managed: Ranges
    unread: list[str]


class _Blocks(msgspec.Struct, forbid_unknown_fields=True):
    size: Annotated[int, msgspec.Meta(ge=1)]
    online: Ranges
    offline: Ranges
    unread: list[str]


class _Excluded(msgspec.Struct, forbid_unknown_fields=True):
    reason: str
    ranges: Ranges


class _CrashImage(msgspec.Struct, forbid_unknown_fields=True):
    segments: list[tuple[int, int, int]]
    file_mode: bool | None
    hotplug_support: bool | None
    elfcorehdr_index: int | None
    elfcorehdr_updated: bool | None


class _Document(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What ``vmcheck record`` writes. ``null``: not known, and ``unknown`` says why."""

    schema: Annotated[int, msgspec.Meta(ge=SCHEMA, le=SCHEMA)] = SCHEMA
    vmcheck: str
    recorded: Annotated[int, msgspec.Meta(ge=0, lt=1 << 40)]
    source: str
    node: str
    release: str | None
    build_id: str | None
    boot_id: str | None
    banner: str | None
    vmcoreinfo: str | None
    sections: _Sections | None
    resources: _Resources | None
    blocks: _Blocks | None
    excluded: list[_Excluded] | None
    possible_cpus: Cpus | None
    present_cpus: Cpus | None
    online_cpus: Cpus | None
    crash_kernel_loaded: bool | None
    crash_reserved: int | None
    crash_image: _CrashImage | None
    crash_hotplug: bool | None
    described: Ranges | None
    unknown: dict[str, str]


FACTS = (
    *("release", "build_id", "boot_id", "banner", "sections", "resources", "blocks", "excluded"),
    *("possible_cpus", "present_cpus", "online_cpus", "crash_image", "crash_hotplug"),
)
"""Of Topology, those that are recorded and may be Unknown. Registers and the log are not."""


def to_json(snapshot: Snapshot) -> bytes:
    topology = snapshot.topology
    unknown = {name: fact.why for name in FACTS if isinstance(fact := getattr(topology, name), Unknown)}
    image = _known(topology.crash_image)
    document = _Document(
        vmcheck=vmcheck.__version__,
        recorded=snapshot.recorded,
        source=topology.source,
        node=snapshot.node,
        release=_known(topology.release),
        build_id=_known(topology.build_id),
        boot_id=_known(topology.boot_id),
        banner=_known(topology.banner),
        vmcoreinfo=snapshot.vmcoreinfo,
        sections=_sections(topology.sections),
        resources=_resources(topology.resources),
        blocks=_blocks(topology.blocks),
        excluded=_excluded(topology.excluded),
        possible_cpus=_cpus(topology.possible_cpus),
        present_cpus=_cpus(topology.present_cpus),
        online_cpus=_cpus(topology.online_cpus),
        crash_kernel_loaded=None if isinstance(topology.crash_image, Unknown) else image is not None,
        crash_reserved=topology.crash_reserved,
        crash_image=None if image is None else msgspec.convert(image, _CrashImage, from_attributes=True),
        crash_hotplug=_known(topology.crash_hotplug),
        described=None if snapshot.described is None else list(snapshot.described),
        unknown=unknown,
    )
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def _known(fact: T | Unknown) -> T | None:
    return None if isinstance(fact, Unknown) else fact


def _cpus(fact: frozenset[int] | Unknown) -> list[int] | None:
    return None if isinstance(fact, Unknown) else sorted(fact)


def _sections(fact: Sections | Unknown) -> _Sections | None:
    if isinstance(fact, Unknown):
        return None
    account = fact.account
    return _Sections(fact.size, list(account.ram), list(fact.present), list(fact.early), list(account.unread))


def _resources(fact: Resources | Unknown) -> _Resources | None:
    if isinstance(fact, Unknown):
        return None
    return _Resources(list(fact.account.ram), list(fact.driver_managed), list(fact.account.unread))


def _blocks(fact: Blocks | Unknown) -> _Blocks | None:
    if isinstance(fact, Unknown):
        return None
    return _Blocks(fact.size, list(fact.account.ram), list(fact.offline), list(fact.account.unread))


def _excluded(fact: tuple[Exclusion, ...] | Unknown) -> list[_Excluded] | None:
    if isinstance(fact, Unknown):
        return None
    return [_Excluded(each.reason, list(each.ranges)) for each in fact]


def read_snapshot(path: str) -> Snapshot:
    """Raises UnreadableFile for what is no record of ``vmcheck record``."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        raise UnreadableFile(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > LARGEST:
        raise UnreadableFile(f"{path}: larger than {LARGEST} bytes, which no record is")
    return parse(data, path)


def parse(data: bytes, path: str) -> Snapshot:
    try:
        document = msgspec.json.decode(data, type=_Document)
        return _snapshot(document)
    except (msgspec.DecodeError, ValueError, OverflowError) as error:
        raise UnreadableFile(f"{path}: not written by 'vmcheck record': {error}") from None


def _snapshot(document: _Document) -> Snapshot:
    def fact(name: str, value: T | None) -> T | Unknown:
        why = document.unknown.get(name, "the record does not have it")
        return Unknown(f"{why} (recorded)") if value is None else value

    image: CrashImage | Unknown | None = None
    if document.crash_image is not None:
        parts = msgspec.structs.asdict(document.crash_image)
        image = CrashImage(**{**parts, "segments": tuple(document.crash_image.segments)})
    elif document.crash_kernel_loaded is not False:
        image = fact("crash_image", None)
    unseen = Unknown("not recorded")
    topology = Topology(
        source=document.source,
        release=fact("release", document.release),
        build_id=fact("build_id", document.build_id),
        symbols_build_id=None,
        sections=fact("sections", _to_sections(document.sections)),
        resources=fact("resources", _to_resources(document.resources)),
        blocks=fact("blocks", _to_blocks(document.blocks)),
        excluded=Unknown(document.unknown.get("excluded", "not recorded"))
        if document.excluded is None
        else tuple(Exclusion(each.reason, RangeSet(each.ranges)) for each in document.excluded),
        possible_cpus=_to_cpus(fact("possible_cpus", document.possible_cpus)),
        present_cpus=_to_cpus(fact("present_cpus", document.present_cpus)),
        online_cpus=_to_cpus(fact("online_cpus", document.online_cpus)),
        saved_notes=unseen,
        crash_image=image,
        crash_reserved=document.crash_reserved,
        banner=fact("banner", document.banner),
        boot_id=fact("boot_id", document.boot_id),
        crash_hotplug=fact("crash_hotplug", document.crash_hotplug),
    )
    described = None if document.described is None else RangeSet(document.described)
    return Snapshot(document.recorded, document.node, document.vmcoreinfo, topology, described)


def _to_cpus(fact: list[int] | Unknown) -> frozenset[int] | Unknown:
    return fact if isinstance(fact, Unknown) else frozenset(fact)


def _to_sections(told: _Sections | None) -> Sections | None:
    if told is None:
        return None
    account = MemoryAccount("mem_section", RangeSet(told.online), tuple(told.unread))
    return Sections(told.size, account, RangeSet(told.present), RangeSet(told.early))


def _to_resources(told: _Resources | None) -> Resources | None:
    if told is None:
        return None
    account = MemoryAccount("iomem_resource", RangeSet(told.ram), tuple(told.unread))
    return Resources(account, RangeSet(told.driver_managed))


def _to_blocks(told: _Blocks | None) -> Blocks | None:
    if told is None:
        return None
    account = MemoryAccount("memory blocks", RangeSet(told.online), tuple(told.unread))
    return Blocks(told.size, account, RangeSet(told.offline))
