# SPDX-License-Identifier: LGPL-2.1-or-later
"""A record: a kernel's topology at one moment as JSON, to compare with a later dump."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

import vmcheck
from vmcheck.errors import UnreadableFile
from vmcheck.facts.data import NotThisValue, from_data, members, to_data
from vmcheck.facts.ranges import RangeSet
from vmcheck.facts.topology import Topology, Unknown
from vmcheck.files import read_input

SCHEMA = 2
"""Schema 1 had names of its own for the facts, and did not say which structure an account is of."""
LARGEST = 64 << 20
"""Bytes. A machine of 262,144 scattered memory blocks takes 20 MB."""
MOST_VALUES = 4 << 20
"""Lists, members and list items. That machine has 3 million, and Python takes 64 bytes for each."""
LAST_SECOND = 253_402_300_799
"""Of the year 9999, the last that a calendar has."""
MOST_CPUS = 1 << 20
LARGEST_BLOCK = 1 << 50
"""Bytes of a section or memory block."""

NOT_RECORDED = frozenset(
    {
        "saved_notes",
        "log",
        "page_offset",
        "filtered_slab",
        "kernel_data",
        "tasks",
        "loss",
        "faults",
        "symbols_build_id",
    }
)
"""Facts of a crash, facts that a later dump shows better, and what says more than a record should."""
_RECORDED = [member.name for member in members(Topology) if member.name not in NOT_RECORDED]


@dataclass(frozen=True)
class Snapshot:
    """What a kernel had, when, and on which host."""

    recorded: int
    """Seconds since the epoch."""
    node: str
    """The host's name."""
    vmcoreinfo: str | None
    """What a dump of this boot will have, but for CRASHTIME. None: it was recorded from /proc and /sys."""
    topology: Topology
    described: RangeSet | None
    """What the elfcorehdr that was loaded then described. None: none was, or it could not be read."""


def to_json(snapshot: Snapshot) -> bytes:
    document = {
        "schema": SCHEMA,
        "vmcheck": vmcheck.__version__,
        **{
            name: to_data(getattr(snapshot, name)) for name in ("recorded", "node", "vmcoreinfo", "described")
        },
        "topology": {name: to_data(getattr(snapshot.topology, name)) for name in _RECORDED},
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def read_snapshot(path: str) -> Snapshot:
    """Raises UnreadableFile for what is no record of ``vmcheck record``."""
    return parse(read_input(path, LARGEST), path)


def parse(data: bytes, path: str) -> Snapshot:
    """``data`` may be a stranger's. Raises UnreadableFile."""
    try:
        if sum(map(data.count, (b"[", b"{", b","))) > MOST_VALUES:
            raise NotThisValue(f"it has more than {MOST_VALUES} values")
        return _snapshot(msgspec.json.decode(data, type=dict[str, Any]))
    except RecursionError:
        raise UnreadableFile(f"{path}: not written by 'vmcheck record': its lists are too deep") from None
    except (msgspec.DecodeError, UnicodeDecodeError, NotThisValue) as error:
        raise UnreadableFile(f"{path}: not written by 'vmcheck record': {error}") from None


def _snapshot(document: dict[str, Any]) -> Snapshot:
    schema = document.pop("schema", None)
    version = document.pop("vmcheck", None)
    if type(schema) is not int or schema not in (1, SCHEMA):
        raise NotThisValue(f"its schema is {str(schema)[:20]}, and this vmcheck reads 1 and {SCHEMA}")
    if not isinstance(version, str):
        raise NotThisValue("it does not name the version of vmcheck")
    if schema == 1:
        document = _from_schema_1(document)
    facts = document.get("topology")
    if isinstance(facts, dict):
        if beyond := NOT_RECORDED & facts.keys():
            raise NotThisValue(f"topology.{min(beyond)} is not recorded")
        document = {**document, "topology": {**_ABSENT, **facts}}
    snapshot = from_data(Snapshot, document, "record")
    _refuse_absurd(snapshot)
    return replace(snapshot, topology=_said_to_be_recorded(snapshot.topology))


_ABSENT: Mapping[str, Any] = {
    member.name: None if member.name == "symbols_build_id" else {"unknown": "not recorded"}
    for member in members(Topology)
    if member.name in NOT_RECORDED and member.required
}


def _refuse_absurd(snapshot: Snapshot) -> None:
    """Numbers that fit their type and that no machine has."""
    topology = snapshot.topology
    if not 0 <= snapshot.recorded <= LAST_SECOND:
        raise NotThisValue(f"recorded is {snapshot.recorded}, which is no time in seconds")
    for name in ("sections", "blocks"):
        fact = getattr(topology, name)
        if not isinstance(fact, Unknown) and not 1 <= fact.size <= LARGEST_BLOCK:
            raise NotThisValue(f"{name}.size is {fact.size} bytes, and at most {LARGEST_BLOCK} is possible")
    for name in ("possible_cpus", "present_cpus", "online_cpus"):
        cpus = getattr(topology, name)
        for cpu in () if isinstance(cpus, Unknown) else cpus:
            if not 0 <= cpu < MOST_CPUS:
                raise NotThisValue(f"{name} has CPU {cpu}, and 0 to {MOST_CPUS - 1} are possible")
    if topology.crash_reserved is not None and topology.crash_reserved < 0:
        raise NotThisValue(f"crash_reserved is {topology.crash_reserved} bytes")


def _said_to_be_recorded(topology: Topology) -> Topology:
    """Why a fact is unknown, and that this was so then."""
    unknown: dict[str, Any] = {
        member.name: Unknown(f"{value.why} (recorded)")
        for member in members(Topology)
        if isinstance(value := getattr(topology, member.name), Unknown) and member.name not in NOT_RECORDED
    }
    return replace(topology, **unknown)


def _from_schema_1(old: dict[str, Any]) -> dict[str, Any]:
    """The same in schema 2. What is not of schema 1's shape is left for the reader of schema 2 to refuse."""
    unknown = old.pop("unknown", None)
    reasons = unknown if isinstance(unknown, dict) else {}
    snapshot = {name: old.pop(name, None) for name in ("recorded", "node", "vmcoreinfo", "described")}
    loaded = old.pop("crash_kernel_loaded", None)
    topology: dict[str, Any] = {}
    for name, value in old.items():
        if value is None and name not in ("crash_reserved", "source"):
            value = {"unknown": reasons.get(name, "the record does not have it")}
        elif name in _SCHEMA_1 and isinstance(value, dict):
            value = _with_account(value, *_SCHEMA_1[name])
        topology[name] = value
    source = topology.get("source")
    if isinstance(source, str) and source.startswith("/proc and /sys"):
        _name_account(topology.get("resources"), "/proc/iomem")
    if loaded is False:
        topology["crash_image"] = None
    return {**snapshot, "topology": topology}


_SCHEMA_1 = {
    "sections": ("mem_section", "online"),
    "resources": ("iomem_resource", "ram"),
    "blocks": ("memory blocks", "online"),
}
"""Whose account it was, and the member with its ranges."""


def _with_account(value: dict[str, Any], structure: str, ram: str) -> dict[str, Any]:
    rest = {name: each for name, each in value.items() if name not in (ram, "unread")}
    if rest.get("early", rest) is None:
        rest["early"] = {"unknown": "the record does not have it"}
    account = {"structure": structure, "ram": value.get(ram), "unread": value.get("unread")}
    return {**rest, "account": account}


def _name_account(fact: Any, structure: str) -> None:
    if isinstance(fact, dict) and isinstance(account := fact.get("account"), dict):
        account["structure"] = structure
