# SPDX-License-Identifier: LGPL-2.1-or-later
"""A running kernel -> the Report of the dump that it would leave, were it to crash now.

Not a second checker: elfcorehdr is read where it is loaded instead of from a file, and the
same rules answer.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from vmcheck.check import ExitStatus, Report, check
from vmcheck.diagnosis.diagnose import diagnose
from vmcheck.errors import UnreadableFile, VmcheckError
from vmcheck.facts.case import Case
from vmcheck.facts.diagnosis import Step
from vmcheck.facts.findings import Outcome, State
from vmcheck.facts.header import DumpHeader
from vmcheck.facts.machine import named
from vmcheck.facts.topology import CrashImage, SavedNote, Topology, Unknown, nothing_known
from vmcheck.formats import elfcorehdr, open_dump
from vmcheck.operations.examine import in_child
from vmcheck.records.sysfs import CrashKernel, crash_kernel, read_text
from vmcheck.rules import rules

KCORE = "/proc/kcore"
TRIES = 3
"""Readings of a kernel that goes on changing, before one is taken as it is."""


MEND = Step(
    "now: load the crash kernel again, which writes elfcorehdr again; then ask again",
    ("kdump-config reload    # Debian, Ubuntu", "kdumpctl reload        # Fedora, RHEL, SUSE"),
)


class CannotLook(VmcheckError):
    """The running kernel does not let its memory be read; the message says why."""


def preflight(qemu: str | None = None, progress: Callable[[str], None] | None = None) -> Report:
    """What a dump would lack if this machine crashed now, or the guest behind a QMP socket.

    Raises CannotLook where this kernel may not be read, VmcheckError where it cannot be.
    """
    tell = progress or (lambda step: None)
    if qemu is None:
        prepared = crash_kernel()
        if answer := without_header(prepared, os.uname().machine):
            return answer
    reading = "reading the kernel and its loaded elfcorehdr"
    tell(reading)
    header, topology = in_child(lambda: _read(qemu), lambda: tell(reading), shut=qemu is None)
    if qemu is None:
        topology = replace(topology, crash_reserved=prepared.reserved)
    tell("applying the rules")
    if topology.crash_image is None:
        return _only_about_the_crash_kernel(header, topology, "no crash kernel is loaded")
    return _before_the_crash(check(foretell(header, topology)))


def foretell(header: DumpHeader, topology: Topology) -> Case:
    """The case that a crash now would make of a loaded header and a live kernel. Pure.

    Every online CPU saves its registers, no other does, and /proc/vmcore drops the notes
    that stayed empty.
    """
    saved, online = topology.saved_notes, topology.online_cpus
    if isinstance(saved, Unknown) or isinstance(online, Unknown):
        return Case(header, topology)
    idle = {
        note.descriptor for cpu, note in saved.items() if cpu not in online and isinstance(note, SavedNote)
    }
    filled = [note for note in header.cpu_notes if note.descriptor not in idle]
    return Case(
        replace(header, cpu_notes=tuple(replace(note, position=place) for place, note in enumerate(filled))),
        replace(
            topology,
            saved_notes={cpu: note if cpu in online else SavedNote(b"") for cpu, note in saved.items()},
        ),
    )


def without_header(prepared: CrashKernel, machine: str) -> Report | None:
    """The answers that need no look at elfcorehdr; None where it must be read."""
    if prepared.loaded is None:
        raise CannotLook(
            "this kernel cannot load a crash kernel: /sys/kernel/kexec_crash_loaded does not exist"
        )
    topology = replace(
        nothing_known(_no_header(machine), "not asked: there is no loaded elfcorehdr to compare with"),
        source=f"/sys of {machine}",
        release=os.uname().release,
        crash_reserved=prepared.reserved,
    )
    header = _no_header(machine)
    there = replace(topology, crash_image=CrashImage((), None, None, None, None))
    if prepared.fadump and prepared.fadump_registered:
        if prepared.fadump_made_after:
            why = "fadump makes its header after the crash (/sys/kernel/fadump/hotplug_ready is 1)"
            return _only_about_the_crash_kernel(header, there, why)
        raise CannotLook(
            "fadump is registered, and this kernel made its header then: vmcheck cannot read it; register "
            "again after memory was added (echo 0, then 1, to /sys/kernel/fadump/registered)"
        )
    if not prepared.loaded:
        return _only_about_the_crash_kernel(
            header, replace(topology, crash_image=None), "no crash kernel is loaded"
        )
    if named(machine).capture_kernel_writes_header:
        why = f"on {machine} the capture kernel makes elfcorehdr, after the crash"
        return _only_about_the_crash_kernel(header, there, why)
    return None


def _no_header(machine: str) -> DumpHeader:
    bits = 64 if sys.maxsize > 1 << 32 else 32
    return elfcorehdr.none_loaded(machine, bits, sys.byteorder, os.sysconf("SC_PAGE_SIZE"))


def _only_about_the_crash_kernel(header: DumpHeader, topology: Topology, why: str) -> Report:
    """The report where there is no header: every other rule's question does not arise."""
    case = Case(header, topology)
    outcomes = tuple(
        rule.outcome(case) if name == "no-crash-kernel" else Outcome(name, State.INAPPLICABLE, why=why)
        for name, rule in rules().items()
    )
    return _before_the_crash(Report(header, topology, outcomes, diagnose(case, outcomes)))


def _before_the_crash(report: Report) -> Report:
    """The report without what only a crash can tell, and with what mends the header now."""
    diagnosis = report.diagnosis
    if diagnosis is None:
        return report
    impact = diagnosis.impact and replace(diagnosis.impact, facts=(), effects=())
    lasting = [step for step in diagnosis.next_dump if "vmcheck preflight" not in step.commands]
    mending = [MEND] if report.exit_status() is ExitStatus.FOUND and report.topology.crash_image else []
    return replace(
        report,
        diagnosis=replace(
            diagnosis, timeline=None, impact=impact, next_dump=(*mending, *lasting), this_dump=()
        ),
    )


def _read(qemu: str | None) -> tuple[DumpHeader, Topology]:
    """The loaded header and what the kernel knows, of one moment. Run in a child: drgn is C."""
    from vmcheck.kernel.live import loaded_image
    from vmcheck.operations.examine import read_kernel

    with opened(qemu) as (kernel, memory):
        for _ in range(TRIES):
            image = loaded_image(kernel, memory)
            if isinstance(image, Unknown):
                raise CannotLook(f"the loaded crash image cannot be found: {image.why}")
            if image is None:
                nothing = elfcorehdr.none_loaded(
                    kernel.machine, kernel.bits, kernel.byteorder, kernel.page_size
                )
                topology = nothing_known(kernel, "not asked: no crash kernel is loaded")
                return nothing, replace(topology, crash_image=None)
            header = elfcorehdr.read(memory, image.segments)
            # The kernel is asked by its own VMCOREINFO, whether or not elfcorehdr names it.
            asked = replace(header, vmcoreinfo_notes=kernel.vmcoreinfo_notes, page_size=kernel.page_size)
            topology = read_kernel(asked, memory)
            if topology.crash_image == image and elfcorehdr.read(memory, image.segments) == header:
                return header, topology
    changing = "elfcorehdr or the crash image changed while it was read: look again"
    return header, replace(topology, remarks=(*topology.remarks, changing))


@contextmanager
def opened(qemu: str | None) -> Iterator[tuple[DumpHeader, elfcorehdr.Memory]]:
    """VMCOREINFO, in a header, and the physical memory."""
    if qemu is not None:
        from vmcheck.kernel.live import Guest

        guest = Guest(qemu)
        yield guest.header, guest
        return
    try:
        opened = open_dump([KCORE])
    except UnreadableFile as error:
        raise CannotLook(_why_closed(str(error))) from None
    with opened as kcore:
        if not kcore.header.vmcoreinfo_notes:
            # Since Linux kernel commit 23c85094fe18 ("proc/kcore: add vmcoreinfo note to
            # /proc/kcore") (in v4.19).
            raise CannotLook(f"{KCORE} has no VMCOREINFO: this kernel is older than Linux 4.19")
        yield kcore.header, kcore.memory


def _why_closed(error: str) -> str:
    """Why /proc/kcore cannot be read, from what is known to forbid it (open_kcore())."""
    if not Path(KCORE).exists():
        return f"{KCORE} does not exist: this kernel was built without CONFIG_PROC_KCORE"
    loaded = "a crash kernel is loaded; whether its header is up to date"
    if os.geteuid() != 0:
        return f"{loaded} only root can read ({KCORE})"
    lockdown = read_text(Path("/"), "sys/kernel/security/lockdown") or ""
    if "[confidentiality]" in lockdown:
        return f"{loaded} cannot be read: the kernel is locked down (confidentiality), which closes {KCORE}"
    return f"{loaded} cannot be read: {error}: CAP_SYS_RAWIO is needed, which a container may lack"
