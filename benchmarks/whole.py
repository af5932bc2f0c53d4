# SPDX-License-Identifier: LGPL-2.1-or-later
"""A whole ``vmcheck check`` of a real dump, Python's start included."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

from benchmarks.inputs import Inputs, tool
from benchmarks.measure import Peak, Row, Work, command, compared, megabytes, peak_memory
from vmcheck.check import ExitStatus
from vmcheck.facts.ranges import EMPTY, RangeSet
from vmcheck.formats import open_dump
from vmcheck.operations.examine import read_kernel

MOST_SECONDS = 0.5
MOST_MEMORY = 120 * 10**6
MOST_READ = 0.05
"""Part of a raw dump's bytes."""
PARTS_OF_CRASH = 0.1
SLOW_REPETITIONS = 3
"""Of crash, which takes ten seconds."""
VERDICTS = (ExitStatus.COMPLETE, ExitStatus.FOUND, ExitStatus.COULD_NOT_TELL)


def check_alone(inputs: Inputs) -> Iterator[Row]:
    """Beside what any program that uses numpy and drgn has to do first."""
    imports = command([sys.executable, "-c", "import numpy, drgn"], inputs.python)
    yield compared(
        f"`vmcheck check` of {_size(inputs.dump)}",
        _check(inputs, inputs.dump),
        "Python importing numpy and drgn",
        imports,
        inputs.repetitions,
        within=MOST_SECONDS,
    )


def check_raw(inputs: Inputs) -> Iterator[Row]:
    readelf = tool("readelf", "binutils")
    yield compared(
        f"`vmcheck check` of {_size(inputs.raw)}, a raw /proc/vmcore",
        _check(inputs, inputs.raw),
        "`readelf -lnW`",
        command([readelf, "-lnW", inputs.raw]),
        inputs.repetitions,
        within=MOST_SECONDS,
    )


def check_beside_crash(inputs: Inputs) -> Iterator[Row]:
    crash = tool("crash", "crash")
    yield compared(
        "`vmcheck check` of the same dump",
        _check(inputs, inputs.whole_dump),
        "`crash -s vmlinux` to its prompt",
        command([crash, "-s", inputs.vmlinux, inputs.whole_dump]),
        min(inputs.repetitions, SLOW_REPETITIONS),
        at_most=PARTS_OF_CRASH,
    )


def check_beside_drgn(inputs: Inputs) -> Iterator[Row]:
    facts = Path(__file__).with_name("drgn_facts.py")
    yield compared(
        "`vmcheck check` of the same dump",
        _check(inputs, inputs.whole_dump),
        "drgn with the vmlinux's DWARF, the same facts",
        command([sys.executable, facts, inputs.whole_dump, inputs.vmlinux], inputs.python),
        inputs.repetitions,
    )


def memory(inputs: Inputs) -> Iterator[Row]:
    """The most of several runs: the sum over processes is sampled, and can miss its peak."""
    runs = [
        peak_memory(inputs.vmcheck("check", inputs.dump), inputs.python)
        for _ in range(min(inputs.repetitions, 5))
    ]
    peak = Peak(*map(max, zip(*runs, strict=True)))
    yield Row(
        "peak memory of that check",
        f"{megabytes(peak.largest)} in the larger process, {megabytes(peak.together)} in both",
        target=f"under {megabytes(MOST_MEMORY)}",
        reached=max(peak) < MOST_MEMORY,
    )


def bytes_read(inputs: Inputs) -> Iterator[Row]:
    with open_dump([inputs.raw], record=True) as dump:
        read_kernel(dump.header, dump.memory)
        read = reduce(RangeSet.__or__, (file.extents for file in dump.files), EMPTY).size
        size = dump.header.file_size
    yield Row(
        "bytes that a check reads of a raw dump",
        f"{megabytes(read)} of {megabytes(size)}",
        ratio=read / size,
        target=f"under {MOST_READ:.0%} of them",
        reached=read < MOST_READ * size,
    )


def _check(inputs: Inputs, dump: Path) -> Work:
    return command(inputs.vmcheck("check", dump), inputs.python, VERDICTS)


def _size(path: Path) -> str:
    return f"a dump of {megabytes(path.stat().st_size)}"
