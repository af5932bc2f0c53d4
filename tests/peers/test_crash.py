# SPDX-License-Identifier: LGPL-2.1-or-later
"""crash and drgn on fresh captures, with the kernel's own debuginfo, beside what vmcheck says without it.

Two crashes: this machine's, and sid's. A session asks ``help -D``, ``help -r``, ``sys`` and ``bt -a`` once,
and all of them run while the first test waits.
"""

from __future__ import annotations

import json
import re
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from tests.peers.fresh import LOST, MIDDLE, UPDATED, WHOLE, Captures, Dressed, Fresh, Wanted, debuginfo
from tests.peers.programs import bounded, here, of_suite, version_of
from vmcheck.facts.case import Case
from vmcheck.facts.findings import State
from vmcheck.facts.header import CpuNote
from vmcheck.facts.topology import Tasks, known

pytestmark = pytest.mark.lab

SECONDS = 240
"""The longest that crash may take. It takes about 15 s of a CPU to read a vmlinux."""
QUESTIONS = {"header": "help -D", "registers": "help -r", "system": "sys", "stacks": "bt -a"}
PRSTATUS = (
    *("R15", "R14", "R13", "R12", "RBP", "RBX", "R11", "R10", "R9", "R8"),
    *("RAX", "RCX", "RDX", "RSI", "RDI", "ORIG_RAX", "RIP", "CS", "RFLAGS", "RSP", "SS"),
)
"""``struct user_regs_struct`` of x86_64, as crash names them: after 112 bytes of ``struct elf_prstatus``."""

THREAD_SIZE = 16 << 10
"""Of a kernel stack, which is aligned to it."""

Registers = Mapping[str, int]


@dataclass(frozen=True)
class Crash:
    """One crash session on one dump."""

    status: int
    said: str
    folder: Path

    def answer(self, to: str) -> str:
        path = self.folder / to
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def had_a_prompt(self) -> bool:
        return bool(self.answer("system"))

    @property
    def everything(self) -> str:
        return "\n".join([self.said, *map(self.answer, QUESTIONS)])

    @cached_property
    def registers(self) -> dict[int, Registers | None]:
        """``help -r``: CPU number as crash has it -> its registers, or None."""
        parts = re.split(r"^CPU (\d+):", self.answer("registers"), flags=re.MULTILINE)[1:]
        return {
            int(cpu): {name: int(value, 16) for name, value in re.findall(r"(\w+): ([0-9a-f]+)", text)}
            if "RIP:" in text
            else None
            for cpu, text in zip(parts[::2], parts[1::2], strict=True)
        }

    def header_number(self, name: str) -> int:
        """A decimal of ``help -D``."""
        return int(re.findall(rf"^ *{name}: (\d+)", self.answer("header"), re.MULTILINE)[0])

    def system(self, name: str) -> str:
        return str(re.findall(rf"^ *{name}: (.*)$", self.answer("system"), re.MULTILINE)[0]).strip()

    @cached_property
    def frames(self) -> dict[int, list[tuple[int, str]]]:
        """``bt -a``: CPU -> where each frame of its active task is, and its function."""
        parts = re.split(r"^PID: .* CPU: (\d+) .*$", self.answer("stacks"), flags=re.MULTILINE)[1:]
        return {
            int(cpu): [
                (int(address, 16), function)
                for address, function in re.findall(r"^ *#\d+ \[(\w+)\] (\S+) at", text, re.MULTILINE)
            ]
            for cpu, text in zip(parts[::2], parts[1::2], strict=True)
        }


def registers_of(note: CpuNote) -> Registers:
    values = struct.unpack_from(f"<{len(PRSTATUS)}Q", note.descriptor, 112)
    return dict(zip(PRSTATUS, values, strict=True))


class Sessions:
    """Runs of crash, two at a time, each made once."""

    def __init__(self, folder: Path, captures: Captures) -> None:
        self._folder, self._captures = folder, captures
        self._pool = ThreadPoolExecutor(2)
        self._runs: dict[tuple[str, Wanted], Future[Crash]] = {}

    def begin(self, version: str, command: list[str], wanted: Wanted) -> Future[Crash]:
        if (version, wanted) not in self._runs:
            vmcore = self.dressed.path if wanted == MIDDLE else self._captures[wanted].vmcore
            words = [*command, "-s", str(debuginfo(self._captures[wanted])), str(vmcore)]
            folder = self._folder / f"{wanted}-{version}"
            folder.mkdir()
            self._runs[version, wanted] = self._pool.submit(ask, words, folder)
        return self._runs[version, wanted]

    @property
    def dressed(self) -> Dressed:
        """MIDDLE as makedumpfile compresses it, so that crash is asked about both forms."""
        command = of_suite("sid", "makedumpfile", "makedumpfile")
        version = version_of(command, r"version (\S+)", "-v")
        return self._captures.dressed(MIDDLE, command, version)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def ask(words: list[str], folder: Path) -> Crash:
    questions = "".join(f"{question} > {name}\n" for name, question in QUESTIONS.items())
    began = time.monotonic()
    status, said = bounded(words, SECONDS, stdin=f"{questions}quit\n", folder=folder)
    print(f"{folder.name}: {time.monotonic() - began:.1f} s")
    return Crash(status, said, folder)


@pytest.fixture(scope="session")
def sessions(captures: Captures, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    running = Sessions(tmp_path_factory.mktemp("crash"), captures)
    yield running
    running.close()


@dataclass(frozen=True)
class Peer:
    command: list[str]
    version: str
    sessions: Sessions

    def on(self, wanted: Wanted) -> Crash:
        return self.sessions.begin(self.version, self.command, wanted).result()


@pytest.fixture(scope="session")
def peers(sessions: Sessions) -> dict[str, Peer]:
    """Both crashes, at work on all that the tests will ask: by their major version."""
    found = {}
    for command in (here("crash"), of_suite("sid", "crash", "crash")):
        version = version_of(command, r"crash (\d\S+)", "--version")
        found[version.split(".")[0]] = Peer(command, version, sessions)
    for wanted in (MIDDLE, LOST, WHOLE):
        for peer in found.values():
            sessions.begin(peer.version, peer.command, wanted)
    return found


@pytest.fixture(params=["8", "9"])
def peer(request: pytest.FixtureRequest, peers: dict[str, Peer]) -> Peer:
    if request.param not in peers:
        pytest.skip(f"no crash {request.param} here, only {', '.join(p.version for p in peers.values())}")
    return peers[request.param]


@dataclass(frozen=True)
class Disagreement:
    """What a peer says of a capture and vmcheck does not, and why."""

    name: str
    crash: str
    """Major version."""
    capture: Wanted
    says: str
    """A regular expression."""
    rule: str
    """What vmcheck finds in that dump. Empty: nothing, and rightly."""
    why: str


UNREADABLE = r"^(crash|bt): (read|seek) error: kernel virtual address: \w+  type: "
"""What crash says of any page that it cannot read: no dump header is blamed, nor any memory."""

DISAGREEMENTS = [
    Disagreement(
        "registers-of-the-wrong-cpu", "8", MIDDLE, r"^CPU 3:\nhelp: registers not collected for cpu 3",
        "notes-shifted", "it gives the n-th note to the n-th online CPU, and CPU 2 has none",
    ),
    Disagreement(
        "registers-of-the-wrong-cpu", "9", MIDDLE, r"^CPU 3:\nhelp: registers not collected for cpu 3",
        "notes-shifted", "as 8",
    ),
    Disagreement(
        "an-address-and-no-reason", "8", LOST, UNREADABLE, "undescribed-ram",
        "what it reads lies in the missing memory: PIDs before its prompt, or the crashing stack after it",
    ),
    Disagreement(
        "an-address-and-no-reason", "9", LOST, UNREADABLE, "undescribed-ram",
        "as 8; before its prompt it also looks for the panic on every active stack",
    ),
    Disagreement(
        "finds-only-running-tasks", "8", WHOLE, r"not found in PID hash", "",
        "8.0.2 cannot walk the PIDs of Debian's 6.1: said of a whole dump too, so that it tells no loss",
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", DISAGREEMENTS, ids=lambda row: f"crash {row.crash}: {row.name}")
def test_known_disagreement(captures: Captures, peers: dict[str, Peer], row: Disagreement) -> None:
    if row.crash not in peers:
        pytest.skip(f"no crash {row.crash} here, only {', '.join(p.version for p in peers.values())}")
    assert re.search(row.says, peers[row.crash].on(row.capture).everything, re.MULTILINE)
    found = [outcome.rule for outcome in captures[row.capture].report.outcomes_in(State.FOUND)]
    assert row.rule in found if row.rule else not found


class TestAgreement:
    """What vmcheck reads without debuginfo is what crash reads."""

    @pytest.fixture(params=[WHOLE, MIDDLE], ids=str)
    def wanted(self, request: pytest.FixtureRequest) -> Wanted:
        found: Wanted = request.param
        return found

    def test_segments_of_an_elf_dump(self, captures: Captures, peer: Peer) -> None:
        pattern = r"file_offset: (\w+)\s+phys_start: (\w+)\s+phys_end: (\w+)"
        lines = re.findall(pattern, peer.on(WHOLE).answer("header"))
        theirs = [tuple(int(field, 16) for field in line) for line in lines]
        segments = captures[WHOLE].header.segments
        assert theirs == [(s.p_offset, s.p_paddr, s.p_paddr + s.p_filesz) for s in segments]

    def test_header_of_a_compressed_dump(self, peer: Peer) -> None:
        crash, header = peer.on(MIDDLE), peer.sessions.dressed.report.header
        names = ("header_version", "dump_level", "block_size", "max_mapnr")
        ours = (header.header_version, header.dump_level, header.page_size, header.described.end // 4096)
        assert tuple(map(crash.header_number, names)) == ours
        assert "DUMP_DH_COMPRESSED_ZLIB" in crash.answer("header")
        assert header.compression == "zlib"

    def test_notes(self, captures: Captures, peer: Peer, wanted: Wanted) -> None:
        header = captures[wanted].header
        assert peer.on(wanted).header_number("num_prstatus_notes") == len(header.cpu_notes)
        assert peer.on(wanted).header_number("size_vmcoreinfo") == len(header.vmcoreinfo_notes[0])

    def test_the_registers_of_every_note(self, captures: Captures, peer: Peer, wanted: Wanted) -> None:
        """By position: whose they are is another question."""
        theirs = [shown for shown in peer.on(wanted).registers.values() if shown is not None]
        ours = [registers_of(note) for note in captures[wanted].header.cpu_notes]
        assert theirs == [{name: value for name, value in note.items() if name in theirs[0]} for note in ours]
        assert {"RIP", "RSP"} <= set(theirs[0])

    def test_cpus_and_release(self, captures: Captures, peer: Peer, wanted: Wanted) -> None:
        topology = captures[wanted].topology
        assert int(peer.on(wanted).system("CPUS")) == len(known(topology.online_cpus))
        assert peer.on(wanted).system("RELEASE") == known(topology.release)

    def test_memory(self, captures: Captures, peer: Peer, wanted: Wanted) -> None:
        size = known(captures[wanted].topology.system_ram).size
        assert peer.on(wanted).system("MEMORY") == f"{size / (1 << 20):.1f} MB"

    def test_tasks(self, captures: Captures, peers: dict[str, Peer]) -> None:
        """crash counts the idle task of every CPU, vmcheck those that ran."""
        tasks = known(captures[MIDDLE].topology.tasks)
        others = sum(task.pid != 0 for task in tasks.tasks)
        online = len(known(captures[MIDDLE].topology.online_cpus))
        assert int(peers["9"].on(MIDDLE).system("TASKS")) == others + online

    def test_the_crashing_task(self, captures: Captures, peer: Peer) -> None:
        tasks = known(captures[MIDDLE].topology.tasks)
        line = rf"^PID: {crashed_pid(tasks)} .* CPU: {tasks.panic_cpu} "
        assert re.search(line, peer.on(MIDDLE).answer("stacks"), re.MULTILINE)
        assert tasks.panic_cpu is not None
        assert "sysrq_handle_crash" in [function for _, function in peer.on(MIDDLE).frames[tasks.panic_cpu]]


def crashed_pid(tasks: Tasks) -> int:
    assert tasks.crashed is not None
    assert tasks.crashed.pid is not None
    return tasks.crashed.pid


class TestShiftedRegisters:
    """The proof: CPU 3's registers are shown as CPU 2's."""

    def test_crash_shows_the_registers_that_cpu_3_saved_as_those_of_cpu_2(
        self, captures: Captures, peer: Peer
    ) -> None:
        header, topology = captures[MIDDLE].header, captures[MIDDLE].topology
        position = {cpu: position for position, cpu in Case(header, topology).notes.cpu_of.items()}
        assert position == {0: 0, 1: 1, 3: 2}
        shown = peer.on(MIDDLE).registers
        of_3 = registers_of(header.cpu_notes[position[3]])
        assert shown[2] == {name: of_3[name] for name in shown[2] or ()}
        assert shown[3] is None

    def test_and_its_own_backtraces_contradict_it(self, peer: Peer) -> None:
        """The stack pointer shown for CPU 2 is in the stack that ``bt -a`` walks for CPU 3."""
        crash = peer.on(MIDDLE)
        shown = crash.registers[2]
        assert shown is not None
        stacks = {cpu: {address // THREAD_SIZE for address, _ in crash.frames[cpu]} for cpu in (2, 3)}
        assert shown["RSP"] // THREAD_SIZE in stacks[3] - stacks[2]

    def test_crash_says_nothing_about_it(self, peer: Peer) -> None:
        """Both warnings come and go with what each CPU did at the crash, also on a whole dump."""
        usual = ("not found in PID hash", "possibly bogus exception frame")
        warnings = [line for line in peer.on(MIDDLE).everything.splitlines() if "WARNING" in line]
        assert [line for line in warnings if not any(words in line for words in usual)] == []
        assert peer.on(MIDDLE).status == 0


class TestMissingMemory:
    """The proof: nothing that a peer says of a dump without 128 MiB says so."""

    def test_what_the_crashing_task_needs_lies_in_the_missing_memory(self, captures: Captures) -> None:
        crashed = known(captures[LOST].topology.tasks).crashed
        assert crashed is not None
        assert crashed.task_struct_lost or crashed.lost_stack_pages == crashed.stack_pages > 0
        assert list(captures[LOST].report.lost_memory) == captures[LOST].missing_memory

    def test_neither_shows_a_frame_of_the_crash(self, captures: Captures, peer: Peer) -> None:
        """Which pages are missing varies: it exits before its prompt, or counts them as memory it has."""
        crash = peer.on(LOST)
        if crash.had_a_prompt:
            topology = captures[LOST].topology
            panicked = known(topology.tasks).panic_cpu
            assert panicked is not None
            assert crash.system("MEMORY") == f"{known(topology.system_ram).size / (1 << 20):.1f} MB"
            assert crash.frames.get(panicked, []) == []
        else:
            assert crash.status == 1

    def test_neither_names_what_is_missing(self, captures: Captures, peer: Peer) -> None:
        for start, end in captures[LOST].missing_memory:
            assert not re.search(rf"\b(0x)?({start:x}|{end:x})\b", peer.on(LOST).everything)

    def test_crash_9_opens_a_dump_that_is_whole(self, peers: dict[str, Peer]) -> None:
        assert peers["9"].on(WHOLE).had_a_prompt


class TestNewerKernel:
    """A whole dump of a 6.12, where its vmlinux is at hand."""

    def test_crash_8_exits_before_its_prompt(self, captures: Captures, peers: dict[str, Peer]) -> None:
        """Known disagreement: 8.0.2 is of 2022, and no page of this dump is missing."""
        if "8" not in peers:
            pytest.skip("no crash 8 here")
        crash = peers["8"].on(UPDATED)
        assert crash.status == 1
        assert not crash.had_a_prompt
        assert captures[UPDATED].report.lost_memory.size == 0

    def test_crash_9_opens_it(self, captures: Captures, peers: dict[str, Peer]) -> None:
        online = known(captures[UPDATED].topology.online_cpus)
        assert int(peers["9"].on(UPDATED).system("CPUS")) == len(online)


DRGN = """
import json, sys
import drgn
from drgn.helpers.linux import cpu_curr, for_each_online_cpu, for_each_task
prog = drgn.Program()
prog.set_core_dump(sys.argv[1])
prog.load_debug_info([sys.argv[2]])
thread = prog.crashed_thread()
def frames(trace):
    return [frame.name for frame in trace]
def stack_pointer(cpu):
    try:
        return prog.stack_trace(cpu_curr(prog, cpu))[0].register("rsp")
    except LookupError:
        return None
print(json.dumps({
    "pid": thread.tid,
    "frames": frames(thread.stack_trace()),
    "stack pointers": {cpu: stack_pointer(cpu) for cpu in for_each_online_cpu(prog)},
    "tasks": sum(1 for _ in for_each_task(prog)),
}))
"""


class TestDrgn:
    """drgn with debuginfo, as its user has it, in a process of its own."""

    def ask(self, fresh: Fresh) -> tuple[int, str]:
        command = [sys.executable, "-c", DRGN, str(fresh.vmcore), str(debuginfo(fresh))]
        return bounded(command, seconds=120)

    def on(self, fresh: Fresh) -> dict[str, object]:
        status, said = self.ask(fresh)
        assert status == 0, said
        found: dict[str, object] = json.loads(said.splitlines()[-1])
        return found

    def test_a_whole_stack_goes_through_panic_to_the_system_call(self, captures: Captures) -> None:
        frames = self.on(captures[WHOLE])["frames"]
        assert isinstance(frames, list)
        assert {"__crash_kexec", "panic", "vfs_write"} <= set(frames)

    def test_a_lost_stack_ends_after_two_frames_without_an_error(self, captures: Captures) -> None:
        """Known disagreement: two inlined frames are in the registers, and a fault then ends the trace.

        Where what leads to the task is missing too there is an error, and it has the address.
        """
        crashed = known(captures[LOST].topology.tasks).crashed
        assert crashed is not None
        status, said = self.ask(captures[LOST])
        if status:
            assert status == 1
            address = re.findall(r"FaultError: could not find physical memory segment: (0x\w+)", said)
            assert int(address[0], 16) in captures[LOST].report.lost_memory
        else:
            assert status == 0
            told = json.loads(said.splitlines()[-1])
            assert told["frames"] == ["crash_setup_regs", "__crash_kexec"]
            assert told["pid"] == crashed.pid

    def test_it_gives_cpu_3_its_own_registers_and_counts_the_same_tasks(self, captures: Captures) -> None:
        """It reads crash_notes, as vmcheck does."""
        told = self.on(captures[MIDDLE])
        fresh = captures[MIDDLE]
        positions = {
            cpu: position for position, cpu in Case(fresh.header, fresh.topology).notes.cpu_of.items()
        }
        pointers = told["stack pointers"]
        assert isinstance(pointers, dict)
        assert pointers["3"] == registers_of(fresh.header.cpu_notes[positions[3]])["RSP"]
        assert told["tasks"] == sum(task.pid != 0 for task in known(fresh.topology.tasks).tasks)
