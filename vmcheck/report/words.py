# SPDX-License-Identifier: LGPL-2.1-or-later
"""The phrases that text, JSON, HTML and JUnit share."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import PurePath
from typing import NamedTuple

from vmcheck.check import Report, Verdict
from vmcheck.diagnosis import Certainty, Comparison, Diagnosis, Effect, Event, Timeline, Use
from vmcheck.findings import Finding, Severity, State
from vmcheck.header import DumpHeader, Format
from vmcheck.quantities import address_range as address_range
from vmcheck.quantities import count as count
from vmcheck.quantities import cpu_list as cpu_list
from vmcheck.quantities import size as size
from vmcheck.ranges import RangeSet
from vmcheck.report.cpus import Registers
from vmcheck.report.memory import Fate, Memory
from vmcheck.report.nodes import NodeMemory, Nodes, by_node, nodes_of
from vmcheck.topology import CrashImage, Fault, MemoryAccount, Task, Topology, Unknown

VERDICT: Mapping[Verdict, str] = {verdict: verdict.value.upper() for verdict in Verdict}

UNREADABLE = "UNREADABLE"
"""In the place of a verdict."""

FATE: Mapping[Fate, str] = {
    Fate.MISSING: "missing",
    Fate.DROPPED: "dropped",
    Fate.PHANTOM: "phantom",
    Fate.UNDESCRIBED: "not described",
    Fate.EXCLUDED: "left out by design",
    Fate.ELSEWHERE: "in parts not given",
    Fate.FILTERED: "filtered",
    Fate.STORED: "stored",
}

DESCRIBED = (Fate.STORED, Fate.FILTERED, Fate.ELSEWHERE, Fate.PHANTOM, Fate.DROPPED)

KIND: Mapping[str, str] = {fate.value: name for fate, name in FATE.items()} | {"described": "described"}
"""The fates as the memory map has them: stored and filtered are one."""

FATE_AT_LENGTH: Mapping[Fate, str] = {
    Fate.MISSING: "the kernel had it and the dump does not",
    Fate.DROPPED: "described, and its bytes are lost all the same",
    Fate.PHANTOM: "described, and the kernel had no RAM there",
    Fate.UNDESCRIBED: "System RAM in no header, and no rule calls it lost",
    Fate.EXCLUDED: "System RAM that a healthy header leaves out",
    Fate.ELSEWHERE: "stored in parts of the split dump that were not given",
    Fate.FILTERED: "described, and left out of the file on purpose",
    Fate.STORED: "described, and its bytes are in the file",
}


def fate(each: Fate, forecast: bool) -> str:
    return "described" if forecast and each is Fate.STORED else FATE[each]


def fate_at_length(each: Fate, forecast: bool) -> str:
    told = {Fate.MISSING: "the kernel has it and a dump would not", Fate.STORED: "a dump would have it"}
    return (told if forecast else {}).get(each, FATE_AT_LENGTH[each])


REGISTERS: Mapping[Registers, str] = {
    Registers.LOST: "never saved",
    Registers.RECOVERABLE: "recoverable",
    Registers.DOUBTFUL: "doubtful",
    Registers.UNKNOWN: "not known",
    Registers.PRESENT: "in the dump",
    Registers.OFFLINE: "offline",
}

REGISTERS_AT_LENGTH: Mapping[Registers, str] = {
    Registers.LOST: "neither in the headers nor in memory",
    Registers.RECOVERABLE: "not in the headers, still in the dump's memory",
    Registers.DOUBTFUL: "in the dump, but tools will misread them",
    Registers.UNKNOWN: "the CPU was online; whether it saved could not be read",
    Registers.PRESENT: "the headers have them",
    Registers.OFFLINE: "nothing to save",
}

SEVERITY: Mapping[Severity, str] = {
    Severity.LOST: "Missing",
    Severity.WRONG: "Wrong",
    Severity.NOTICE: "Worth knowing",
}

RANGES_SHOWN = 12
"""Of one finding; JSON has them all."""

RUNS_SHOWN = 24
"""Of consecutive CPUs; JSON has them all."""

RECOVERABLE = "recoverable: what the headers lack still lies in the dump's memory"

DUMP_LEVEL = {
    1: "zero",
    2: "cache",
    4: "private cache",
    8: "user",
    16: "free",
}
"""The bits of makedumpfile -d: which pages it leaves out."""


class Fact(NamedTuple):
    name: str
    value: str


# Quantities


def cpus(numbers: Sequence[int]) -> str:
    """``CPU 2``, ``CPUs 2-3``; only how many where the list is too long to read."""
    listed = cpu_list(numbers)
    if len(listed) > 24:
        return count(len(numbers), "CPU")
    return f"CPU{'' if len(numbers) == 1 else 's'} {listed}"


def listed_cpus(numbers: Sequence[int]) -> str:
    """``CPUs 2-3, 7``."""
    return f"CPU{'' if len(numbers) == 1 else 's'} {few_cpus(numbers)}"


def few_cpus(numbers: Iterable[int]) -> str:
    """``0-2, 5``, cut where nobody reads on."""
    runs = cpu_list(numbers).split(",")
    more = f" and {count(len(runs) - RUNS_SHOWN, 'more run')}" if len(runs) > RUNS_SHOWN else ""
    return ", ".join(runs[:RUNS_SHOWN]) + more


def sentence(text: str) -> str:
    """With a capital, as a heading has it."""
    return text[:1].upper() + text[1:]


def joined(parts: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


# The answer


def verdict(each: Verdict | None) -> str:
    """None: the dump could not be read."""
    return UNREADABLE if each is None else VERDICT[each]


def answer(report: Report) -> str:
    """The line that a person reads if they read only one."""
    reasons = {
        Verdict.COMPLETE: _complete,
        Verdict.INCOMPLETE: _incomplete,
        Verdict.MISLEADING: _misleading,
        Verdict.UNKNOWN: _could_not_tell,
    }
    return f"{VERDICT[report.verdict]}: {reasons[report.verdict](report)}"


def _complete(report: Report) -> str:
    """Described, not stored: what the dump level filtered is no loss and is not in the file either."""
    parts = []
    ram, online = report.topology.system_ram, report.topology.online_cpus
    if not isinstance(ram, Unknown):
        parts.append(f"all {size((ram & report.header.described).size)} of RAM that it should")
    if not isinstance(online, Unknown) and not isinstance(report.topology.saved_notes, Unknown):
        parts.append(f"the registers of {_every(len(online))}")
    if report.forecast:
        # Where there is nothing to compare, elfcorehdr is made by the capture kernel.
        whole = f"a dump of {joined(parts)}" if parts else "a dump, and its header is made after the crash"
        return f"a crash now would leave {whole}"
    if not parts:
        looked = report.outcomes_in(State.CLEAN) + report.outcomes_in(State.FOUND)
        return f"nothing is missing by the {count(len(looked), 'rule')} that apply"
    return f"this dump describes {joined(parts)}"


def _every(online: int) -> str:
    return {1: "the only online CPU", 2: "both online CPUs"}.get(online, f"all {online:,} online CPUs")


def _incomplete(report: Report) -> str:
    """Memory that is described and lost all the same is told by its finding, not counted."""
    parts, ram = [], report.topology.system_ram
    if report.lost_memory:
        # Where iomem_resource was read in part, what it has may be less than what is lost.
        of = "" if isinstance(ram, Unknown) or report.lost_memory - ram else f" of {size(ram.size)}"
        parts.append(f"{size(report.lost_memory.size)}{of} RAM")
    if report.lost_cpus:
        parts.append(f"the registers of {cpus(report.lost_cpus)}")
    if not parts:
        return _first_of(report.of(Severity.LOST))
    described, losses = report.header.described, report.of(Severity.LOST)
    others = [finding for finding in losses if not (finding.ranges - described or finding.cpus)]
    more = f" (and {count(len(others), 'more finding')})" if others else ""
    if report.forecast:
        return f"{joined(parts)} would not be in a dump if this kernel crashed now{more}"
    return f"{joined(parts)} {'are' if report.lost_cpus else 'is'} not in this dump{more}"


def _misleading(report: Report) -> str:
    return _first_of(report.of(Severity.WRONG))


def _first_of(findings: Sequence[Finding]) -> str:
    more = f" (and {count(len(findings) - 1, 'more finding')})" if len(findings) > 1 else ""
    return findings[0].summary + more


def _could_not_tell(report: Report) -> str:
    skipped = report.outcomes_in(State.SKIPPED)
    return (
        f"nothing wrong was seen, but {len(skipped)} of {count(len(report.outcomes), 'rule')} "
        f"could not look: {skipped[0].why}"
    )


# A finding


def extents(finding: Finding, nodes: Nodes) -> Iterator[str]:
    """The exact ranges and CPUs of a finding, one line each; of several ``nodes``, whose each range is."""
    if finding.ranges:
        yield from _ranges(finding.ranges, nodes)
    if finding.cpus:
        yield listed_cpus(finding.cpus)


def _ranges(ranges: RangeSet, nodes: Nodes) -> Iterator[str]:
    # "and 1 more range" would take the line that the range itself would.
    most = RANGES_SHOWN if len(ranges) > RANGES_SHOWN + 1 else len(ranges)
    shown = list(itertools.islice(ranges, most))
    texts = [address_range(*bounds) for bounds in shown]
    for text, (start, end) in zip(texts, shown, strict=True):
        told = [size(end - start), *on_nodes(RangeSet([(start, end)]), nodes)]
        yield f"{text:{max(map(len, texts))}}  {', '.join(told)}"
    if hidden := len(ranges) - len(shown):
        left = ranges.size - sum(end - start for start, end in shown)
        yield f"and {count(hidden, 'more range')}, {size(left)}"


def on_nodes(ranges: RangeSet, nodes: Nodes) -> list[str]:
    """``node 1``, ``nodes 0-1``; nothing where that is not told."""
    numbers = nodes_of(ranges, nodes)
    return [f"node{'' if len(numbers) == 1 else 's'} {cpu_list(numbers)}"] if numbers else []


def node_memory(each: NodeMemory) -> str:
    """``384 MiB, 128 MiB of it missing``."""
    lost = (
        ""
        if not each.missing
        else f", {'all' if each.missing == each.ram else size(each.missing)} of it missing"
    )
    return f"{size(each.ram)}{lost}"


def where(ranges: RangeSet) -> str:
    """The only range, or how many there are and the first."""
    first = address_range(*next(iter(ranges)))
    return first if len(ranges) == 1 else f"{count(len(ranges), 'range')} from {first}"


# The diagnosis


def diagnosed(report: Report) -> Diagnosis | None:
    """The diagnosis, where it concludes anything at all."""
    diagnosis = report.diagnosis
    if diagnosis is None or (diagnosis == Diagnosis(diagnosis.regime) and not diagnosis.regime.evidence):
        return None
    return diagnosis


USE: Mapping[Use, str] = {
    Use.FAILS: "fails",
    Use.MISLEADS: "misleads",
    Use.PARTIAL: "in part",
    Use.SAFE: "safe",
}

WHY = "Why"
REGIME = "What was to keep elfcorehdr fresh"
"""Instead of WHY, where there is nothing to explain."""
COST = "What it costs"
REMEDY = "What to do"
NEXT_DUMP = "So that the next dump is whole"
THIS_DUMP = "With this dump"


def in_short(diagnosis: Diagnosis) -> list[Fact]:
    """The first words of why, what it costs and what to do, for a reader who reads no more."""
    facts = []
    if diagnosis.causes:
        first, *rest = diagnosis.causes
        doubtful = f" ({doubt(first.certainty)})" if doubt(first.certainty) else ""
        more = f"; {count(len(rest), 'more cause')}" if rest else ""
        facts.append(Fact(WHY, f"{first.text}{doubtful}{more}"))
    if diagnosis.impact:
        facts.append(Fact(COST, diagnosis.impact.headline))
    if steps := (*diagnosis.next_dump, *diagnosis.this_dump):
        facts.append(Fact(REMEDY, steps[0].text))
    return facts


def moment(event: Event) -> str:
    """Seconds since boot, or what bounds them."""
    if event.seconds is not None:
        return f"{event.seconds:.3f} s"
    if event.not_before is not None and event.not_after is not None:
        return f"{event.not_before:.3f} to {event.not_after:.3f} s"
    if event.not_before is not None:
        return f"after {event.not_before:.3f} s"
    return "not recorded" if event.not_after is None else f"before {event.not_after:.3f} s"


def clocks(timeline: Timeline) -> list[str]:
    """Each event's wall clock in UTC, with its date where that is new; empty where it cannot be known."""
    told, today = [], ""
    for event in timeline.events:
        stamp = "" if timeline.boot is None or event.seconds is None else _utc(timeline.boot + event.seconds)
        date, _, clock = stamp.partition(" ")
        told.append(clock if date == today else stamp)
        today = date or today
    return told


class Outlook(NamedTuple):
    """What some commands give on this dump."""

    use: Use
    doubt: str
    commands: Mapping[str, Sequence[str]]
    """By tool."""
    why: str
    """Empty for safe ones."""


def outlooks(effects: Sequence[Effect]) -> list[Outlook]:
    """Commands of one outlook together; of what is safe only that it is."""
    found: dict[tuple[Use, str, str], dict[str, list[str]]] = {}
    for effect in effects:
        why = "" if effect.use is Use.SAFE else effect.why
        tools = found.setdefault((effect.use, doubt(effect.certainty), why), {})
        tools.setdefault(effect.tool, []).append(effect.command)
    return [Outlook(use, doubtful, tools, why) for (use, doubtful, why), tools in found.items()]


def percent(share: float) -> str:
    """``99.9 %``; never 0 % of something, nor 100 % of what is not all."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{min(share, 0.999) if share < 1 else 1:.1%}".replace("%", " %")


def lost_of(task: Task) -> str:
    parts = ["its task_struct"] if task.task_struct_lost else []
    if task.lost_stack_pages:
        whole = task.lost_stack_pages == task.stack_pages
        parts.append("its kernel stack" if whole else "a part of its kernel stack")
    return joined(parts)


def doubt(certainty: Certainty) -> str:
    """What is said beside an answer: nothing where it is certain."""
    return {Certainty.CERTAIN: "", Certainty.LIKELY: "likely", Certainty.UNKNOWN: "could not tell"}[certainty]


def compared(comparison: Comparison) -> str:
    """``vmcore-dmesg.txt, kernel log: agrees: ...``."""
    verdict = {True: "agrees", False: "disagrees", None: "not compared"}[comparison.agrees]
    return f"{comparison.kind}, {verdict}: {comparison.text}"


# What was looked at


def subject(report: Report) -> str:
    return "The loaded elfcorehdr" if report.forecast else "The dump"


def file_name(header: DumpHeader) -> str:
    """Without its folder, which says more of the reader's machine than of the dump."""
    return PurePath(header.path).name


def dump_facts(report: Report, kept: Memory) -> list[Fact]:
    header = report.header
    facts = [Fact("file", f"{file_name(header)}, {size(header.file_size)}"), Fact("format", _format(header))]
    machine = f"{header.machine}, {header.bits}-bit, {header.byteorder} endian"
    facts.append(Fact("machine", f"{machine}, {header.page_size:,}-byte pages"))
    if header.dump_level is not None:
        facts.append(Fact("dump level", dump_level(header.dump_level)))
    facts.append(Fact("memory", _amounts(header, kept)))
    facts.append(Fact("notes", _notes(header)))
    if when := crash_time(header):
        facts.append(Fact("crashed", when))
    return facts


def _format(header: DumpHeader) -> str:
    version = "" if header.header_version is None else f" version {header.header_version}"
    compression = {None: "", "none": ", not compressed"}.get(header.compression, f", {header.compression}")
    return "".join(
        [
            f"{header.format.value}{version}{compression}",
            ", flattened" if header.flattened else "",
            f", {count(len(header.split), 'split part')}" if header.split else "",
            f", {count(len(header.segments), 'PT_LOAD segment')}" if header.format is Format.ELF else "",
            f", written by {header.producer.value}",
            ", marked incomplete by makedumpfile" if header.incomplete else "",
        ]
    )


def dump_level(level: int) -> str:
    """``31: without zero, cache, private cache, user and free pages``."""
    without = [pages for bit, pages in DUMP_LEVEL.items() if level & bit]
    return f"{level}: without {joined(without)} pages" if without else f"{level}: every page kept"


def _amounts(header: DumpHeader, kept: Memory) -> str:
    parts = [
        f"{size(kept.size(each))} {FATE[each]}"
        for each in DESCRIBED
        if kept.fates[each] and not (header.forecast and each is Fate.STORED)
    ]
    none = "" if header.forecast else ": none"
    return f"{size(header.described.size)} described{': ' + ', '.join(parts) if parts else none}"


def _notes(header: DumpHeader) -> str:
    told = f"registers of {count(len(header.cpu_notes), 'CPU')} (NT_PRSTATUS)"
    vmcoreinfo = len(header.vmcoreinfo_notes)
    infos = {0: "no VMCOREINFO", 1: "VMCOREINFO"}.get(vmcoreinfo, f"{vmcoreinfo} times VMCOREINFO")
    return f"{told}, {infos}"


def crash_time(header: DumpHeader) -> str:
    """UTC, from VMCOREINFO's CRASHTIME or the file's timestamp; empty where neither tells."""
    told = header.vmcoreinfo.get("CRASHTIME", "")
    seconds = int(told) if told.isascii() and told.isdigit() and len(told) < 12 else header.timestamp or 0
    return _utc(seconds) if seconds > 0 else ""


def _utc(seconds: float) -> str:
    """Empty for a time that no calendar has."""
    try:
        when = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    except (OverflowError, ValueError, OSError):
        return ""
    return when.strftime("%Y-%m-%d %H:%M:%S UTC")


def kernel_facts(report: Report) -> list[Fact]:
    topology = report.topology
    facts = [Fact("asked", topology.source), Fact("release", _told(topology.release))]
    if not isinstance(topology.build_id, Unknown):
        facts.append(Fact("build ID", topology.build_id))
    for account in accounts(topology):
        facts.append(Fact(account.structure, f"{size(account.ram.size)}, {_how_whole(account)}"))
    nodes = by_node(report) or []
    facts += [Fact(f"NUMA node {node.node}", node_memory(node)) for node in nodes if len(nodes) > 1]
    facts.append(Fact("CPUs", _cpu_masks(topology)))
    if not isinstance(topology.crash_image, Unknown):
        facts.append(Fact("crash image", _crash_image(topology.crash_image)))
    if topology.faults:
        facts.append(Fact("faults", _faults(topology.faults)))
    facts += [Fact("remark", remark) for remark in topology.remarks]
    return facts


def _told(fact: str | Unknown) -> str:
    return f"not known: {fact.why}" if isinstance(fact, Unknown) else fact


def _how_whole(account: MemoryAccount) -> str:
    return "read whole" if account.complete else f"read in part: {count(len(account.unread), 'place')} unread"


def accounts(topology: Topology) -> Iterator[MemoryAccount]:
    """Each structure's account that could be had."""
    for structure in (topology.sections, topology.resources, topology.blocks):
        if not isinstance(structure, Unknown):
            yield structure.account


def _cpu_masks(topology: Topology) -> str:
    masks = {
        "online": topology.online_cpus,
        "present": topology.present_cpus,
        "possible": topology.possible_cpus,
    }
    return "; ".join(
        f"{name} not known" if isinstance(mask, Unknown) else f"{cpu_list(mask) or 'none'} {name}"
        for name, mask in masks.items()
    )


def _faults(faults: Sequence[Fault]) -> str:
    structures = joined(list(dict.fromkeys(fault.structure for fault in faults)))
    return f"{count(len(faults), 'page')} asked for and not in the dump, reading {structures}"


def _crash_image(image: CrashImage | None) -> str:
    if image is None:
        return "no crash kernel was loaded"
    how = {True: "kexec_file_load", False: "kexec_load", None: "loaded"}[image.file_mode]
    kept = {
        True: "the kernel rewrites elfcorehdr on hotplug",
        False: "the kernel was not asked to rewrite elfcorehdr on hotplug",
        None: "this kernel cannot rewrite elfcorehdr on hotplug",
    }[image.hotplug_support]
    return f"{how}, {count(len(image.segments), 'segment')}; {kept}"


# What could not be looked at


def unknown_facts(topology: Topology) -> list[Fact]:
    """Each fact of the kernel that could not be read, by its name in Topology, and why."""
    values = ((field.name, getattr(topology, field.name)) for field in fields(topology))
    return [Fact(name, value.why) for name, value in values if isinstance(value, Unknown)]


def unlooked(report: Report) -> list[Fact]:
    """What the verdict could not rest on: skipped rules by why, and where each account stopped."""
    by_why: dict[str, list[str]] = {}
    for outcome in report.outcomes_in(State.SKIPPED):
        by_why.setdefault(outcome.why, []).append(outcome.rule)
    told = [Fact(", ".join(names), why) for why, names in by_why.items()]
    for account in accounts(report.topology):
        told += [Fact(account.structure, f"stopped: {where}") for where in account.unread]
    return told


def rule_names(report: Report, state: State) -> str:
    return ", ".join(outcome.rule for outcome in report.outcomes_in(state))
