# SPDX-License-Identifier: LGPL-2.1-or-later
"""Case -> Conclusion: which mechanism was responsible for keeping elfcorehdr up to date."""

from __future__ import annotations

from vmcheck.diagnosis.distributions import Distribution, distribution
from vmcheck.diagnosis.explanation import explain
from vmcheck.errors import plain
from vmcheck.facts.case import Case
from vmcheck.facts.diagnosis import Certainty, Conclusion, Regime
from vmcheck.facts.header import DumpHeader, Producer
from vmcheck.facts.quantities import count
from vmcheck.facts.ranges import RangeSet
from vmcheck.facts.topology import CrashImage, Tasks, Topology, Unknown

CERTAIN, LIKELY, UNKNOWN = Certainty.CERTAIN, Certainty.LIKELY, Certainty.UNKNOWN

KDUMPCTL = "kdumpctl"
RELOADERS = {
    "kdump-config": Regime.DEBIAN_TRY_RELOAD,
    KDUMPCTL: Regime.USER_SPACE_RELOAD,
    # kdump-udev-throttler; a task's name has 15 characters.
    "kdump-udev-thro": Regime.RHEL_THROTTLED_RELOAD,
    "kexec": Regime.USER_SPACE_RELOAD,
    # /usr/lib/kdump/load.sh and load-once.sh
    "load.sh": Regime.SUSE_RELOAD,
    "load-once.sh": Regime.SUSE_RELOAD,
}
"""Names of tasks that load a crash kernel, and the regime that each belongs to."""
KDUMPCTL_REGIMES = frozenset({Regime.RHEL_THROTTLED_RELOAD, Regime.RHEL7_PER_EVENT_RELOAD})
"""Both call kdumpctl; the distribution says which."""
UDEV = frozenset({"systemd-udevd", "(udev-worker)", "udevd", "systemd-udevd.s"})


def update_regime(case: Case) -> Conclusion:
    """Which mechanism was responsible for keeping elfcorehdr up to date."""
    if case.header.producer is Producer.HYPERVISOR:
        return _hypervisor(case)
    if case.header.arch.capture_kernel_writes_header:
        return _capture_kernel(case)
    image = case.topology.crash_image
    if isinstance(image, CrashImage) and image.hotplug_support:
        return _in_kernel(image)
    excluded, why = kernel_excluded(case)
    if not excluded:
        text = "it is not known whether the kernel kept elfcorehdr up to date"
        return Conclusion(Regime.UNKNOWN, text, UNKNOWN, why)
    return _reloading_now(case, why) or _user_space(case, why)


explain(
    Regime.HYPERVISOR,
    """The hypervisor wrote the dump from outside

QEMU's dump-guest-memory and virsh dump --memory-only describe the virtual machine's memory at the
moment of the dump and take the registers of every virtual CPU. The kernel may not have crashed at
all. What the dump lacks, the machine lacked, or the file lost later.
""",
    window="no time: the headers describe the machine, not what kexec knew",
    example=(
        "6.1.0-56-amd64/kdump-tools-unloaded",
        "taken by QEMU after an unload: no crash kernel was loaded.",
    ),
)


def _hypervisor(case: Case) -> Conclusion:
    image = case.topology.crash_image
    vmcoreinfo = case.header.vmcoreinfo
    evidence = ["QEMU's own note of each CPU is there, and pr_pid counts them from 1"]
    if "CRASHTIME" in vmcoreinfo:
        evidence.append("VMCOREINFO has CRASHTIME: a crash kernel was started before the dump was taken")
    elif vmcoreinfo:
        evidence.append("VMCOREINFO has no CRASHTIME: no crash kernel was started before the dump was taken")
    if image is None:
        evidence.append(
            "no crash kernel was loaded: the kernel itself could have left no dump at that moment"
        )
    return Conclusion(
        Regime.HYPERVISOR,
        "the hypervisor wrote this dump: its headers cannot be stale",
        CERTAIN,
        tuple(evidence),
    )


explain(
    Regime.CAPTURE_KERNEL,
    """The capture kernel builds elfcorehdr, after the crash

On s390 the capture kernel builds the header from the memory that the machine has, and takes the
registers by SIGP store-status. What is missing was not configured, or was lost later.
""",
    window="no time: it is written after the crash",
)


def _capture_kernel(case: Case) -> Conclusion:
    return Conclusion(
        Regime.CAPTURE_KERNEL,
        "the capture kernel built elfcorehdr after the crash: it cannot be stale",
        CERTAIN,
        (f"the machine is {case.header.machine}",),
    )


explain(
    Regime.IN_KERNEL_FILE_LOAD,
    """The kernel rewrites elfcorehdr itself; the crash kernel was loaded by kexec_file_load

CONFIG_CRASH_HOTPLUG, since Linux v6.6, on x86 and powerpc. Certain where kexec_crash_image has
hotplug_support (update_elfcorehdr before v6.10) and file_mode set. The header names all possible
CPUs from the start, so only memory events change it.

Three holes remain. The kernel skips a memory event that comes while a kexec_load or kexec_file_load
is in progress, and logs "kexec_trylock() failed". It does not write a header that no longer fits its
segment, and logs that. On x86, memory that is removed stays described until the next event, because
MEM_OFFLINE is announced before the resource goes. elfcorehdr_updated means that the kernel tried, not
that it succeeded.

User space need not reload on top of this. Where its udev rules do not check crash_hotplug, each
event also unloads and loads the crash kernel, and a crash in between leaves no dump at all.
""",
    window="milliseconds: the kernel writes the header in the notifier of each memory and CPU event",
    example=(
        "6.12.117+deb13-amd64/mem-and-cpu-added-s",
        "128 MiB and a CPU were added after `kexec -p -s`. hotplug_support, file_mode and elfcorehdr_updated "
        "are 1, and the dump describes all of it.",
    ),
)
explain(
    Regime.IN_KERNEL_KEXEC_LOAD,
    """The kernel rewrites elfcorehdr itself; the crash kernel was loaded by kexec --hotplug

As in-kernel-file-load, for crash kernels loaded by kexec_load with --hotplug (kexec-tools 2.0.28
and later on x86, 2.0.29 on powerpc). Certain where kexec_crash_image has hotplug_support set and
file_mode clear. kexec-tools builds the first header; the first event replaces it by the kernel's
own, which leaves out the first MiB and names all possible CPUs.
""",
    window="milliseconds: the kernel writes the header in the notifier of each memory and CPU event",
    example=(
        "6.12.117+deb13-amd64/mem-added-hp",
        "loaded with --hotplug. The first MiB, which kexec-tools describes, is gone from the header: the "
        "kernel has rewritten it, and the added 128 MiB are in the dump.",
    ),
)


def _in_kernel(image: CrashImage) -> Conclusion:
    how = "kexec_file_load" if image.file_mode else "kexec_load --hotplug"
    mode = "" if image.file_mode is None else f" and file_mode {int(image.file_mode)}"
    updated = {True: "has tried at least once", False: "has not tried since the load", None: None}
    tried = updated[image.elfcorehdr_updated]
    return Conclusion(
        Regime.IN_KERNEL_FILE_LOAD if image.file_mode else Regime.IN_KERNEL_KEXEC_LOAD,
        f"the kernel updates elfcorehdr on hotplug; the crash kernel was loaded by {how}",
        CERTAIN,
        (
            f"kexec_crash_image has hotplug_support set{mode}",
            *([f"elfcorehdr_updated: the kernel {tried}"] if tried else []),
        ),
    )


def kernel_excluded(case: Case) -> tuple[bool, tuple[str, ...]]:
    """Whether the kernel certainly did not rewrite elfcorehdr, and the evidence for the answer."""
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
    return header.arch.x86 and bool(header.described & RangeSet([(0, 1 << 20)]))


def reloading(topology: Topology) -> tuple[str, ...]:
    """Names of tasks that were loading a crash kernel when this one crashed."""
    if isinstance(topology.tasks, Unknown):
        return ()
    return tuple(sorted({task.name for task in topology.tasks.tasks if task.name in RELOADERS}))


explain(
    Regime.DEBIAN_TRY_RELOAD,
    """Debian and Ubuntu: udev runs kdump-config try-reload, once for each event

kdump-tools' 50-kdump-tools.rules runs `kdump-config try-reload` for each memory block that goes
online or offline and each CPU that is added, removed or onlined. Each run unloads the crash
kernel, then loads it again. Until its turn comes the header is stale, and between unload and load
a crash leaves no dump at all. The rules do not look at crash_hotplug: they reload even where the
kernel would have rewritten the header in place.

Likely where the kernel is Debian's or Ubuntu's and a udev daemon was running; certain where a
kdump-config was running when the kernel crashed.
""",
    window="seconds for each event, and events queue: N memory blocks are N reloads, one after another",
    example=(
        "6.1.0-56-amd64/kdump-tools-stale",
        "three blocks came online, and the crash came while the reload for the first was done and the next "
        "two were waiting. kdump-config is in the dump's task list, and 256 MiB are missing.",
    ),
)
explain(
    Regime.RHEL_THROTTLED_RELOAD,
    """RHEL 8 and later, Fedora, CentOS: udev starts a throttled kdumpctl reload

98-kexec.rules starts kdump-udev-throttler, which sleeps a second, waits up to 3 more for udev to
settle and then runs one `kdumpctl reload` for all events since. Since kdump-utils of September
2023 the rules do nothing where crash_hotplug is 1: the kernel rewrites the header itself. On
x86 the rules react to CPUs that are added or removed, not onlined.

Likely where the release is one of theirs and a udev daemon was running; certain where kdumpctl or
kdump-udev-throttler was running when the kernel crashed.
""",
    window="at least 1 second, up to 4 until events settle, and then as long as the reload takes",
    example=(
        "6.1.0-56-amd64/throttled-stale",
        "four blocks came online, and the crash came while kdump-udev-throttler was waiting for them to "
        "settle. It is in the dump's task list, and 512 MiB are missing.",
    ),
)
explain(
    Regime.RHEL7_PER_EVENT_RELOAD,
    """RHEL 7: udev restarts kdump for each event

98-kexec.rules restarts kdump.service for each memory block and each CPU. A large DIMM is many
blocks, so the header is stale for as many restarts.

Likely where the release has el7 and a udev daemon was running.
""",
    window="seconds for each event, and events queue",
)
explain(
    Regime.SUSE_RELOAD,
    """SUSE: udev reloads kdump for memory that is added or removed

kdump's 70-kdump.rules run load-once.sh when memory is added or removed, and on powerpc when a CPU
comes online; on x86 no CPU event reloads anything. Events that come while it waits are served by one
load, so there are at most two. Newer versions do nothing where crash_hotplug is 1: the kernel rewrites
the header itself. Memory is announced as added before it is onlined.

Likely where the kernel is SUSE's and a udev daemon was running; certain where load.sh or load-once.sh
was running when the kernel crashed.
""",
    window="as long as one or two loads take",
)
explain(
    Regime.USER_SPACE_RELOAD,
    """User space reloads the crash kernel; which tool is not known

A kexec was running when the kernel crashed, and no distribution's tool was seen beside it: a
script or an agent reloads the crash kernel.
""",
    window="seconds: from the event to the end of the reload",
    example=(
        "6.1.0-56-amd64/per-event-stale",
        "a kdumpctl had begun the second of three reloads, on a kernel that is not RHEL's. "
        "256 MiB are missing.",
    ),
)


def _reloading_now(case: Case, why: tuple[str, ...]) -> Conclusion | None:
    """Whose task was loading a crash kernel at the crash."""
    caught = reloading(case.topology)
    if not caught:
        return None
    regimes = {RELOADERS[name] for name in caught}
    its = distribution(case)
    if KDUMPCTL in caught and its is not None and its.regime in KDUMPCTL_REGIMES:
        regimes.add(its.regime)
    regimes.discard(Regime.USER_SPACE_RELOAD)
    regime = regimes.pop() if len(regimes) == 1 else Regime.USER_SPACE_RELOAD
    return Conclusion(
        regime,
        "user space was reloading the crash kernel at the crash",
        LIKELY if regime is Regime.USER_SPACE_RELOAD else CERTAIN,
        (f"running at the crash: {', '.join(caught)}", *why),
    )


explain(
    Regime.NO_UPDATE,
    """Nothing keeps elfcorehdr up to date

The kernel does not rewrite the header, because it cannot or because it was not asked to, and no
udev daemon ran that could have reloaded the crash kernel. So it is on systems without udev, where
somebody loaded the crash kernel by hand.

Never more than likely: a program of any name can call kexec.
""",
    window="ever: what came after the last load stays missing",
    example=(
        "6.1.0-56-amd64/memory-and-cpu-added",
        "kexec_load on a kernel without CONFIG_CRASH_HOTPLUG, and no udev daemon among its tasks. 128 MiB "
        "and CPU 2 are missing.",
    ),
)
explain(
    Regime.UNKNOWN,
    """It is not known which mechanism was responsible for keeping elfcorehdr up to date

kexec_crash_image shows for certain whether the kernel itself rewrites the header. Whether user
space reloads is seen in the tasks, and those are only read where something is missing; and a
udev daemon alone does not prove that kdump's rules were installed.
""",
    window="a time that is not known",
    example=(
        "6.1.0-56-amd64/fresh",
        "loaded by kexec_load, nothing missing. Whether a reload would have come is not in the dump.",
    ),
)


def _user_space(case: Case, why: tuple[str, ...]) -> Conclusion:
    """Whether udev's rules reloaded the crash kernel on events, or nothing did."""
    text = "the kernel did not update elfcorehdr: user space reloaded the crash kernel, or nothing did"
    loaded_since = case.written_since_hot_add
    if loaded_since:
        text = "user space loaded the crash kernel after memory was added; whether on events is not known"
        why += ("memory that was added after boot is described",)
    tasks = case.topology.tasks
    if isinstance(tasks, Unknown):
        return Conclusion(Regime.UNKNOWN, text, UNKNOWN, (*why, plain(tasks.why)))
    udev = any(task.name in UDEV for task in tasks.tasks)
    its = distribution(case)
    if udev and its is not None and its.regime is not None:
        return _by_udev(its, its.regime, why)
    # A task list without its beginning proves no absence.
    if not loaded_since and not udev and any(task.pid == 1 for task in tasks.tasks):
        return _no_update(tasks, why)
    return Conclusion(Regime.UNKNOWN, text, UNKNOWN, (*why, *(plain(line) for line in tasks.unread[:2])))


def _by_udev(its: Distribution, regime: Regime, why: tuple[str, ...]) -> Conclusion:
    return Conclusion(
        regime,
        "user space reloads the crash kernel on events, if kdump's udev rules were installed",
        LIKELY,
        (*why, "a udev daemon was running", f"the kernel is {its.name}'s"),
    )


def _no_update(tasks: Tasks, why: tuple[str, ...]) -> Conclusion:
    number = count(len(tasks.tasks), "task")
    return Conclusion(
        Regime.NO_UPDATE,
        "nothing kept elfcorehdr up to date",
        LIKELY,
        (
            *why,
            f"no udev daemon among {number}, nor anything that loads a crash kernel",
            *(["not every task could be read"] if tasks.unread else []),
        ),
    )
