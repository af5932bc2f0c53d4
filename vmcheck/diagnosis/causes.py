# SPDX-License-Identifier: LGPL-2.1-or-later
"""Case and findings -> causes: why the dump is as it is.

A cause is certain only where nothing else known to us could have led to the evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from vmcheck.diagnosis.explanation import explain
from vmcheck.diagnosis.regimes import kernel_excluded, reloading
from vmcheck.diagnosis.timeline import log_lines, surely_later
from vmcheck.errors import plain
from vmcheck.facts.case import Case
from vmcheck.facts.diagnosis import Cause, Certainty, Conclusion
from vmcheck.facts.findings import Finding
from vmcheck.facts.header import Producer
from vmcheck.facts.quantities import cpu_list
from vmcheck.facts.ranges import EMPTY, RangeSet
from vmcheck.facts.topology import CrashImage, Unknown, known

CERTAIN, LIKELY, UNKNOWN = Certainty.CERTAIN, Certainty.LIKELY, Certainty.UNKNOWN

KERNEL_RANGES = 8192
"""CONFIG_CRASH_MAX_MEMORY_RANGES: what an elfcorehdr that the kernel rewrites has room for."""
EHDR, PHDR = 64, 56
"""sizeof(Elf64_Ehdr), sizeof(Elf64_Phdr)."""

Found = Mapping[str, tuple[Finding, ...]]
"""Findings by rule."""


@dataclass(frozen=True)
class _Cause:
    """A conclusion. Its sentence may begin with what it happened to."""

    name: Cause
    text: str
    """A sentence; where ``memory`` or ``cpus`` is set, what follows ``memory was``."""
    certainty: Certainty
    evidence: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    memory: bool = False
    cpus: frozenset[int] = frozenset()

    def concluded(self) -> Conclusion:
        subjects = ["memory"] if self.memory else []
        if self.cpus:
            subjects.append(f"CPU{'s' if len(self.cpus) > 1 else ''} {cpu_list(self.cpus)}")
        text = self.text
        if subjects:
            was = "were" if len(subjects) > 1 or len(self.cpus) > 1 else "was"
            text = f"{' and '.join(subjects)} {was} {text}"
        return Conclusion(self.name, text, self.certainty, self.evidence, self.rules)

    def unless_seen(self, *doubts: str) -> _Cause:
        """Likely, because of these doubts."""
        return replace(self, certainty=LIKELY, evidence=(*self.evidence, *doubts))


def causes(case: Case, found: Found) -> tuple[Conclusion, ...]:
    """One for each kind of finding, worst first; causes that differ in their subject alone are one."""
    merged: dict[tuple[Cause, Certainty, str], _Cause] = {}
    for cause in _causes(case, found):
        key = cause.name, cause.certainty, cause.text
        if before := merged.get(key):
            cause = replace(
                before,
                memory=before.memory or cause.memory,
                cpus=before.cpus | cause.cpus,
                evidence=tuple(dict.fromkeys(before.evidence + cause.evidence)),
                rules=before.rules + cause.rules,
            )
        merged[key] = cause
    return tuple(cause.concluded() for cause in merged.values())


def _causes(case: Case, found: Found) -> Iterator[_Cause]:
    yield from _broken(found)
    if "no-crash-kernel" in found:
        yield _no_crash_kernel(case, found["no-crash-kernel"])
    if "undescribed-ram" in found:
        yield from _missing_memory(case, _ranges(found["undescribed-ram"]))
    if "undescribed-boot-ram" in found:
        yield _missing_boot_memory(case, _ranges(found["undescribed-boot-ram"]))
    if "cpu-without-note" in found:
        others = tuple(rule for rule in ("notes-shifted",) if rule in found)
        cause = _missing_notes(case, _cpus(found["cpu-without-note"]))
        yield replace(cause, rules=("cpu-without-note", *others))
    if "cpu-never-saved" in found:
        yield _never_answered(_cpus(found["cpu-never-saved"]))
    yield from _cut_short(found)
    if "kernel-data-filtered" in found:
        yield _filtered(found["kernel-data-filtered"])
    if "described-without-ram" in found:
        yield _phantom(case, found["described-without-ram"])


def _ranges(findings: Iterable[Finding]) -> RangeSet:
    missing = EMPTY
    for finding in findings:
        missing |= finding.ranges
    return missing


def _cpus(findings: Iterable[Finding]) -> frozenset[int]:
    return frozenset(cpu for finding in findings for cpu in finding.cpus)


def _evidence(findings: Iterable[Finding]) -> tuple[str, ...]:
    return tuple(line for finding in findings for line in finding.evidence)


# The file itself

explain(
    Cause.STILL_BEING_WRITTEN,
    """The file changed while it was checked

The dump is still being written, copied or cut. What was read before and after the change does not
belong together. Wait until the file is complete, and check it again.
""",
)
explain(
    Cause.PART_NOT_GIVEN,
    """A part of a split dump is missing

makedumpfile --split wrote the dump to several files, and not all of them were given. What the others
hold was not checked. Give all parts; if one is lost, so are its pages.
""",
)
explain(
    Cause.INTERRUPTED_CAPTURE,
    """The capture was stopped before its end

makedumpfile was killed, ran out of memory, hit a watchdog or lost power before it wrote the last pages.
It marks a dump as incomplete only where the disk is full. The end of the page table is empty.
""",
)
explain(
    Cause.DAMAGED_DUMP,
    """The file is damaged

Pages or their descriptions in the file are not what makedumpfile writes: a bad disk, a copy with holes,
or a reset right after the capture. Only the original, or a checksum of it, can show more.
""",
)
BROKEN = {
    "changed-while-read": (Cause.STILL_BEING_WRITTEN, "the dump was still being written or copied", LIKELY),
    "split-part-missing": (Cause.PART_NOT_GIVEN, "not every part of the split dump was given", CERTAIN),
    "capture-interrupted": (Cause.INTERRUPTED_CAPTURE, "the capture was stopped before its end", LIKELY),
    "damaged-pages": (
        Cause.DAMAGED_DUMP,
        "the file was damaged after it was written, or while it was",
        LIKELY,
    ),
}
"""By the rule that found it."""


def _broken(found: Found) -> Iterator[_Cause]:
    for rule, (name, text, certainty) in BROKEN.items():
        if rule in found:
            yield _Cause(name, text, certainty, _evidence(found[rule])[:8], (rule,))


explain(
    Cause.CAPTURE_OUT_OF_SPACE,
    """makedumpfile ran out of space while it wrote the dump

makedumpfile marks such a file and keeps what it has. The pages that were not written yet are lost;
headers, notes and bitmaps are whole.
""",
    example=("6.1.0-56-amd64/disk-full", "55.8 MiB of kernel pages did not fit."),
)
explain(
    Cause.FILE_CUT_SHORT,
    """The file ends before its own headers say: the capture or a copy was cut off

The headers point past the file's end. The capture ran out of space or time, or a copy or upload
stopped early. Only the original's size can show which.
""",
    example=("6.1.0-56-amd64/disk-full-raw", "the copy of /proc/vmcore ended at 16 MiB, with no space left."),
)


def _cut_short(found: Found) -> Iterator[_Cause]:
    if "incomplete-flag" in found:
        rules = tuple(rule for rule in ("incomplete-flag", "truncated-file") if rule in found)
        text = "makedumpfile ran out of space and marked the dump as incomplete"
        yield _Cause(Cause.CAPTURE_OUT_OF_SPACE, text, CERTAIN, _evidence(found["incomplete-flag"]), rules)
    elif "truncated-file" in found:
        text = "the capture was cut off, or a copy of its file was"
        evidence = _evidence(found["truncated-file"])
        yield _Cause(Cause.FILE_CUT_SHORT, text, LIKELY, evidence, ("truncated-file",))


explain(
    Cause.MAKEDUMPFILE_TOO_OLD,
    """makedumpfile does not know this kernel, and filtered out kernel data

makedumpfile judges pages by their struct page, which changes between kernels. One that does not know
a kernel takes slab pages for free or user pages. Its own log has "The kernel version is not
supported", and nothing in the dump does.
""",
    example=(
        "7.2.13+deb14-amd64/memory-and-cpu-added",
        "pages with kmalloc memory are filtered out at dump level 31.",
    ),
)


def _filtered(findings: Sequence[Finding]) -> _Cause:
    return _Cause(
        Cause.MAKEDUMPFILE_TOO_OLD,
        "makedumpfile does not know this kernel's struct pages",
        LIKELY,
        tuple(line for finding in findings for line in finding.evidence[-1:]),
        ("kernel-data-filtered",),
    )


# The crash kernel

explain(
    Cause.NO_CRASH_KERNEL,
    """No crash kernel was loaded, so a crash leaves no dump

kexec_crash_image is NULL. Either kdump's service is off or failed, or the moment falls between the
unload and the load of a reload: kexec frees the old image before it builds the new one, and a crash in
between leaves nothing. Only a hypervisor's dump can show that moment.
""",
)


def _no_crash_kernel(case: Case, findings: Sequence[Finding]) -> _Cause:
    evidence = _evidence(findings)
    if caught := reloading(case.topology):
        evidence += (f"loading a crash kernel just now: {', '.join(caught)}",)
    text = "no crash kernel was loaded"
    return _Cause(Cause.NO_CRASH_KERNEL, text, CERTAIN, evidence, ("no-crash-kernel",))


# Memory that is missing

explain(
    Cause.DUMPED_IN_PART,
    """The hypervisor dumped a part of the memory

A hypervisor's dump describes what it was asked for: dump-guest-memory takes a begin and a length, and some
tools leave out memory that was hot-added. No elfcorehdr takes part, so kdump is not to blame.
""",
)
explain(
    Cause.UNKNOWN,
    """The cause is not known

The evidence fits none of the known causes, or more than one. What is known is listed with it.
""",
    example=(
        "7.2.13+deb14-amd64/in-kernel-file-missed",
        "128 MiB are missing, and makedumpfile filtered out kexec_crash_image, which shows what updates the "
        "header.",
    ),
)


def _missing_memory(case: Case, missing: RangeSet) -> Iterator[_Cause]:
    """Memory that was added after boot and is not described."""
    rules = ("undescribed-ram",)
    stale = replace(_stale_memory(case, missing), rules=rules)
    yield stale
    policy = _driver_policy(case, missing)
    if policy is not None and policy.name is not stale.name and stale.certainty is not CERTAIN:
        # Added after the load, or left out whenever it was loaded: both remedies are worth a try.
        yield replace(policy, certainty=LIKELY, rules=rules)


def _stale_memory(case: Case, missing: RangeSet) -> _Cause:
    if case.header.producer is Producer.HYPERVISOR:
        return _Cause(
            Cause.DUMPED_IN_PART,
            "the hypervisor dumped a part of the guest's memory",
            LIKELY,
            ("its headers are of the moment of the dump, and describe less than the guest had",),
        )
    limits, policy = _limit_hit(case), _driver_policy(case, missing)
    sections = known(case.topology.sections)
    stale = _stale(case, f"sections that {sections.early_by.hot_added} were added after boot", memory=True)
    if stale.name in (Cause.KERNEL_UPDATE_FAILED, Cause.KERNEL_UPDATE_SKIPPED, Cause.UNKNOWN):
        return limits or stale
    if policy is not None and policy.certainty is CERTAIN:
        return policy
    if limits is not None:
        return limits
    resources = case.topology.resources
    if stale.certainty is CERTAIN and policy is not None:
        return stale.unless_seen(*policy.evidence)
    if stale.certainty is CERTAIN and (isinstance(resources, Unknown) or not resources.account.complete):
        return stale.unless_seen("iomem_resource could not be read to its end")
    return stale


explain(
    Cause.RELOAD_WINDOW,
    """The crash came before the reload was done

Something was added, and user space was about to load the crash kernel again: a kexec, kdump-config,
kdumpctl or kdump-udev-throttler is in the dump's task list. It did not finish in time. Never more
than likely: the tool may have been there for another reason.
""",
    example=(
        "6.1.0-56-amd64/kdump-tools-stale",
        "kdump-config try-reload was waiting for its turn when the kernel crashed, and the 256 MiB that it "
        "would have described are missing.",
    ),
)
explain(
    Cause.LOADED_WITHOUT_HOTPLUG,
    """The kernel could have updated elfcorehdr, and was not asked to: loaded without --hotplug

CONFIG_CRASH_HOTPLUG is in the kernel, and kexec_crash_image has hotplug_support clear. That is
kexec_load without --hotplug: what `kexec -p -c` and Debian's kdump-tools do by default. Loading with
-s, or with --hotplug, would have kept the dump whole.
""",
    example=("7.2.13+deb14-amd64/mem-and-cpu-added", "128 MiB and a CPU are missing."),
)
explain(
    Cause.ADDED_AFTER_LOAD,
    """Added after the crash kernel was last loaded

The header describes what there was when the crash kernel was loaded, and this kernel cannot rewrite
it: it has no CONFIG_CRASH_HOTPLUG. Whether user space would have loaded the crash kernel again and
came too late, or nothing would, is the regime's question.

For memory it is certain: the sections lack SECTION_IS_EARLY, so they were hot-added, and a load
after that would have described them. For CPUs it is certain where the kernel built the header, where
every CPU with a lower number has a note, or where the log shows that the CPU came later than one
that is missing for certain; else kexec-tools may have stopped counting early, which it does on
machines with gaps in their CPU numbers.
""",
    example=(
        "6.1.0-56-amd64/memory-and-cpu-added",
        "[0x100000000, 0x108000000) and CPU 2 were added after `kexec -p`.",
    ),
)


def _stale(case: Case, fact: str, memory: bool = False, cpus: frozenset[int] = frozenset()) -> _Cause:
    """Why a header lacks what came after it was written. ``fact`` proves that it did come later."""
    image, able = case.topology.crash_image, case.topology.crash_hotplug
    if isinstance(image, CrashImage) and image.hotplug_support:
        return _kernel_update(case, image)
    excluded, why = kernel_excluded(case)

    def cause(name: Cause, text: str, certainty: Certainty, *first: str) -> _Cause:
        return _Cause(name, text, certainty, (*first, fact, *why), memory=memory, cpus=cpus)

    if caught := reloading(case.topology):
        running = f"loading a crash kernel at the crash: {', '.join(caught)}"
        text = "added, and the crash came before the crash kernel was loaded again"
        return cause(Cause.RELOAD_WINDOW, text, LIKELY, running)
    if not excluded:
        text = "added after elfcorehdr was last written; which mechanism should have updated it is not known"
        return cause(Cause.UNKNOWN, text, UNKNOWN)
    certainty = CERTAIN if isinstance(image, CrashImage) or able is False else LIKELY
    if (isinstance(image, CrashImage) and image.hotplug_support is False) or able is True:
        if isinstance(image, CrashImage) and image.file_mode:
            # kexec_file_load sets hotplug_support wherever the kernel has it.
            text = "kexec_crash_image contradicts itself: file_mode is set and hotplug_support clear"
            return _Cause(Cause.UNKNOWN, text, UNKNOWN, (fact, *why))
        text = "added after the last load; the kernel could update elfcorehdr and was not asked to"
        return cause(Cause.LOADED_WITHOUT_HOTPLUG, text, certainty)
    text = "added after the crash kernel was last loaded, and the kernel cannot update elfcorehdr"
    return cause(Cause.ADDED_AFTER_LOAD, text, certainty)


explain(
    Cause.KERNEL_UPDATE_FAILED,
    """The kernel tried to update elfcorehdr and failed

The kernel rewrites the header on each event, and its log has the reason why it could not: the new
header does not fit the segment ("elfsz > memsz"), memory for it could not be had ("unable to create
new elfcorehdr"), or the segment was not found or not mapped. elfcorehdr_updated is set all the same.
""",
)
explain(
    Cause.KERNEL_UPDATE_SKIPPED,
    """The kernel skipped an update of elfcorehdr: a crash kernel was just being loaded

"kexec_trylock() failed, kdump image may be inaccurate": the event met a kexec_load, kexec_file_load
or an unload, and was dropped. The header stays stale until the next event. udev rules that reload on
every event cause this by themselves where the kernel already does the work.
""",
    example=(
        "6.12.117+deb13-amd64/in-kernel-file-missed",
        "memory was onlined while kexec_file_load held kexec's lock: the log has the line above, "
        "elfcorehdr_updated is clear, and 128 MiB are missing.",
    ),
)


def _kernel_update(case: Case, image: CrashImage) -> _Cause:
    """Why a header that the kernel itself updates is stale: its log may have the reason."""
    lines = [plain(line) for line in log_lines(case.topology, "crash hp: ")]
    failed = [line for line in lines if "trylock" not in line]
    if failed:
        text = "the kernel could not update elfcorehdr, and logged why"
        return _Cause(Cause.KERNEL_UPDATE_FAILED, text, CERTAIN, tuple(failed[-3:]))
    if lines:
        text = "the kernel skipped an update of elfcorehdr: a crash kernel was just being loaded"
        return _Cause(Cause.KERNEL_UPDATE_SKIPPED, text, LIKELY, tuple(lines[-3:]))
    tried = "tried at least once" if image.elfcorehdr_updated else "did not try since the load"
    has_log = isinstance(case.topology.log, str)
    return _Cause(
        Cause.UNKNOWN,
        "the kernel updates elfcorehdr itself, and it is stale all the same",
        UNKNOWN,
        (
            f"elfcorehdr_updated: the kernel {tried}",
            'its log has no "crash hp:" line' if has_log else "its log could not be read",
        ),
    )


explain(
    Cause.HEADER_LIMITS,
    """The header has no room for more ranges of memory

A header that the kernel rewrites has a segment of a fixed size: on x86 it has room for the CPUs and
about 8192 ranges (CONFIG_CRASH_MAX_MEMORY_RANGES). kexec-tools describes at most 32768 ranges on x86
and 1024 on loongarch, and leaves more out without a message. A header that the kernel builds once,
without hotplug, has no limit.
""",
)


def _limit_hit(case: Case) -> _Cause | None:
    """Whether the header has as many ranges as its builder can hold."""
    image, ranges = case.topology.crash_image, len(case.header.described)
    limit = case.header.arch.kexec_tools_ranges
    if isinstance(image, CrashImage) and image.hotplug_support:
        limit = _room(image)
    elif isinstance(image, CrashImage) and image.file_mode:
        limit = None
    # Adjacent ranges are one in the dump's headers, so a few may be hidden.
    if limit is None or ranges < limit - 16:
        return None
    text = f"the header has {ranges} ranges of memory, as many as it can"
    return _Cause(Cause.HEADER_LIMITS, text, LIKELY, (f"{limit} are possible",))


def _room(image: CrashImage) -> int:
    """How many program headers the segment of elfcorehdr has room for, CPUs' notes among them."""
    index = image.elfcorehdr_index
    if index is None or not 0 <= index < len(image.segments):
        return KERNEL_RANGES
    _, memsz, _ = image.segments[index]
    return max(0, memsz - EHDR) // PHDR


explain(
    Cause.DRIVER_MANAGED_POLICY,
    """kexec-tools leaves memory of drivers out, on purpose

"System RAM (kmem)" and "System RAM (virtio_mem)" belong to a driver: CXL, DAX and virtio-mem. On
arm64, riscv and loongarch kexec-tools takes only lines that are "System RAM" exactly, and on x86 it
did until 2.0.22. Such memory is never in a dump loaded by kexec_load, however fresh the header. With
kexec_file_load it is.
""",
    example=(
        "6.1.0-56-amd64/virtio-mem-grown",
        "the missing memory is virtio_mem's. It was added after the load or left out by policy, and the dump "
        "does not show which, so the report names both.",
    ),
)


def _driver_policy(case: Case, missing: RangeSet) -> _Cause | None:
    """Whether kexec-tools may have left out all of this memory because it is a driver's."""
    resources, image = case.topology.resources, case.topology.crash_image
    if isinstance(resources, Unknown) or (isinstance(image, CrashImage) and image.file_mode):
        return None
    theirs = resources.driver_managed
    if not theirs or missing - theirs or case.header.described & theirs:
        return None
    exact = case.header.arch.kexec_tools_exact_ram
    since = "" if exact else ", which kexec-tools before 2.0.22 left out"
    return _Cause(
        Cause.DRIVER_MANAGED_POLICY,
        "kexec-tools leaves memory of drivers out, however fresh the header",
        CERTAIN if exact and isinstance(image, CrashImage) and image.file_mode is False else LIKELY,
        (f"all of it is memory of a driver: kmem, virtio_mem or the like{since}",),
    )


def _missing_boot_memory(case: Case, missing: RangeSet) -> _Cause:
    rules = ("undescribed-boot-ram",)
    cause = _limit_hit(case) or _driver_policy(case, missing)
    if cause is not None:
        return replace(cause, rules=rules)
    return _Cause(
        Cause.UNKNOWN,
        "the memory was there at boot, so this is not hotplug; why the header lacks it is not known",
        UNKNOWN,
        ("possible: offline at the load, a limit of the tool that built the header, an edited header",),
        rules,
    )


# Registers that are missing


def _missing_notes(case: Case, cpus: frozenset[int]) -> _Cause:
    """CPUs that saved their registers and that the header does not name."""
    fact = f"no note has the registers that CPU {cpu_list(cpus)} saved"
    stale = _stale(case, fact, cpus=cpus)
    by_load = stale.name in (Cause.ADDED_AFTER_LOAD, Cause.LOADED_WITHOUT_HOTPLUG)
    if by_load and stale.certainty is CERTAIN and not surely_later(case).issuperset(cpus):
        return stale.unless_seen(
            "a CPU with a lower number has no note either, so kexec-tools may have stopped counting "
            "before it came to this one"
        )
    return stale


explain(
    Cause.CPU_NEVER_ANSWERED,
    """The CPU did not answer the crash and saved no registers

The crashing CPU sends the others an NMI or IPI and waits for a second. This CPU was online and wrote
nothing into its crash_notes: stuck in firmware or SMM, halted without NMI, held by the hypervisor, or
broken. No header could have helped.
""",
    example=(
        "6.1.0-56-amd64/cpu-frozen",
        "one virtual CPU was stopped before the crash; its crash_notes is all zero.",
    ),
)


def _never_answered(cpus: frozenset[int]) -> _Cause:
    return _Cause(
        Cause.CPU_NEVER_ANSWERED,
        "online and did not answer the crash",
        CERTAIN,
        ("crash_notes is empty, and cpu_online_mask has it",),
        ("cpu-never-saved",),
        cpus=cpus,
    )


# Memory that was removed

explain(
    Cause.PHANTOM_AFTER_REMOVE,
    """Removed memory stays described: x86 rewrites elfcorehdr before the memory is gone

The kernel rewrites the header at MEM_OFFLINE, when the System RAM resource is still there, and no
event follows the removal. On x86 the removed range is in the header until the next memory event.
Nothing is lost; what the dump holds for that range is not memory.
""",
    example=(
        "6.12.107+deb13-amd64/memory-removed",
        "the middle one of three DIMMs was removed, elfcorehdr_updated is 1, and [0x108000000, 0x110000000) "
        "is still described.",
    ),
)
explain(
    Cause.REMOVED_AFTER_LOAD,
    """Removed after the crash kernel was last loaded

The header still describes memory that was taken away. Nothing is lost; what the dump holds for that
range is not memory, and reading it can make the capture fail.
""",
    example=(
        "6.1.0-56-amd64/mem-removed",
        "the middle one of three DIMMs was removed, and [0x108000000, 0x110000000) is still described.",
    ),
)


def _phantom(case: Case, findings: Sequence[Finding]) -> _Cause:
    """Memory that is described and that the kernel did not have."""
    rules = ("described-without-ram",)
    image, evidence, gone = case.topology.crash_image, _evidence(findings), case.phantom.no_section
    if isinstance(image, CrashImage) and image.hotplug_support:
        log = case.topology.log
        silent = isinstance(log, str) and not log_lines(case.topology, "crash hp: ")
        sure = case.header.arch.x86 and bool(image.elfcorehdr_updated) and silent
        updated = "set" if image.elfcorehdr_updated else "clear"
        return _Cause(
            Cause.PHANTOM_AFTER_REMOVE,
            "memory was removed; the kernel rewrote elfcorehdr while the resource was still there",
            CERTAIN if sure and gone else LIKELY,
            (*evidence, f"elfcorehdr_updated is {updated}"),
            rules,
        )
    excluded, why = kernel_excluded(case)
    return _Cause(
        Cause.REMOVED_AFTER_LOAD,
        "memory was removed after the crash kernel was last loaded, and nothing rewrote elfcorehdr since",
        CERTAIN if gone and excluded and isinstance(image, CrashImage) else LIKELY,
        (*evidence, *why),
        rules,
    )
