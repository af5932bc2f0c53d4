# SPDX-License-Identifier: LGPL-2.1-or-later
"""The report as JSON. Its shape is a promise: docs/report.schema.json is made from these types.

The same dump gives the same bytes: no clock, no folder names, no measured times. What the kernel
knew and what the diagnosis concludes follow from the types of facts/: a new fact needs no line here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

import vmcheck
from vmcheck.check import Report, Verdict
from vmcheck.errors import plain
from vmcheck.facts import diagnosis, topology
from vmcheck.facts.body import Body
from vmcheck.facts.data import members, to_data
from vmcheck.facts.exclusions import Exclusion
from vmcheck.facts.findings import Finding, Severity, State
from vmcheck.facts.header import DumpHeader, Format, Producer
from vmcheck.facts.topology import MemoryAccount, Topology, Unknown
from vmcheck.report import words
from vmcheck.report.folder import Checked
from vmcheck.report.memory import Fate, excluded_by_design, memory
from vmcheck.report.nodes import by_node
from vmcheck.report.published import Published, list_of, struct

SCHEMA = 1
"""Raised when a reader of the documents before would break. New members do not raise it."""

Bytes = Annotated[int, msgspec.Meta(ge=0, description="bytes")]
ExitStatus = Annotated[int, msgspec.Meta(ge=0, le=4)]
SchemaNumber = Annotated[int, msgspec.Meta(ge=SCHEMA, le=SCHEMA)]

NOT_OF_THE_KERNEL = frozenset(
    {
        # Members of their own.
        *("sections", "resources", "blocks", "excluded", "nodes", "tasks", "loss"),
        # Too much, and in the dump itself.
        *("saved_notes", "log", "page_offset", "filtered_slab"),
    }
)


IN_FINDINGS = frozenset({"never_written", "damaged"})
"""Of the body: the findings have these ranges, and they can be many."""
SHARE = "share of damaged pages that the sample shows with 99% probability; null: no sample"


class Dump(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What the file says about itself. ``null``: its format has no such field."""

    file: str
    format: Format
    header_version: int | None
    producer: Producer
    machine: str
    bits: int
    byteorder: str
    page_size: Bytes
    dump_level: int | None
    compression: str | None
    flattened: bool
    incomplete: bool
    split_parts: int
    file_size: Bytes
    expected_size: Bytes
    segments: int
    cpu_notes: int
    vmcoreinfo_notes: int
    crash_time: Annotated[str | None, msgspec.Meta(description="UTC")]


class Memory(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Bytes. All but the first two are disjoint: each byte has one fate. system_ram null: unknown."""

    system_ram: Bytes | None
    described: Bytes
    stored: Bytes
    filtered: Bytes
    excluded: Bytes
    missing: Bytes
    dropped: Annotated[int, msgspec.Meta(ge=0, description="described, but missing from the file")]
    phantom: Annotated[int, msgspec.Meta(ge=0, description="described, but the kernel had no RAM there")]
    elsewhere: Bytes
    undescribed: Bytes


class Node(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Memory of one NUMA node."""

    node: int
    bytes: Annotated[int, msgspec.Meta(ge=0, description="System RAM, where that is known")]
    missing: Bytes


class Rule(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    rule: str
    state: State
    why: Annotated[str | None, msgspec.Meta(description="of skipped and inapplicable")]


class UnknownFact(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    fact: str
    why: str


def document_types() -> tuple[type[msgspec.Struct], type[msgspec.Struct]]:
    """The type of a report, and that of a line of a folder's reports."""
    publish = Published(
        {
            Topology: "Kernel",
            topology.Task: "LostTask",
            Finding: "ReportedFinding",
            MemoryAccount: "Account",
            Exclusion: "Excluded",
        }
    )
    loss = publish(topology.Loss, frozenset({"memory"}), modules=list_of(publish(topology.LostModule)) | None)
    publish(
        diagnosis.Impact,
        frozenset({"tasks"}),
        loss=_described(loss | None, "null: no memory is missing, or unknown"),
        lost_tasks=_described(list_of(publish(topology.Task)) | None, "null: unknown"),
    )
    document = struct(
        "Document",
        "What ``vmcheck check --json`` writes.",
        {
            "schema": SchemaNumber,
            "vmcheck": _described(str, "the version that wrote this"),
            "verdict": Verdict,
            "exit_status": ExitStatus,
            "answer": _described(str, "the verdict in one line, for people"),
            "dump": Dump,
            "body": _described(
                publish(Body, IN_FINDINGS, would_have_seen=_described(float | None, SHARE)) | None,
                "null: the pages were not looked at",
            ),
            "kernel": publish(Topology, NOT_OF_THE_KERNEL),
            "memory": Memory,
            "nodes": _described(list[Node] | None, "by NUMA node; null: unknown"),
            "findings": _described(list_of(publish(Finding, rule=str, bytes=Bytes)), "worst first"),
            "rules": _described(list[Rule], "every rule, whatever its state"),
            "excluded": list_of(publish(Exclusion, bytes=Bytes)),
            "accounts": list_of(publish(MemoryAccount, frozenset({"ram"}), bytes=Bytes, complete=bool)),
            "unknown": list[UnknownFact],
            "diagnosis": _described(publish(diagnosis.Diagnosis), "absent where nothing is concluded"),
        },
        optional=frozenset({"diagnosis"}),
    )
    entry = struct(
        "Entry",
        "One dump of a folder: a line of what ``vmcheck check DIR --json`` writes.",
        {
            "schema": SchemaNumber,
            "path": _described(str, "below the folder that was given"),
            "parts": _described(list[str], "all files of a split dump, else the one"),
            "beside": _described(list[str], "logs and sos reports that it was compared with"),
            "exit_status": ExitStatus,
            "error": _described(str | None, "why the dump could not be read"),
            "report": _described(document | None, "null where it could not be read"),
        },
    )
    return document, entry


def _described(kind: Any, description: str) -> Any:
    return Annotated[kind, msgspec.Meta(description=description)]


def json_schema(folder: bool = False) -> bytes:
    """The JSON Schema of :func:`to_json`; with ``folder``, of a line of :func:`to_json_lines`."""
    schema = msgspec.json.schema(document_types()[folder])
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return msgspec.json.format(msgspec.json.encode(schema), indent=2) + b"\n"


def to_json_lines(folder: str, entries: Sequence[Checked], fail_on: Severity = Severity.WRONG) -> bytes:
    """A line a dump. ``folder`` is not in it."""
    return b"".join(to_json_line(entry, fail_on) for entry in entries)


def to_json_line(entry: Checked, fail_on: Severity = Severity.WRONG) -> bytes:
    line = {
        "schema": SCHEMA,
        "path": entry.path,
        "parts": list(entry.parts),
        "beside": list(entry.beside),
        "exit_status": int(entry.exit_status(fail_on)),
        "error": entry.error or None,
        "report": None if entry.report is None else document(entry.report, fail_on),
    }
    return msgspec.json.encode(_plain(line)) + b"\n"


def to_json(report: Report, fail_on: Severity = Severity.WRONG) -> bytes:
    built = _plain(document(report, fail_on))
    return msgspec.json.format(msgspec.json.encode(built), indent=2) + b"\n"


def document(report: Report, fail_on: Severity = Severity.WRONG) -> dict[str, Any]:
    concluded = words.diagnosed(report)
    return {
        "schema": SCHEMA,
        "vmcheck": vmcheck.__version__,
        "verdict": report.verdict.value,
        "exit_status": int(report.exit_status(fail_on)),
        "answer": words.answer(report),
        "dump": _dump(report.header),
        "body": None if isinstance(report.body, Unknown) else _body(report.body),
        "kernel": _members(report.topology, NOT_OF_THE_KERNEL),
        "memory": _memory(report),
        "nodes": _nodes(report),
        "findings": [
            {"rule": rule, "bytes": finding.ranges.size, **_members(finding)}
            for rule, finding in report.named_findings
        ],
        "rules": [
            {"rule": each.rule, "state": each.state.value, "why": each.why or None}
            for each in report.outcomes
        ],
        "excluded": [{"bytes": each.ranges.size, **_members(each)} for each in excluded_by_design(report)],
        "accounts": [
            {"bytes": each.ram.size, "complete": each.complete, **_members(each, frozenset({"ram"}))}
            for each in words.accounts(report.topology)
        ],
        "unknown": [{"fact": fact, "why": why} for fact, why in words.unknown_facts(report.topology)],
        **({} if concluded is None else {"diagnosis": _diagnosis(concluded)}),
    }


def _data(value: Any) -> Any:
    """By type; an Unknown is null."""
    return to_data(value, lambda fact: None)


def _members(value: Any, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    names = (member.name for member in members(value.__class__) if member.name not in without)
    return {name: _data(getattr(value, name)) for name in names}


def _dump(header: DumpHeader) -> dict[str, Any]:
    """The header's fields that Dump has, and counts of the others."""
    made = {
        "file": words.file_name(header),
        "split_parts": len(header.split),
        "segments": len(header.segments),
        "cpu_notes": len(header.cpu_notes),
        "vmcoreinfo_notes": len(header.vmcoreinfo_notes),
        "crash_time": words.crash_time(header) or None,
    }
    names = [name for name in Dump.__struct_fields__ if name not in made]
    return {**{name: _data(getattr(header, name)) for name in names}, **made}


def _body(body: Body) -> dict[str, Any]:
    return {**_members(body, IN_FINDINGS), "would_have_seen": body.would_have_seen}


def _memory(report: Report) -> dict[str, int | None]:
    kept = memory(report)
    return {
        "system_ram": None if isinstance(kept.ram, Unknown) else kept.ram.size,
        "described": report.header.described.size,
        **{fate.value: kept.size(fate) for fate in Fate},
    }


def _nodes(report: Report) -> list[dict[str, int]] | None:
    nodes = by_node(report)
    if nodes is None:
        return None
    return [{"node": each.node, "bytes": each.ram, "missing": each.missing} for each in nodes]


def _diagnosis(concluded: diagnosis.Diagnosis) -> dict[str, Any]:
    impact = concluded.impact
    return {
        **_members(concluded, frozenset({"impact"})),
        "impact": None if impact is None else _impact(impact),
    }


def _impact(impact: diagnosis.Impact) -> dict[str, Any]:
    tasks, loss = impact.tasks, impact.loss
    return {
        **_members(impact, frozenset({"tasks", "loss"})),
        "loss": _loss(loss) if isinstance(loss, topology.Loss) else None,
        "lost_tasks": None if isinstance(tasks, Unknown) else _data(tasks.lost),
    }


def _loss(loss: topology.Loss) -> dict[str, Any]:
    modules = loss.modules
    return {
        **_members(loss, frozenset({"memory", "modules"})),
        "modules": None if isinstance(modules, Unknown) else _data(modules.lost),
    }


def _plain(value: Any) -> Any:
    """Every string made plain: a dump's strings can hold what JSON cannot, such as half a surrogate pair."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, dict):
        return {key: _plain(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_plain(member) for member in value]
    return value
