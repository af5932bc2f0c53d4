# SPDX-License-Identifier: LGPL-2.1-or-later
"""Outcomes and evidence -> Diagnosis: which regime was in force, why the dump is as it is, what to do.

The decisions are here, the words of regimes, causes and remedies in regimes.toml. An answer
is certain only where nothing else known to us could have led to the evidence.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from vmcheck.consequences import impact
from vmcheck.diagnosis import Certainty, Comparison, Conclusion, Diagnosis, Step
from vmcheck.errors import plain
from vmcheck.expected import written_since_hot_add
from vmcheck.findings import Finding, Outcome
from vmcheck.header import DumpHeader, Producer
from vmcheck.quantities import count, cpu_list
from vmcheck.ranges import EMPTY, RangeSet
from vmcheck.rules import Case
from vmcheck.timeline import log_lines, surely_later, timeline
from vmcheck.topology import CrashImage, Tasks, Topology, Unknown

X86 = ("x86_64", "i386")
CERTAIN, LIKELY, UNKNOWN = Certainty.CERTAIN, Certainty.LIKELY, Certainty.UNKNOWN

RELOADERS = {
    "kdump-config": "debian-try-reload",
    "kdumpctl": "user-space-reload",
    # kdump-udev-throttler; a task's name has 15 characters.
    "kdump-udev-thro": "rhel-throttled-reload",
    "kexec": "user-space-reload",
}
"""Tasks that load a crash kernel, and whose they are."""
UDEV = frozenset({"systemd-udevd", "(udev-worker)", "udevd", "systemd-udevd.s"})
BY_DISTRIBUTION = {
    "debian": "debian-try-reload",
    "ubuntu": "debian-try-reload",
    "rhel": "rhel-throttled-reload",
    "rhel7": "rhel7-per-event-reload",
    "suse": "suse-reload",
}
KERNEL_RANGES = 8192
"""CONFIG_CRASH_MAX_MEMORY_RANGES: what an elfcorehdr that the kernel rewrites has room for."""
KEXEC_TOOLS_RANGES = 32768
"""CRASH_MAX_MEMORY_RANGES of kexec-tools on x86; more are dropped without a word."""


def diagnose(case: Case, outcomes: Sequence[Outcome], witnesses: tuple[Comparison, ...] = ()) -> Diagnosis:
    """Why, since when, at what cost, and what to do. Pure."""
    regime = update_regime(case)
    found = {outcome.rule: outcome.findings for outcome in outcomes if outcome.findings}
    causes = tuple(_merged(_causes(case, found)))
    if not causes:
        return Diagnosis(regime, witnesses=witnesses)
    told = timeline(case)
    cost = impact(case, found)
    return Diagnosis(
        regime,
        causes,
        told,
        cost,
        tuple(_next_dump(case, causes)),
        tuple(_this_dump(case, found)),
        witnesses,
    )


# The regime


def update_regime(case: Case) -> Conclusion:
    """Which mechanism was to keep elfcorehdr fresh."""
    if case.header.producer is Producer.HYPERVISOR:
        return Conclusion(
            "hypervisor",
            "the hypervisor wrote this dump: its headers cannot be stale",
            CERTAIN,
            (
                "its notes are QEMU's, and VMCOREINFO has no CRASHTIME",
                *(
                    ["no crash kernel was loaded: the kernel itself could have left no dump at that moment"]
                    if case.topology.crash_image is None
                    else []
                ),
            ),
        )
    if case.header.machine == "s390x":
        return Conclusion(
            "capture-kernel",
            "the capture kernel built elfcorehdr after the crash: it cannot be stale",
            CERTAIN,
            ("the machine is s390x",),
        )
    image = case.topology.crash_image
    if isinstance(image, CrashImage) and image.hotplug_support:
        how = "kexec_file_load" if image.file_mode else "kexec_load --hotplug"
        updated = {True: "has tried at least once", False: "has not tried since the load"}
        return Conclusion(
            "in-kernel-file-load" if image.file_mode else "in-kernel-kexec-load",
            f"the kernel was to rewrite elfcorehdr on hotplug; it was loaded by {how}",
            CERTAIN,
            (
                "kexec_crash_image has hotplug_support set"
                + ("" if image.file_mode is None else f" and file_mode {int(image.file_mode)}"),
                *(
                    [f"elfcorehdr_updated: the kernel {updated[image.elfcorehdr_updated]}"]
                    if image.elfcorehdr_updated is not None
                    else []
                ),
            ),
        )
    kernel_out, why = _not_the_kernel(case)
    if not kernel_out:
        return Conclusion(
            "unknown-regime", "whether the kernel kept elfcorehdr fresh could not be told", UNKNOWN, why
        )
    return _user_space_regime(case, distribution(case), why)


def _not_the_kernel(case: Case) -> tuple[bool, tuple[str, ...]]:
    """Whether it is known that the kernel did not rewrite elfcorehdr, and by what."""
    image, able = case.topology.crash_image, case.topology.crash_hotplug
    if isinstance(image, CrashImage):
        if image.hotplug_support is False:
            return True, ("kexec_crash_image has hotplug_support clear: the kernel was not asked to update",)
        return True, ("kexec_crash_image has no hotplug_support: this kernel cannot update elfcorehdr",)
    if able is False:
        return True, ("the kernel has no crash_handle_hotplug_event(): it cannot update elfcorehdr",)
    if low_memory_described(case.header):
        # The kernel's own headers leave out the first MiB: elf_header_exclude_ranges().
        return True, ("the first MiB is described, which only kexec-tools does: the kernel never rewrote it",)
    why = image.why if isinstance(image, Unknown) else "no crash kernel was loaded"
    return False, (plain(why),)


def low_memory_described(header: DumpHeader) -> bool:
    """x86 headers by kexec-tools have memory below 1 MiB, those by the kernel have not."""
    return header.machine in X86 and bool(header.described & RangeSet([(0, 1 << 20)]))


def reloading(topology: Topology) -> tuple[str, ...]:
    """Names of tasks that were loading a crash kernel when this one crashed."""
    if isinstance(topology.tasks, Unknown):
        return ()
    return tuple(sorted({task.name for task in topology.tasks.tasks if task.name in RELOADERS}))


def _regime_of(caught: Iterable[str], distribution: str) -> str:
    """Whose these tasks are. RHEL 7 and later ones share the name of kdumpctl, and not how it is called."""
    regimes = {RELOADERS[name] for name in caught}
    if "kdumpctl" in caught and distribution.startswith("rhel"):
        regimes.add(BY_DISTRIBUTION[distribution])
    regimes.discard("user-space-reload")
    return regimes.pop() if len(regimes) == 1 else "user-space-reload"


def _user_space_regime(case: Case, name: str, why: tuple[str, ...]) -> Conclusion:
    topology = case.topology
    if caught := reloading(topology):
        regime = _regime_of(caught, name)
        seen = f"caught in the act: {', '.join(caught)}"
        certainty = LIKELY if regime == "user-space-reload" else CERTAIN
        return Conclusion(
            regime, "user space was reloading the crash kernel at the crash", certainty, (seen, *why)
        )
    tasks = topology.tasks
    text = "not the kernel: user space was to reload the crash kernel, or nothing was"
    if since := written_since_hot_add(case.header, topology):
        text = "user space loaded the crash kernel after memory was added; whether on events is not known"
        why += ("memory that was added after boot is described",)
    if isinstance(tasks, Unknown):
        return Conclusion("unknown-regime", text, UNKNOWN, (*why, plain(tasks.why)))
    names = {task.name for task in tasks.tasks}
    number = count(len(tasks.tasks), "task")
    if names & UDEV and name in BY_DISTRIBUTION:
        return Conclusion(
            BY_DISTRIBUTION[name],
            "user space was to reload the crash kernel on events, if kdump's udev rules were installed",
            LIKELY,
            (*why, "a udev daemon was running", f"the kernel is {name}'s"),
        )
    if not since and not names & UDEV and any(task.pid == 1 for task in tasks.tasks):
        return Conclusion(
            "no-update",
            "nothing was to keep elfcorehdr fresh",
            LIKELY,
            (
                *why,
                f"no udev daemon among {number}, nor anything that loads a crash kernel",
                *(["not every task could be read"] if tasks.unread else []),
            ),
        )
    return Conclusion("unknown-regime", text, UNKNOWN, (*why, *(plain(line) for line in tasks.unread[:2])))


def distribution(case: Case) -> str:
    """``debian``, ``ubuntu``, ``rhel``, ``rhel7``, ``suse`` or ``unknown``."""
    release = case.topology.release if isinstance(case.topology.release, str) else ""
    banner = case.topology.banner if isinstance(case.topology.banner, str) else ""
    banner += " " + " ".join(case.header.utsname)
    for each in _table()["distribution"]:
        if "banner" in each and each["banner"] in banner:
            return str(each["name"])
        if "release" in each and re.search(each["release"], release):
            return str(each["name"])
    return "unknown"


# The causes

Found = Mapping[str, tuple[Finding, ...]]


def _causes(case: Case, found: Found) -> Iterator[Conclusion]:
    """One for each kind of finding, worst first."""
    if "no-crash-kernel" in found:
        yield _no_crash_kernel(case, found["no-crash-kernel"])
    if "undescribed-ram" in found:
        yield replace(_missing_memory(case, _ranges(found["undescribed-ram"])), rules=("undescribed-ram",))
    if "undescribed-boot-ram" in found:
        lost = _ranges(found["undescribed-boot-ram"])
        yield replace(_missing_boot_memory(case, lost), rules=("undescribed-boot-ram",))
    if "cpu-without-note" in found:
        others = tuple(rule for rule in ("notes-shifted",) if rule in found)
        cpus = tuple(cpu for finding in found["cpu-without-note"] for cpu in finding.cpus)
        yield replace(_missing_notes(case, cpus), rules=("cpu-without-note", *others))
    if "cpu-never-saved" in found:
        cpus = tuple(cpu for finding in found["cpu-never-saved"] for cpu in finding.cpus)
        yield Conclusion(
            "cpu-never-answered",
            f"{cpus_were(cpus)} online and did not answer the crash",
            CERTAIN,
            ("crash_notes is empty, and cpu_online_mask has it",),
            ("cpu-never-saved",),
        )
    if "incomplete-flag" in found:
        yield Conclusion(
            "capture-out-of-space",
            "makedumpfile ran out of space and said so",
            CERTAIN,
            tuple(line for finding in found["incomplete-flag"] for line in finding.evidence),
            tuple(rule for rule in ("incomplete-flag", "truncated-file") if rule in found),
        )
    elif "truncated-file" in found:
        yield Conclusion(
            "file-cut-short",
            "the capture was cut off, or a copy of its file was",
            LIKELY,
            tuple(line for finding in found["truncated-file"] for line in finding.evidence),
            ("truncated-file",),
        )
    if "kernel-data-filtered" in found:
        yield Conclusion(
            "makedumpfile-too-old",
            "makedumpfile does not know this kernel's struct pages",
            LIKELY,
            tuple(line for finding in found["kernel-data-filtered"] for line in finding.evidence[-1:]),
            ("kernel-data-filtered",),
        )
    if "described-without-ram" in found:
        yield replace(_phantom(case, found["described-without-ram"]), rules=("described-without-ram",))


def _merged(causes: Iterable[Conclusion]) -> Iterator[Conclusion]:
    """Causes of one name and certainty are one cause."""
    kept: dict[tuple[str, Certainty], Conclusion] = {}
    for cause in causes:
        key = cause.name, cause.certainty
        if before := kept.get(key):
            cause = replace(
                before,
                text=_both(before.text, cause.text),
                evidence=tuple(dict.fromkeys(before.evidence + cause.evidence)),
                rules=before.rules + cause.rules,
            )
        kept[key] = cause
    return iter(kept.values())


def _no_crash_kernel(case: Case, findings: Sequence[Finding]) -> Conclusion:
    evidence = tuple(line for finding in findings for line in finding.evidence)
    if caught := reloading(case.topology):
        evidence += (f"loading a crash kernel just now: {', '.join(caught)}",)
    return Conclusion(
        "no-crash-kernel", "no crash kernel was loaded", CERTAIN, evidence, ("no-crash-kernel",)
    )


def _both(first: str, second: str) -> str:
    """``memory and CPU 2 were added...`` where two sentences differ in their subject alone."""
    one, two = (re.fullmatch(r"(.*?) (?:was|were) (.*)", text) for text in (first, second))
    if one and two and one[2] == two[2]:
        return first if one[1] == two[1] else f"{one[1]} and {two[1]} were {one[2]}"
    return first if first == second else f"{first}; {second}"


def _ranges(findings: Iterable[Finding]) -> RangeSet:
    lost = EMPTY
    for finding in findings:
        lost |= finding.ranges
    return lost


def _missing_memory(case: Case, lost: RangeSet) -> Conclusion:
    """Hot-added memory that is not described."""
    limits = _limit_hit(case)
    policy = _driver_policy(case, lost)
    stale = _stale(case, "memory was", "sections that lack SECTION_IS_EARLY were added after boot")
    if stale.name.startswith("kernel-update") or stale.name == "unknown-cause":
        return limits or stale
    if policy is not None and policy.certainty is CERTAIN:
        return policy
    if limits is not None:
        return limits
    resources = case.topology.resources
    if stale.certainty is CERTAIN and (
        policy is not None or isinstance(resources, Unknown) or not resources.account.complete
    ):
        doubt = policy.evidence if policy else ("iomem_resource could not be read to its end",)
        return replace(stale, certainty=LIKELY, evidence=(*stale.evidence, *doubt))
    return stale


def _stale(case: Case, what: str, fact: str) -> Conclusion:
    """Why a header lacks what came after it was written. ``fact`` says that it did come later."""
    image, able = case.topology.crash_image, case.topology.crash_hotplug
    if isinstance(image, CrashImage) and image.hotplug_support:
        return _kernel_update(case, image)
    kernel_out, why = _not_the_kernel(case)
    if caught := reloading(case.topology):
        return Conclusion(
            "reload-window",
            f"{what} added, and the crash came before the crash kernel was loaded again",
            LIKELY,
            (f"loading a crash kernel at the crash: {', '.join(caught)}", fact, *why),
        )
    if not kernel_out:
        return Conclusion(
            "unknown-cause",
            f"{what} added after elfcorehdr was last written; what was to update it is not known",
            UNKNOWN,
            (fact, *why),
        )
    certainty = CERTAIN if isinstance(image, CrashImage) or able is False else LIKELY
    if (isinstance(image, CrashImage) and image.hotplug_support is False) or able is True:
        if isinstance(image, CrashImage) and image.file_mode:
            # kexec_file_load sets hotplug_support wherever the kernel has it.
            return Conclusion(
                "unknown-cause",
                "kexec_crash_image contradicts itself: file_mode is set and hotplug_support clear",
                UNKNOWN,
                (fact, *why),
            )
        return Conclusion(
            "loaded-without-hotplug",
            f"{what} added after the last load; the kernel could update elfcorehdr and was not asked to",
            certainty,
            (fact, *why),
        )
    return Conclusion(
        "added-after-load",
        f"{what} added after the crash kernel was last loaded, and the kernel cannot update elfcorehdr",
        certainty,
        (fact, *why),
    )


def _kernel_update(case: Case, image: CrashImage) -> Conclusion:
    """Why a header that the kernel itself keeps fresh is stale: its log may say."""
    said = [plain(line) for line in log_lines(case.topology, "crash hp: ")]
    failed = [line for line in said if "trylock" not in line]
    if failed:
        return Conclusion(
            "kernel-update-failed",
            "the kernel could not update elfcorehdr, and said so",
            CERTAIN,
            (*failed[-3:],),
        )
    if said:
        return Conclusion(
            "kernel-update-skipped",
            "the kernel skipped an update of elfcorehdr: a crash kernel was just being loaded",
            LIKELY,
            (*said[-3:],),
        )
    tried = "tried at least once" if image.elfcorehdr_updated else "did not try since the load"
    return Conclusion(
        "unknown-cause",
        "the kernel was to keep elfcorehdr fresh, and it is stale all the same",
        UNKNOWN,
        (
            f"elfcorehdr_updated: the kernel {tried}",
            'its log has no "crash hp:" line'
            if isinstance(case.topology.log, str)
            else "its log could not be read",
        ),
    )


def _limit_hit(case: Case) -> Conclusion | None:
    """Whether the header has as many ranges as its builder can hold."""
    image, ranges = case.topology.crash_image, len(case.header.described)
    limit = KEXEC_TOOLS_RANGES
    if isinstance(image, CrashImage) and image.file_mode:
        limit = KERNEL_RANGES
    # Adjacent ranges are one in the dump's headers, so a few may be hidden.
    if ranges < limit - 16:
        return None
    return Conclusion(
        "header-limits",
        f"the header has {ranges} ranges of memory, as many as it can",
        LIKELY,
        (f"{limit} are possible",),
    )


def _driver_policy(case: Case, lost: RangeSet) -> Conclusion | None:
    """Whether kexec-tools may have left out all of this memory because it is a driver's."""
    resources, image = case.topology.resources, case.topology.crash_image
    if isinstance(resources, Unknown) or (isinstance(image, CrashImage) and image.file_mode):
        return None
    theirs = resources.driver_managed
    if not theirs or lost - theirs or case.header.described & theirs:
        return None
    exact = case.header.machine in ("aarch64", "riscv64", "loongarch64", "arm")
    return Conclusion(
        "driver-managed-policy",
        "kexec-tools leaves memory of drivers out, however fresh the header",
        CERTAIN if exact and isinstance(image, CrashImage) and image.file_mode is False else LIKELY,
        (
            "all of it is memory of a driver: kmem, virtio_mem or the like"
            + ("" if exact else ", which kexec-tools before 2.0.22 left out"),
        ),
    )


def _missing_boot_memory(case: Case, lost: RangeSet) -> Conclusion:
    if limits := _limit_hit(case):
        return limits
    if policy := _driver_policy(case, lost):
        return policy
    return Conclusion(
        "unknown-cause",
        "the memory was there at boot, so this is not hotplug; why the header lacks it could not be told",
        UNKNOWN,
        ("possible: offline at the load, a limit of the tool that built the header, an edited header",),
    )


def cpus_were(cpus: Sequence[int]) -> str:
    return f"CPU {cpus[0]} was" if len(cpus) == 1 else f"CPUs {cpu_list(cpus)} were"


def _missing_notes(case: Case, cpus: Sequence[int]) -> Conclusion:
    """CPUs that saved their registers and that the header does not name."""
    fact = f"no note has the registers that CPU {cpu_list(cpus)} saved"
    stale = _stale(case, cpus_were(cpus), fact)
    if stale.name not in ("added-after-load", "loaded-without-hotplug") or stale.certainty is not CERTAIN:
        return stale
    if not surely_later(case).issuperset(cpus):
        doubt = (
            "a CPU with a lower number has no note either, so kexec-tools may have stopped counting "
            "before it came to this one"
        )
        return replace(stale, certainty=LIKELY, evidence=(*stale.evidence, doubt))
    return stale


def _phantom(case: Case, findings: Sequence[Finding]) -> Conclusion:
    """Memory that is described and that the kernel did not have."""
    image = case.topology.crash_image
    evidence = tuple(line for finding in findings for line in finding.evidence)
    gone = any("no section is present" in line for line in evidence)
    if isinstance(image, CrashImage) and image.hotplug_support:
        said = log_lines(case.topology, "crash hp: ")
        sure = (
            case.header.machine in X86
            and bool(image.elfcorehdr_updated)
            and isinstance(case.topology.log, str)
            and not said
        )
        return Conclusion(
            "phantom-after-remove",
            "memory was removed; the kernel rewrote elfcorehdr while the resource was still there",
            CERTAIN if sure and gone else LIKELY,
            (
                *evidence,
                "elfcorehdr_updated is set" if image.elfcorehdr_updated else "elfcorehdr_updated is clear",
            ),
        )
    kernel_out, why = _not_the_kernel(case)
    return Conclusion(
        "removed-after-load",
        "memory was removed after the crash kernel was last loaded, and nothing rewrote elfcorehdr since",
        CERTAIN if gone and kernel_out and isinstance(image, CrashImage) else LIKELY,
        (*evidence, *why),
    )


# The remedy


def _next_dump(case: Case, causes: Sequence[Conclusion]) -> Iterator[Step]:
    names = {cause.name for cause in causes}
    facts = {
        "distributions": distribution(case),
        "kernel_updates": _kernel_updates(case.topology),
        "machines": case.header.machine,
    }
    for remedy in _table()["remedy"]:
        if not names & set(remedy["causes"]):
            continue
        if all(key not in remedy or _fits(remedy[key], fact) for key, fact in facts.items()):
            yield Step(remedy["text"], tuple(remedy.get("commands", ())))


def _fits(wanted: Any, fact: Any) -> bool:
    return fact in wanted if isinstance(wanted, list) else bool(wanted == fact)


def _kernel_updates(topology: Topology) -> bool | None:
    """Whether the kernel has CONFIG_CRASH_HOTPLUG; None: not known."""
    image = topology.crash_image
    if isinstance(image, CrashImage):
        return image.hotplug_support is not None
    return None if isinstance(topology.crash_hotplug, Unknown) else topology.crash_hotplug


def _this_dump(case: Case, found: Found) -> Iterator[Step]:
    """What can still be done with what there is."""
    log = case.topology.log
    if {"undescribed-ram", "undescribed-boot-ram", "truncated-file", "incomplete-flag"} & set(found):
        tasks = case.topology.tasks
        lost = isinstance(tasks, Tasks) and tasks.crashed in tasks.lost
        if lost and isinstance(log, str) and "Call Trace:" in log:
            yield Step(
                "the kernel log has the call trace of the crash, which the dump's stacks no longer give",
                ("crash> log", "drgn: print(get_dmesg(prog).decode())"),
            )
    if "cpu-without-note" in found:
        cpus = [cpu for finding in found["cpu-without-note"] for cpu in finding.cpus]
        yield Step(
            f"the registers of CPU {cpu_list(cpus)} are in the dump's memory: drgn takes them from there",
            (f"drgn: prog.stack_trace(cpu_curr(prog, {cpus[0]}))",),
        )
    if "undescribed-ram" in found or "undescribed-boot-ram" in found:
        yield Step(
            "the missing memory was never read and cannot be had back from this file; a snapshot of the "
            "virtual machine, or another dump of the same crash, would be the only source"
        )
    if "described-without-ram" in found:
        yield Step("take nothing for memory that a tool reads from the ranges that were removed")
    if "truncated-file" in found:
        yield Step("compare the file's size with the original's before anything else, and copy it again")


# What regimes.toml holds


class Explanation(NamedTuple):
    """What ``vmcheck explain NAME`` prints of a regime or a cause."""

    name: str
    title: str
    text: str


def explanations() -> Mapping[str, Explanation]:
    """Every regime and cause by name, regimes first."""
    told = {}
    for each in (*_table()["regime"], *_table()["cause"]):
        parts = [each["text"].strip()]
        if "window" in each:
            parts.append(f"Stale for: {each['window']}.")
        if "example" in each:
            parts.append(f"Example: {each['example'].strip()}")
        told[each["name"]] = Explanation(each["name"], each["title"], "\n\n".join(parts))
    return told


@lru_cache(maxsize=1)
def _table() -> Mapping[str, Any]:
    # Here, for tomllib is a hundredth of a second that a healthy dump need not spend.
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(Path(__file__).with_name("regimes.toml").read_text("utf-8"))
