# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files that lie beside a dump and can contradict it: logs and sos reports.

They are compared with the dump and never preferred to it. One of another kernel or boot is
refused, with the reason. Nothing is ever written to disk, and no symbolic link is followed:
a folder or an archive may be a stranger's.
"""

from __future__ import annotations

import enum
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from vmcheck.budget import OverBudget, time_limit
from vmcheck.errors import UnreadableFile, plain
from vmcheck.facts.case import Case
from vmcheck.facts.diagnosis import Comparison
from vmcheck.facts.quantities import count, cpu_list, parsed_cpu_list, size
from vmcheck.facts.ranges import EMPTY, RangeSet
from vmcheck.facts.topology import CrashImage, Topology, Unknown
from vmcheck.files import open_input
from vmcheck.records.sysfs import iomem_resources

MAX_LOG = 64 << 20
"""Bytes of a log; more is cut. log_buf_len= goes to 2 GiB, Debian's default is 128 KiB."""
MAX_MEMBER = 4 << 20
"""Bytes of one file of a sos report."""
MAX_ARCHIVE = 1 << 30
"""Bytes of a sos tarball that are unpacked, in memory and piece by piece, before the search ends."""
MAX_MEMBERS = 200_000
MAX_NAME, MAX_NAMES = 64 << 10, 4
"""Bytes of a member's long name or pax header, and how many of them one member may have."""
LONG_NAMES = (b"L", b"K", b"x", b"g", b"X")
"""Types of members that say more of the next one: GNU's, pax's and Solaris's."""
TAR_BLOCK = 512
MAX_BESIDE = 64 << 20
"""Bytes of a file that nobody named: a larger one would hold up the check."""
COMMON_SHARE = 0.75
"""Of the shorter one's lines in the time that two logs of one boot both cover."""


class Kind(str, enum.Enum):
    CAPTURE_LOG = "capture kernel's log"
    LOG = "kernel log"
    SOS = "sos report"


NAMES = {
    # RHEL, Fedora: dracut's kdump module saves both beside the vmcore.
    "kexec-dmesg.log": Kind.CAPTURE_LOG,
    "vmcore-dmesg.txt": Kind.LOG,
    "vmcore-dmesg-incomplete.txt": Kind.LOG,
    "dmesg.txt": Kind.LOG,
}

SOS_FILES = (
    "proc/cmdline",
    "proc/iomem",
    "proc/version",
    "proc/sys/kernel/random/boot_id",
    "sos_commands/kernel/sysctl_-a",
    "sos_commands/kernel/uname_-a",
    "uname",
    "sys/devices/system/cpu/present",
    "sys/devices/system/cpu/online",
    "sys/devices/system/cpu/crash_hotplug",
    "sys/devices/system/memory/crash_hotplug",
    "etc/default/kdump-tools",
    "etc/sysconfig/kdump",
)
"""Paths below the report's own top folder."""


@dataclass(frozen=True)
class Witness:
    """One file's testimony, as it was read."""

    name: str
    kind: Kind
    text: str = ""
    """Of a log."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Of a sos report: those of SOS_FILES that it has."""


# Finding and reading


def beside(dump: str) -> list[str]:
    """Paths in the dump's folder that are witnesses by their names."""
    path = Path(dump)
    try:
        with os.scandir(path.parent) as entries:
            found = [entry.name for entry in entries if _usable(entry)]
    except OSError:
        return []
    return [str(path.with_name(name)) for name in sorted(found) if kind_of(name, path.name)]


def _usable(entry: os.DirEntry[str]) -> bool:
    if entry.is_dir(follow_symlinks=False):
        return True
    return entry.is_file(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_size <= MAX_BESIDE


def kind_of(name: str, dump: str = "") -> Kind | None:
    """By the file's name. Debian's ``dmesg.202411230915`` belongs to ``dump.202411230915``."""
    if name in NAMES:
        return NAMES[name]
    if re.fullmatch(r"dmesg\.\d{12}", name):
        stamp = re.fullmatch(r"(?:dump|vmcore|kdump)\.(\d{12})", dump)
        return Kind.LOG if stamp is None or name.endswith(stamp[1]) else None
    if re.fullmatch(r"sos(?:report)?-.+?(?:\.tar(?:\.(?:gz|xz|bz2))?)?", name):
        return Kind.SOS
    return None


def read_witness(path: str) -> Witness:
    """Raises UnreadableFile for what is no witness that is known, or cannot be read."""
    name = Path(path).name
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            return Witness(name, Kind.SOS, files=_of_folder(Path(path)))
        with open_input(path, follow=False) as file:
            head = file.read(TAR_BLOCK)
            file.seek(0)
            if kind_of(name) is Kind.SOS or _is_archive(head):
                return Witness(name, Kind.SOS, files=_of_archive(file))
            text = file.read(MAX_LOG).decode("utf-8", "backslashreplace")
    except (OSError, ValueError) as error:
        raise UnreadableFile(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    kind = kind_of(name)
    if kind is None:
        kind = Kind.CAPTURE_LOG if _ELFCOREHDR.search(text) else Kind.LOG
    return Witness(name, kind, text)


def _is_archive(head: bytes) -> bool:
    return (
        head[257:262] == b"ustar"
        or head[:2] == b"\x1f\x8b"
        or head[:6] == b"\xfd7zXZ\0"
        or head[:3] == b"BZh"
    )


def _of_folder(folder: Path) -> dict[str, str]:
    """Each file is opened folder by folder, so that no link can lead out of the report."""
    files = {}
    for name in SOS_FILES:
        try:
            files[name] = _below(folder, name)
        except (OSError, UnreadableFile):
            continue
    return files


def _below(folder: Path, name: str) -> str:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_DIRECTORY
    descriptor = os.open(folder, flags)
    try:
        *parents, last = PurePosixPath(name).parts
        for parent in parents:
            inner = os.open(parent, flags, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        with open_input(last, follow=False, folder=descriptor) as opened:
            return opened.read(MAX_MEMBER).decode("utf-8", "backslashreplace")
    finally:
        os.close(descriptor)


class _Bounded:
    """A file that ends early rather than be unpacked without end."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self._file = file
        self._left = most

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(min(size, self._left) if size >= 0 else self._left)
        self._left -= len(data)
        return data


def _of_archive(raw: IO[bytes]) -> dict[str, str]:
    """The members wanted, read as a stream: nothing is extracted, links are passed by."""
    # Here, for they take a fiftieth of a second that a dump without a tarball need not spend.
    import lzma
    import tarfile
    import zlib

    class Member(tarfile.TarInfo):
        """tarfile reads a long name whole, and one call deeper for each that follows another."""

        in_a_row = 0

        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Member:
            member = super().frombuf(buf, encoding, errors)
            long = member.type in LONG_NAMES
            cls.in_a_row = cls.in_a_row + 1 if long else 0
            if long and member.size > MAX_NAME:
                raise tarfile.ReadError(f"a name of {member.size:,} bytes")
            if cls.in_a_row > MAX_NAMES:
                raise tarfile.ReadError(f"more than {MAX_NAMES} names of one member")
            return member

    files: dict[str, str] = {}
    try:
        with _unpacked(raw) as stream:
            bounded = _Bounded(stream, MAX_ARCHIVE)
            with tarfile.open(  # type: ignore[call-overload]
                fileobj=bounded, mode="r|", tarinfo=Member
            ) as archive:
                for number, member in enumerate(archive):
                    if number >= MAX_MEMBERS or len(files) == len(SOS_FILES):
                        break
                    # Else the archive keeps each of them.
                    archive.members = []
                    name = "/".join(PurePosixPath(member.name).parts[1:])
                    if name in SOS_FILES and name not in files and member.isreg():
                        content = archive.extractfile(member)
                        assert content is not None
                        files[name] = content.read(MAX_MEMBER).decode("utf-8", "backslashreplace")
    except (EOFError, tarfile.TarError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(str(error) or type(error).__name__) from None
    return files


def _unpacked(raw: IO[bytes]) -> IO[bytes]:
    import bz2
    import gzip
    import lzma

    head = raw.read(6)
    raw.seek(0)
    if head[:2] == b"\x1f\x8b":
        return gzip.GzipFile(fileobj=raw)  # type: ignore[return-value]
    if head[:6] == b"\xfd7zXZ\0":
        return lzma.LZMAFile(raw)
    if head[:3] == b"BZh":
        return bz2.BZ2File(raw)
    return raw


# Comparing


def testimony(case: Case, dump: str, given: Sequence[str], seconds: float) -> list[Comparison]:
    """What the files beside the dump and those that were given say. One that cannot be read says why.

    All of them together take at most ``seconds``.
    """
    compared = []
    end = time.monotonic() + seconds
    for path in dict.fromkeys([*beside(dump), *given]):
        try:
            with time_limit(end - time.monotonic(), f"{path}: reading the records"):
                compared.append(compare(case, read_witness(path)))
        except MemoryError:
            why = f"{path}: wants too much memory (--memory-limit)"
            compared.append(Comparison(plain(Path(path).name), "unreadable", None, why))
        except (UnreadableFile, OverBudget) as error:
            compared.append(Comparison(plain(Path(path).name), "unreadable", None, str(error)))
    return compared


def compare(case: Case, witness: Witness) -> Comparison:
    """What the witness says beside the dump. Pure."""
    agrees, text = {
        Kind.CAPTURE_LOG: _capture_log,
        Kind.LOG: _log,
        Kind.SOS: _sos,
    }[witness.kind](case, witness)
    return Comparison(plain(witness.name), witness.kind.value, agrees, plain(text))


Told = tuple[bool | None, str]

# drivers/rtc/class.c: "setting system clock to 2026-11-23T21:31:50 UTC (1795469510)"
_CLOCK = re.compile(r"setting system clock to [^\n(]{1,64}\((\d{1,12})\)")
MAX_SKEW, MAX_CAPTURE_BOOT, MAX_DELAY, MAX_TIMEZONE = 5, 120, 600, 15 * 3600
"""Seconds: between two clocks; from the crash to the capture kernel's clock for certain, and at most;
of a clock in local time."""
_ELFCOREHDR = re.compile(r"\belfcorehdr=(0x[0-9a-fA-F]{1,16}|\d{1,20})([kKmMgG]?)")


def _capture_log(case: Case, witness: Witness) -> Told:
    """Each CPU note of elfcorehdr that was empty gave one warning; with the notes, they are all of them.

    fs/proc/vmcore.c merges the PT_NOTEs and drops the empty ones, so the dump itself cannot tell.
    """
    verdict = _same_crash(case, witness.text)
    if verdict is not None:
        return None, verdict
    empty = witness.text.count("Zero PT_NOTE entries found")
    full = len(case.header.cpu_notes)
    named = full + empty
    named_cpus = f"elfcorehdr named {count(named, 'CPU')}: {full} with registers, {empty} without"
    present, possible = case.topology.present_cpus, case.topology.possible_cpus
    if isinstance(present, Unknown) or isinstance(possible, Unknown):
        return None, f"{named_cpus}; how many the kernel had is not known"
    if named in (len(present), len(possible)):
        return (
            True,
            f"{named_cpus}; that is every CPU that was {'present' if named == len(present) else 'possible'}",
        )
    if named < len(present):
        return True, f"{named_cpus}, and {len(present)} were present at the crash: the header was stale"
    return False, f"{named_cpus}, and {len(present)} were present, {len(possible)} possible"


def _same_crash(case: Case, text: str) -> str | None:
    """Why the log is not, or not surely, of the kernel that captured this dump; None where it is.

    The address of elfcorehdr refutes, and proves little: without KASLR it is the same at every
    boot. What proves is the clock that the capture kernel reads as it boots, right after CRASHTIME.
    """
    match, image = _ELFCOREHDR.search(text), case.topology.crash_image
    if match is None:
        return "not a capture kernel's log, or without its command line: elfcorehdr= is not in it"
    unit = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}[match[2].lower()]
    address = int(match[1], 0 if match[1].startswith("0x") else 10) * unit
    if image is None:
        return "refused: the kernel in the dump had no crash kernel loaded"
    if isinstance(image, CrashImage) and all(mem != address for mem, _, _ in image.segments):
        return f"refused: of another boot. Its elfcorehdr= is {address:#x}, where the image has no segment"
    clock, crashed = _CLOCK.search(text), case.header.vmcoreinfo.get("CRASHTIME", "")
    if clock is None or not re.fullmatch(r"\d{1,12}", crashed):
        return "not compared: it does not say when it was written, so of which boot it is is not known"
    later = int(clock[1]) - int(crashed)
    if -MAX_SKEW <= later <= MAX_CAPTURE_BOOT:
        return None
    # A clock in local time is off by quarters of an hour.
    if abs(later) < MAX_TIMEZONE and (later + MAX_SKEW) % 900 <= MAX_SKEW + MAX_DELAY:
        return f"not compared: its clock is {later} s from the crash, so of which boot it is is not known"
    return f"refused: of another boot. Its clock is {later} s from the crash"


_STAMPED = re.compile(r"^(?:<\d+>)?\[ *(\d{1,10}\.\d{6})\](?:\[ *[TC]\d+\])? ?(.*)$", re.MULTILINE)


def _stamped(text: str) -> dict[tuple[str, str], None]:
    """Lines with their times, in order, each once."""
    return dict.fromkeys((seconds, words.rstrip()) for seconds, words in _STAMPED.findall(text))


def _log(case: Case, witness: Witness) -> Told:
    theirs = _stamped(witness.text)
    if not theirs:
        return None, "no line of it has a kernel time stamp"
    own = case.topology.log
    if isinstance(own, Unknown):
        return _log_alone(case.topology, theirs)
    ours = _stamped(own)
    common = len(ours.keys() & theirs.keys())
    if not _same_boot(ours, theirs):
        return (
            None,
            f"refused: of another boot. {common} of its {count(len(theirs), 'line')} are in the dump's log",
        )
    last_own, last_theirs = (float(next(reversed(lines))[0]) for lines in (ours, theirs))
    if last_theirs > last_own + 1:
        return False, f"it goes on until {last_theirs:.1f} s, and the dump's log ends at {last_own:.1f} s"
    return True, f"{common} of its {count(len(theirs), 'line')} are in the dump's log"


def _same_boot(ours: Mapping[tuple[str, str], None], theirs: Mapping[tuple[str, str], None]) -> bool:
    """Whether two logs tell the same of the time that both cover.

    Lines before the clock runs are alike at every boot of one machine, and so do not count.
    """
    timed = [[line for line in lines if float(line[0]) > 0] for lines in (ours, theirs)]
    if not all(timed):
        return False
    begin = max(float(lines[0][0]) for lines in timed)
    end = min(float(lines[-1][0]) for lines in timed)
    first, second = ({line for line in lines if begin <= float(line[0]) <= end} for lines in timed)
    shared = len(first & second)
    return shared > 0 and shared >= COMMON_SHARE * min(len(first), len(second))


def _log_alone(topology: Topology, theirs: Mapping[tuple[str, str], None]) -> Told:
    """Where the dump's own log is lost."""
    banner = next((words for _, words in theirs if words.startswith("Linux version ")), None)
    if banner is None or isinstance(topology.banner, Unknown):
        return None, "not compared: the dump's own log could not be read, and who wrote this one is not known"
    if banner.strip() != topology.banner.strip():
        return None, f"refused: of another kernel, {banner[:120]}"
    return (
        None,
        "the dump's own log could not be read; this one is of the same kernel, of which boot is not known",
    )


def _sos(case: Case, witness: Witness) -> Told:
    files, topology = witness.files, case.topology
    if not files:
        return None, "nothing in it is a file of a sos report that could be compared"
    release = _sos_release(files)
    if release is None:
        return None, "not compared: it does not say which kernel it is of"
    if isinstance(topology.release, str) and release != topology.release:
        return None, f"refused: of another kernel, {release}; the dump is of {topology.release}"
    differences = list(_configuration(topology, files))
    boot = _boot_id(files)
    if boot is None or isinstance(topology.boot_id, Unknown):
        boot = (
            "of the same kernel; whether of the same boot is not known, so memory and CPUs are not compared"
        )
    elif boot != topology.boot_id:
        boot = "of the same kernel and another boot, so memory and CPUs are not compared"
    else:
        boot = "of the same boot"
        differences += _hardware(topology, files)
    if differences:
        return False, f"{boot}; {'; '.join(differences)}"
    return (True if boot == "of the same boot" else None), boot


def _sos_release(files: Mapping[str, str]) -> str | None:
    for name, pattern in (
        ("proc/version", r"Linux version (\S+)"),
        ("sos_commands/kernel/uname_-a", r"Linux \S+ (\S+)"),
        ("uname", r"Linux \S+ (\S+)"),
    ):
        if match := re.search(pattern, files.get(name, "")):
            return match[1]
    return None


def _boot_id(files: Mapping[str, str]) -> str | None:
    text = files.get("proc/sys/kernel/random/boot_id", "")
    if not text.strip():
        match = re.search(
            r"^kernel\.random\.boot_id = (\S+)$", files.get("sos_commands/kernel/sysctl_-a", ""), re.M
        )
        text = match[1] if match else ""
    return text.strip() or None


def _configuration(topology: Topology, files: Mapping[str, str]) -> Iterator[str]:
    """kdump's settings, where they contradict the image that was loaded."""
    image = topology.crash_image
    for name, variable in (
        ("etc/default/kdump-tools", "KDUMP_KEXEC_ARGS"),
        ("etc/sysconfig/kdump", "KEXEC_ARGS"),
    ):
        match = re.search(rf'^{variable}="?([^"\n]*)"?', files.get(name, ""), re.M)
        if match is None or not isinstance(image, CrashImage) or image.file_mode is None:
            continue
        by_file = bool(re.search(r"(?:^|\s)(?:-s|--kexec-file-syscall)(?:\s|$)", match[1]))
        if by_file and not image.file_mode:
            yield f"{name} has {variable}={match[1]!r}, and the image was loaded by kexec_load"


def _hardware(topology: Topology, files: Mapping[str, str]) -> Iterator[str]:
    """Memory and CPUs of the same boot at another moment."""
    if (listed := files.get("sys/devices/system/cpu/present")) and isinstance(
        topology.present_cpus, frozenset
    ):
        cpus = parsed_cpu_list(listed)
        if cpus is not None and cpus != topology.present_cpus:
            yield f"CPUs {cpu_list(cpus)} were present then, {cpu_list(topology.present_cpus)} at the crash"
    ram = _system_ram(files.get("proc/iomem", ""))
    if ram and not isinstance(topology.resources, Unknown) and topology.resources.account.complete:
        ours = topology.resources.account.ram
        if gained := ours - ram:
            yield f"{size(gained.size)} of System RAM came after it was taken"
        if lost := ram - ours:
            yield f"{size(lost.size)} of System RAM went after it was taken"


def _system_ram(iomem: str) -> RangeSet:
    """Empty where the addresses are hidden, as they are from anybody but root."""
    resources = iomem_resources(iomem)
    return EMPTY if isinstance(resources, Unknown) else resources.account.ram
