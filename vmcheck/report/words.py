# SPDX-License-Identifier: LGPL-2.1-or-later
"""The phrases that all renderers share."""

from __future__ import annotations

import datetime
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import PurePath
from typing import NamedTuple

from vmcheck.check import Report, Verdict
from vmcheck.facts.body import Body, Verified
from vmcheck.facts.diagnosis import Certainty, Comparison, Conclusion, Diagnosis, Effect, Event, Timeline, Use
from vmcheck.facts.findings import Finding, Severity, State
from vmcheck.facts.header import DumpHeader, Format, Producer
from vmcheck.facts.quantities import address_range as address_range
from vmcheck.facts.quantities import count as count
from vmcheck.facts.quantities import cpu_list as cpu_list
from vmcheck.facts.quantities import size as size
from vmcheck.facts.ranges import RangeSet
from vmcheck.facts.topology import CrashImage, Fault, MemoryAccount, Task, Topology, Unknown
from vmcheck.report.cpus import Registers
from vmcheck.report.memory import Fate, Memory
from vmcheck.report.nodes import NodeMemory, Nodes, by_node, nodes_of

VERDICT: Mapping[Verdict, str] = {verdict: verdict.value.upper() for verdict in Verdict}

UNREADABLE = "UNREADABLE"
"""Instead of a verdict."""

FATE: Mapping[Fate, str] = {
    Fate.MISSING: "missing",
    Fate.DROPPED: "dropped",
    Fate.PHANTOM: "phantom",
    Fate.UNDESCRIBED: "not described",
    Fate.EXCLUDED: "excluded by design",
    Fate.ELSEWHERE: "in parts not given",
    Fate.FILTERED: "filtered",
    Fate.STORED: "stored",
}

DESCRIBED = (Fate.STORED, Fate.FILTERED, Fate.ELSEWHERE, Fate.PHANTOM, Fate.DROPPED)

KIND: Mapping[str, str] = {fate.value: name for fate, name in FATE.items()} | {"described": "described"}
"""The fates as the memory map has them: stored and filtered are drawn as one."""

FATE_AT_LENGTH: Mapping[Fate, str] = {
    Fate.MISSING: "the kernel had it and the dump does not",
    Fate.DROPPED: "described, but its bytes are missing",
    Fate.PHANTOM: "described, but the kernel had no RAM there",
    Fate.UNDESCRIBED: "System RAM in no header, and no rule calls it missing",
    Fate.EXCLUDED: "System RAM that no healthy header describes",
    Fate.ELSEWHERE: "stored in parts of the split dump that were not given",
    Fate.FILTERED: "described, and dropped on purpose by makedumpfile",
    Fate.STORED: "described, and its bytes are in the file",
}


def fate(each: Fate, forecast: bool) -> str:
    return "described" if forecast and each is Fate.STORED else FATE[each]


def fate_at_length(each: Fate, forecast: bool) -> str:
    expected = {Fate.MISSING: "the kernel has it and a dump would not", Fate.STORED: "a dump would have it"}
    return (expected if forecast else {}).get(each, FATE_AT_LENGTH[each])


REGISTERS: Mapping[Registers, str] = {
    Registers.LOST: "never saved",
    Registers.RECOVERABLE: "recoverable",
    Registers.DOUBTFUL: "doubtful",
    Registers.UNKNOWN: "unknown",
    Registers.PRESENT: "in the dump",
    Registers.OFFLINE: "offline",
}

REGISTERS_AT_LENGTH: Mapping[Registers, str] = {
    Registers.LOST: "neither in the notes nor in memory",
    Registers.RECOVERABLE: "in no note, but still in the dump's memory",
    Registers.DOUBTFUL: "in the dump, but tools misread them",
    Registers.UNKNOWN: "the CPU was online; whether it saved its registers could not be read",
    Registers.PRESENT: "the notes have them",
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

RECOVERABLE = "recoverable: what the headers lack is still in the dump's memory"

DUMP_LEVEL = {
    1: "zero",
    2: "cache",
    4: "private cache",
    8: "user",
    16: "free",
}
"""The bits of makedumpfile -d: which pages it drops."""


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
    """``0-2, 5``, cut after :data:`RUNS_SHOWN`."""
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
    """Counts what is described, not what is stored: filtered memory is not missing."""
    parts = []
    ram, online = report.topology.system_ram, report.topology.online_cpus
    if not isinstance(ram, Unknown):
        parts.append(f"all {size((ram & report.header.described).size)} of RAM that it should")
    crashed = report.header.producer is not Producer.KCORE
    if crashed and not isinstance(online, Unknown) and not isinstance(report.topology.saved_notes, Unknown):
        parts.append(f"the registers of {_every(len(online))}")
    if report.forecast:
        # Where there is nothing to compare, the capture kernel makes elfcorehdr.
        whole = f"a dump of {joined(parts)}" if parts else "a dump, and its header is made after the crash"
        return f"a crash now would leave {whole}"
    if not parts:
        looked = report.outcomes_in(State.CLEAN) + report.outcomes_in(State.FOUND)
        return f"nothing is missing by the {count(len(looked), 'rule')} that apply"
    return f"this dump describes {joined(parts)}"


def _every(online: int) -> str:
    return {1: "the only online CPU", 2: "both online CPUs"}.get(online, f"all {online:,} online CPUs")


def _incomplete(report: Report) -> str:
    """The root of what is broken; then memory and registers; other findings are counted."""
    missing = _would_be_missing(report) if report.forecast else _missing(report)
    root = [*report.broken[:1], *([] if missing else report.of(Severity.LOST))][:1]
    described = report.header.described
    others = [
        finding
        for finding in report.findings
        if finding.severity is not Severity.NOTICE
        and finding not in root
        and not (finding.severity is Severity.LOST and (finding.ranges - described or finding.cpus))
    ]
    more = [count(len(others), "more finding")] if others else []
    return "; ".join([*(finding.summary for finding in root), *missing, *more])


def _missing(report: Report) -> list[str]:
    """What is missing, in one clause; nothing where no memory and no registers are."""
    parts = []
    if memory := _missing_memory(report):
        parts.append(f"{memory} is missing")
    recoverable = {cpu for finding in report.of(Severity.LOST) if finding.recoverable for cpu in finding.cpus}
    lost = [cpu for cpu in report.lost_cpus if cpu not in recoverable]
    if lost:
        parts.append(f"the registers of {cpus(lost)} are missing")
    if recoverable:
        one = len(recoverable) == 1
        note, its = ("has no register note", "its") if one else ("have no register notes", "their")
        parts.append(f"{cpus(sorted(recoverable))} {note} ({its} registers are still in memory)")
    return [", and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))] if parts else []


def _missing_memory(report: Report) -> str:
    """``128 MiB of 639 MiB RAM``. Memory that is described is in its finding, and not counted."""
    ram = report.topology.system_ram
    if not report.lost_memory:
        return ""
    # Where iomem_resource was read in part, it may have less than what is missing.
    of = "" if isinstance(ram, Unknown) or report.lost_memory - ram else f" of {size(ram.size)}"
    return f"{size(report.lost_memory.size)}{of} RAM"


def _would_be_missing(report: Report) -> list[str]:
    registers = f"the registers of {cpus(report.lost_cpus)}" if report.lost_cpus else ""
    parts = [part for part in (_missing_memory(report), registers) if part]
    return [f"{joined(parts)} would not be in a dump if this kernel crashed now"] if parts else []


def _misleading(report: Report) -> str:
    found = report.of(Severity.WRONG)
    root = [finding for finding in report.broken if finding in found][:1]
    return _first_of([*root, *(finding for finding in found if finding not in root)])


def _first_of(findings: Sequence[Finding]) -> str:
    more = f"; {count(len(findings) - 1, 'more finding')}" if len(findings) > 1 else ""
    return findings[0].summary + more


def _could_not_tell(report: Report) -> str:
    """Names the reason that stops the most rules."""
    skipped = report.outcomes_in(State.SKIPPED)
    ((why, _),) = Counter(outcome.why for outcome in skipped).most_common(1)
    unseen = f"{len(skipped)} of {count(len(report.outcomes), 'rule')} could not look: {why}"
    return unseen if report.findings else f"nothing wrong was seen, but {unseen}"


# A finding


def extents(finding: Finding, nodes: Nodes, most: int = RANGES_SHOWN) -> Iterator[str]:
    """The exact ranges and CPUs of a finding, one line each, with the NUMA node where there are several.

    ``most`` ranges are shown, and the rest counted.
    """
    if finding.ranges:
        yield from _ranges(finding.ranges, nodes, most)
    if finding.cpus:
        yield listed_cpus(finding.cpus)


def _ranges(ranges: RangeSet, nodes: Nodes, most: int) -> Iterator[str]:
    # "and 1 more range" would take the line that the range itself would.
    shown = list(itertools.islice(ranges, most if len(ranges) > most + 1 else len(ranges)))
    texts = [address_range(*bounds) for bounds in shown]
    for text, (start, end) in zip(texts, shown, strict=True):
        facts = [size(end - start), *on_nodes(RangeSet([(start, end)]), nodes)]
        yield f"{text:{max(map(len, texts))}}  {', '.join(facts)}"
    if hidden := len(ranges) - len(shown):
        left = ranges.size - sum(end - start for start, end in shown)
        yield f"and {count(hidden, 'more range')}, {size(left)}"


def on_nodes(ranges: RangeSet, nodes: Nodes) -> list[str]:
    """``node 1``, ``nodes 0-1``; nothing where the nodes are unknown or only one."""
    numbers = nodes_of(ranges, nodes)
    return [f"node{'' if len(numbers) == 1 else 's'} {cpu_list(numbers)}"] if numbers else []


def node_memory(each: NodeMemory) -> str:
    """``384 MiB, 128 MiB of it missing``."""
    missing = "all" if each.missing == each.ram else size(each.missing)
    return size(each.ram) + (f", {missing} of it missing" if each.missing else "")


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
REGIME = "Update mechanism"
"""What keeps elfcorehdr up to date. Instead of WHY, where no cause is to be named."""
COST = "What it costs"
REMEDY = "What to do"
NEXT_DUMP = "So that the next dump is whole"
THIS_DUMP = "With this dump"
EXCLUDED = "Excluded by design"
RECORDS = "Records compared"
PAGES = "Its pages"
UNLOOKED = "Could not look"


def why_title(diagnosis: Diagnosis | None) -> str:
    return WHY if diagnosis and diagnosis.causes else REGIME


def in_short(diagnosis: Diagnosis) -> list[Fact]:
    """Why, what it costs and what to do, in one sentence each."""
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
    """Each event's wall clock in UTC, with its date where that changes; empty where it is unknown."""
    texts, today = [], ""
    for event in timeline.events:
        stamp = "" if timeline.boot is None or event.seconds is None else _utc(timeline.boot + event.seconds)
        date, _, clock = stamp.partition(" ")
        texts.append(clock if date == today else stamp)
        today = date or today
    return texts


class Outlook(NamedTuple):
    """What some commands do on this dump."""

    use: Use
    doubt: str
    commands: Mapping[str, Sequence[str]]
    """By tool."""
    why: str
    """Empty for safe ones."""


def outlooks(effects: Sequence[Effect]) -> list[Outlook]:
    """Commands of one outlook together. A safe command needs no reason."""
    found: dict[tuple[Use, str, str], dict[str, list[str]]] = {}
    for effect in effects:
        why = "" if effect.use is Use.SAFE else effect.why
        tools = found.setdefault((effect.use, doubt(effect.certainty), why), {})
        tools.setdefault(effect.tool, []).append(effect.command)
    return [Outlook(use, doubtful, tools, why) for (use, doubtful, why), tools in found.items()]


def percent(share: float) -> str:
    """``99.9 %``. Only nothing is 0 %, and only all is 100 %."""
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
    """Stands beside an answer; empty where it is certain."""
    return {Certainty.CERTAIN: "", Certainty.LIKELY: "likely", Certainty.UNKNOWN: "could not tell"}[certainty]


def named(conclusion: Conclusion) -> str:
    """Its name for ``vmcheck explain``, and how certain it is: ``added-after-load (likely)``."""
    unsure = doubt(conclusion.certainty)
    return f"{conclusion.name} ({unsure})" if unsure else conclusion.name


AGREES: Mapping[bool | None, str] = {True: "agrees", False: "disagrees", None: "not compared"}


def compared(comparison: Comparison) -> str:
    """``kernel log, agrees: ...``."""
    return f"{comparison.kind}, {AGREES[comparison.agrees]}: {comparison.text}"


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
    registers = f"registers of {count(len(header.cpu_notes), 'CPU')} (NT_PRSTATUS)"
    vmcoreinfo = len(header.vmcoreinfo_notes)
    infos = {0: "no VMCOREINFO", 1: "VMCOREINFO"}.get(vmcoreinfo, f"{vmcoreinfo} times VMCOREINFO")
    return f"{registers}, {infos}"


def crash_time(header: DumpHeader) -> str:
    """UTC, from VMCOREINFO's CRASHTIME or the file's timestamp; empty where neither is there."""
    text = header.vmcoreinfo.get("CRASHTIME", "")
    seconds = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else header.timestamp or 0
    return _utc(seconds) if seconds > 0 else ""


def _utc(seconds: float) -> str:
    """Empty for a time that no calendar has."""
    try:
        when = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    except (OverflowError, ValueError, OSError):
        return ""
    return when.strftime("%Y-%m-%d %H:%M:%S UTC")


def body_facts(report: Report) -> list[Fact]:
    """How far the pages were looked at; nothing for a kernel that has not crashed."""
    body = report.body
    if report.forecast:
        return []
    if isinstance(body, Unknown):
        return [Fact("pages", f"unknown: {body.why}")]
    facts = [Fact("pages", _pages(body))]
    if body.damaged:
        facts.append(Fact("damaged", f"{size(body.damaged.size)}, {where(body.damaged)}"))
    if body.never_written:
        facts.append(Fact("never written", f"{size(body.never_written.size)}, {where(body.never_written)}"))
    if body.distilled:
        facts.append(Fact("distilled", "the file has only the pages that a check reads"))
    return facts


def _pages(body: Body) -> str:
    if body.verified is not None:
        return _verified(body, body.verified)
    if not body.pages:
        return "an ELF dump has no table of pages: nothing in it says whether a page is right"
    if body.would_have_seen is None:
        return f"{body.pages:,} in the file; their table was read, and none was unpacked"
    if not body.would_have_seen:
        return f"{body.pages:,} in the file, all unpacked"
    seen = percent(body.would_have_seen)
    return f"{body.pages:,} in the file, {body.unpacked:,} unpacked: damage to {seen} of them would show"


def _verified(body: Body, verified: Verified) -> str:
    """What --pages all read, and what it could not verify."""
    if not body.pages:
        holes = f", {size(verified.zeros)} of them holes of the file" if verified.zeros else ""
        return f"{verified.pages:,} read{holes}; an ELF dump has no checksum: their content is not verified"
    text = f"{body.pages:,} in the file, {verified.pages:,} unpacked"
    if left := body.pages - verified.pages:
        text += f"; {left:,} were not"
    if verified.plain:
        text += f"; {verified.plain:,} are not compressed, so nothing verifies their content"
    return text


def kernel_facts(report: Report) -> list[Fact]:
    topology = report.topology
    facts = [Fact("read from", topology.source), Fact("release", _or_why(topology.release))]
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
    facts += [Fact("remark", remark) for remark in (*report.header.remarks, *topology.remarks)]
    return facts


def _or_why(fact: str | Unknown) -> str:
    return f"unknown: {fact.why}" if isinstance(fact, Unknown) else fact


def _how_whole(account: MemoryAccount) -> str:
    return "read whole" if account.complete else f"read in part: {count(len(account.unread), 'place')} unread"


def accounts(topology: Topology) -> Iterator[MemoryAccount]:
    """Each structure's account that could be read."""
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
        f"{name} unknown" if isinstance(mask, Unknown) else f"{cpu_list(mask) or 'none'} {name}"
        for name, mask in masks.items()
    )


def _faults(faults: Sequence[Fault]) -> str:
    structures = joined(list(dict.fromkeys(fault.structure for fault in faults)))
    return f"{count(len(faults), 'page')} not in the dump, read for {structures}"


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
    """Skipped rules by their reason, and where each account stopped if no reason says so already."""
    by_why: dict[str, list[str]] = {}
    for outcome in report.outcomes_in(State.SKIPPED):
        by_why.setdefault(outcome.why, []).append(outcome.rule)
    facts = [Fact(", ".join(names), why) for why, names in by_why.items()]
    for account in accounts(report.topology):
        places = [where for where in account.unread if not any(where in why for why in by_why)]
        facts += [Fact(account.structure, f"stopped: {where}") for where in places]
    return facts


def rule_names(report: Report, state: State) -> str:
    return ", ".join(outcome.rule for outcome in report.outcomes_in(state))
