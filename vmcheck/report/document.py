# SPDX-License-Identifier: LGPL-2.1-or-later
"""The report as JSON. Its shape is a promise: docs/report.schema.json is made from these structs.

The same dump gives the same bytes: no clock, no folder names, no measured times.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any

import msgspec

import vmcheck
from vmcheck import diagnosis, topology
from vmcheck.check import Report, Verdict
from vmcheck.diagnosis import Certainty, Use
from vmcheck.errors import plain
from vmcheck.findings import Finding, Outcome, Severity, State
from vmcheck.header import DumpHeader, Format, Producer
from vmcheck.ranges import RangeSet
from vmcheck.report import words
from vmcheck.report.folder import Checked
from vmcheck.report.memory import Fate, memory, rightly_absent
from vmcheck.report.nodes import by_node
from vmcheck.topology import MemoryAccount, PageKind, Topology, Unknown

SCHEMA = 1
"""Raised when a document that was valid before would be no more. New members do not raise it."""

Bytes = Annotated[int, msgspec.Meta(ge=0, description="bytes")]
Range = Annotated[
    tuple[Annotated[int, msgspec.Meta(ge=0)], Annotated[int, msgspec.Meta(ge=0)]],
    msgspec.Meta(description="physical addresses [start, end): the end is the first byte after"),
]
Cpus = Annotated[list[int], msgspec.Meta(description="CPU numbers as the kernel counts them")]


class Dump(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What the file says of itself. ``null``: its format has no such field."""

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
    """Bytes. All but the first two are disjoint: each byte has one fate. system_ram null: not known."""

    system_ram: Bytes | None
    described: Bytes
    stored: Bytes
    filtered: Bytes
    excluded: Bytes
    missing: Bytes
    dropped: Annotated[int, msgspec.Meta(ge=0, description="described, and lost all the same")]
    phantom: Annotated[int, msgspec.Meta(ge=0, description="described, and the kernel had no RAM there")]
    elsewhere: Bytes
    undescribed: Bytes


class Node(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Memory of one NUMA node."""

    node: int
    bytes: Annotated[int, msgspec.Meta(ge=0, description="System RAM, where that is known")]
    missing: Bytes


class Account(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What one kernel structure says is RAM in use."""

    structure: str
    bytes: Bytes
    complete: bool
    unread: Annotated[list[str], msgspec.Meta(description="where the walk stopped, and why")]


class Fault(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Memory that reading a kernel structure needed and the dump does not hold."""

    structure: str
    address: Annotated[int, msgspec.Meta(ge=0, description="physical")]
    why: str


class Kernel(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What the kernel knew. ``null``: not known, and ``unknown`` says why."""

    source: str
    release: str | None
    build_id: str | None
    possible_cpus: Cpus | None
    present_cpus: Cpus | None
    online_cpus: Cpus | None
    remarks: list[str]
    faults: Annotated[list[Fault], msgspec.Meta(description="pages asked for that are not in the dump")]


class ReportedFinding(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    rule: str
    severity: Severity
    summary: str
    ranges: list[Range]
    bytes: Bytes
    cpus: Cpus
    evidence: list[str]
    recoverable: bool


class Rule(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    rule: str
    state: State
    why: Annotated[str | None, msgspec.Meta(description="of skipped and inapplicable")]


class Excluded(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """System RAM that is rightly not in this dump."""

    reason: str
    bytes: Bytes
    ranges: list[Range]


class UnknownFact(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    fact: str
    why: str


class Conclusion(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A regime or a cause: for ``vmcheck explain NAME``."""

    name: str
    text: str
    certainty: Certainty
    evidence: list[str]
    rules: Annotated[list[str], msgspec.Meta(description="whose findings it accounts for")]


class Event(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Seconds since boot. Where ``seconds`` is null, the bounds that follow from the dump."""

    text: str
    seconds: float | None
    not_before: float | None
    not_after: float | None


class Timeline(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    boot: Annotated[
        float | None, msgspec.Meta(description="seconds since the epoch, good to a second or two")
    ]
    events: list[Event]
    remarks: list[str]


class Effect(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What an analyst gets from one usual command."""

    tool: str
    command: str
    use: Use
    certainty: Certainty
    why: str


class PageCount(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """``node`` and ``zone`` null: not known."""

    node: int | None
    zone: str | None
    kind: PageKind
    pages: int


class LostPages(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What the pages of missing memory were. ``counts`` are of those looked at, of many a sample."""

    pages: int
    looked_at: int
    unread: Annotated[int, msgspec.Meta(description="whose struct page is not in the dump either")]
    counts: list[PageCount]


class LostModule(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    name: str
    pages: int
    lost_pages: int


class LostTask(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A task whose task_struct or kernel stack lies in missing memory."""

    pid: int | None
    name: str
    cpu: Annotated[int | None, msgspec.Meta(description="that was running it at the crash")]
    task_struct_lost: bool
    stack_pages: int
    lost_stack_pages: int


class Loss(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What lay in missing memory. ``null``: not known."""

    pages: LostPages | None
    modules: list[LostModule] | None
    per_cpu_areas: Cpus | None
    memmap: Annotated[
        list[Range] | None, msgspec.Meta(description="memory in the dump whose struct pages are lost")
    ]


class Impact(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    headline: str
    facts: list[str]
    effects: list[Effect]
    loss: Annotated[Loss | None, msgspec.Meta(description="null: no memory is missing, or not known")]
    lost_tasks: Annotated[list[LostTask] | None, msgspec.Meta(description="null: not known")]
    recoverable_cpus: Cpus
    lost_cpus: Cpus


class Step(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    text: str
    commands: list[str]


class Comparison(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What a file beside the dump says. ``agrees`` null: it was refused, or has nothing to compare."""

    witness: str
    kind: str
    agrees: bool | None
    text: str


class Diagnosis(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Why, since when, at what cost, and what to do."""

    regime: Conclusion
    causes: Annotated[list[Conclusion], msgspec.Meta(description="worst first")]
    timeline: Timeline | None
    impact: Impact | None
    next_dump: list[Step]
    this_dump: list[Step]
    witnesses: list[Comparison]


class Document(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What ``vmcheck check --json`` writes."""

    schema: Annotated[int, msgspec.Meta(ge=SCHEMA, le=SCHEMA)] = SCHEMA
    vmcheck: Annotated[str, msgspec.Meta(description="the version that wrote this")]
    verdict: Verdict
    exit_status: Annotated[int, msgspec.Meta(ge=0, le=4)]
    answer: Annotated[str, msgspec.Meta(description="the verdict in one line, for people")]
    dump: Dump
    kernel: Kernel
    memory: Memory
    nodes: Annotated[list[Node] | None, msgspec.Meta(description="by NUMA node; null: not known")]
    findings: Annotated[list[ReportedFinding], msgspec.Meta(description="worst first")]
    rules: Annotated[list[Rule], msgspec.Meta(description="every rule, looked or not")]
    excluded: list[Excluded]
    accounts: list[Account]
    unknown: list[UnknownFact]
    diagnosis: Annotated[
        Diagnosis | msgspec.UnsetType, msgspec.Meta(description="absent where nothing is concluded")
    ] = msgspec.UNSET


class Entry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One dump of a folder: a line of what ``vmcheck check DIR --json`` writes."""

    schema: Annotated[int, msgspec.Meta(ge=SCHEMA, le=SCHEMA)] = SCHEMA
    path: Annotated[str, msgspec.Meta(description="below the folder that was given")]
    parts: Annotated[list[str], msgspec.Meta(description="all files of a split dump, else the one")]
    beside: Annotated[list[str], msgspec.Meta(description="logs and sos reports that it was compared with")]
    exit_status: Annotated[int, msgspec.Meta(ge=0, le=4)]
    error: Annotated[str | None, msgspec.Meta(description="why the dump could not be read")]
    report: Annotated[Document | None, msgspec.Meta(description="null where it could not be read")]


def to_json_line(entry: Checked, fail_on: Severity = Severity.WRONG) -> bytes:
    built = msgspec.to_builtins(
        Entry(
            path=entry.path,
            parts=list(entry.parts),
            beside=list(entry.beside),
            exit_status=int(entry.exit_status(fail_on)),
            error=entry.error or None,
            report=None if entry.report is None else document(entry.report, fail_on),
        )
    )
    return msgspec.json.encode(_plain(built)) + b"\n"


def to_json(report: Report, fail_on: Severity = Severity.WRONG) -> bytes:
    built = msgspec.to_builtins(document(report, fail_on))
    return msgspec.json.format(msgspec.json.encode(_plain(built)), indent=2) + b"\n"


def json_schema(of: type[Document] | type[Entry] = Document) -> bytes:
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(of)}
    return msgspec.json.format(msgspec.json.encode(schema), indent=2) + b"\n"


def document(report: Report, fail_on: Severity = Severity.WRONG) -> Document:
    return Document(
        vmcheck=vmcheck.__version__,
        verdict=report.verdict,
        exit_status=int(report.exit_status(fail_on)),
        answer=words.answer(report),
        dump=_dump(report.header),
        kernel=_kernel(report.topology),
        memory=_memory(report),
        nodes=_nodes(report),
        findings=[_finding(rule, finding) for rule, finding in report.named_findings],
        rules=[_rule(outcome) for outcome in report.outcomes],
        excluded=[
            Excluded(reason=excluded.reason, bytes=excluded.ranges.size, ranges=_ranges(excluded.ranges))
            for excluded in rightly_absent(report)
        ],
        accounts=[_account(account) for account in words.accounts(report.topology)],
        unknown=[UnknownFact(fact=fact, why=why) for fact, why in words.unknown_facts(report.topology)],
        diagnosis=_diagnosis(report),
    )


def _diagnosis(report: Report) -> Diagnosis | msgspec.UnsetType:
    told = words.diagnosed(report)
    if told is None:
        return msgspec.UNSET
    parts = {field.name: getattr(told, field.name) for field in fields(told)}
    return msgspec.convert(
        parts | {"impact": told.impact and _impact(told.impact)}, Diagnosis, from_attributes=True
    )


def _impact(impact: diagnosis.Impact) -> Impact:
    return Impact(
        headline=impact.headline,
        facts=list(impact.facts),
        effects=[msgspec.convert(effect, Effect, from_attributes=True) for effect in impact.effects],
        loss=_loss(impact.loss) if isinstance(impact.loss, topology.Loss) else None,
        lost_tasks=None
        if isinstance(impact.tasks, Unknown)
        else [LostTask(**task._asdict()) for task in impact.tasks.lost],
        recoverable_cpus=list(impact.recoverable_cpus),
        lost_cpus=list(impact.lost_cpus),
    )


def _loss(loss: topology.Loss) -> Loss:
    pages, modules, memmap = loss.pages, loss.modules, loss.memmap
    return Loss(
        pages=None if isinstance(pages, Unknown) else _lost_pages(pages),
        modules=None
        if isinstance(modules, Unknown)
        else [LostModule(**each._asdict()) for each in modules.lost],
        per_cpu_areas=_cpus(loss.per_cpu_areas),
        memmap=None if isinstance(memmap, Unknown) else _ranges(memmap),
    )


def _lost_pages(lost: topology.LostPages) -> LostPages:
    return LostPages(
        pages=lost.pages,
        looked_at=lost.looked_at,
        unread=lost.unread,
        counts=[PageCount(**count._asdict()) for count in lost.counts],
    )


def _dump(header: DumpHeader) -> Dump:
    return Dump(
        file=words.file_name(header),
        format=header.format,
        header_version=header.header_version,
        producer=header.producer,
        machine=header.machine,
        bits=header.bits,
        byteorder=header.byteorder,
        page_size=header.page_size,
        dump_level=header.dump_level,
        compression=header.compression,
        flattened=header.flattened,
        incomplete=header.incomplete,
        split_parts=len(header.split),
        file_size=header.file_size,
        expected_size=header.expected_size,
        segments=len(header.segments),
        cpu_notes=len(header.cpu_notes),
        vmcoreinfo_notes=len(header.vmcoreinfo_notes),
        crash_time=words.crash_time(header) or None,
    )


def _memory(report: Report) -> Memory:
    kept = memory(report)
    return Memory(
        system_ram=None if isinstance(kept.ram, Unknown) else kept.ram.size,
        described=report.header.described.size,
        stored=kept.size(Fate.STORED),
        filtered=kept.size(Fate.FILTERED),
        excluded=kept.size(Fate.EXCLUDED),
        missing=kept.size(Fate.MISSING),
        dropped=kept.size(Fate.DROPPED),
        phantom=kept.size(Fate.PHANTOM),
        elsewhere=kept.size(Fate.ELSEWHERE),
        undescribed=kept.size(Fate.UNDESCRIBED),
    )


def _nodes(report: Report) -> list[Node] | None:
    nodes = by_node(report)
    if nodes is None:
        return None
    return [Node(node=each.node, bytes=each.ram, missing=each.missing) for each in nodes]


def _kernel(kernel: Topology) -> Kernel:
    return Kernel(
        source=kernel.source,
        release=_or_none(kernel.release),
        build_id=_or_none(kernel.build_id),
        possible_cpus=_cpus(kernel.possible_cpus),
        present_cpus=_cpus(kernel.present_cpus),
        online_cpus=_cpus(kernel.online_cpus),
        remarks=list(kernel.remarks),
        faults=[
            Fault(structure=fault.structure, address=fault.address, why=fault.why) for fault in kernel.faults
        ],
    )


def _or_none(fact: str | Unknown) -> str | None:
    return None if isinstance(fact, Unknown) else fact


def _cpus(fact: frozenset[int] | Unknown) -> list[int] | None:
    return None if isinstance(fact, Unknown) else sorted(fact)


def _finding(rule: str, finding: Finding) -> ReportedFinding:
    return ReportedFinding(
        rule=rule,
        severity=finding.severity,
        summary=finding.summary,
        ranges=_ranges(finding.ranges),
        bytes=finding.ranges.size,
        cpus=list(finding.cpus),
        evidence=list(finding.evidence),
        recoverable=finding.recoverable,
    )


def _ranges(ranges: RangeSet) -> list[Range]:
    return list(ranges)


def _rule(outcome: Outcome) -> Rule:
    return Rule(rule=outcome.rule, state=outcome.state, why=outcome.why or None)


def _account(account: MemoryAccount) -> Account:
    return Account(
        structure=account.structure,
        bytes=account.ram.size,
        complete=account.complete,
        unread=list(account.unread),
    )


def _plain(value: Any) -> Any:
    """Every string made plain: a dump's strings can hold what JSON cannot, such as half a surrogate pair."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, dict):
        return {key: _plain(member) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(member) for member in value]
    return value
