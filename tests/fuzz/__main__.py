# SPDX-License-Identifier: LGPL-2.1-or-later
"""``make fuzz``: mutated inputs of every reader, and damaged dumps of a known truth. --help has more."""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.campaign import Answer, Result, guarded, minimised, operations, run
from tests.fuzz.readers import Reader, readers
from tests.fuzz.truths import Damaged, damaged


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="for both parts together [120]")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other cases [1]")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="worker processes [the cores]")
    parser.add_argument("--part", choices=["readers", "truths", "both"], default="both")
    parser.add_argument("--only", default="", help="readers or dumps that have this in their name")
    parser.add_argument("--case", type=int, help="try this case alone, and show how it ends")
    parser.add_argument("--output", type=Path, default=Path("build/fuzz"), help="where failures are filed")
    wanted = parser.parse_args()
    share = wanted.seconds / (2 if wanted.part == "both" else 1)
    failed = 0
    if wanted.part in ("readers", "both"):
        failed += _readers(wanted, share)
    if wanted.part in ("truths", "both"):
        failed += _truths(wanted, share)
    return 1 if failed else 0


def _readers(wanted: argparse.Namespace, seconds: float) -> int:
    every = [reader for reader in readers() if wanted.only in reader.name]
    if not every:
        return 0
    weights = [reader.weight for reader in every]

    def chosen(case: int) -> Reader:
        return random.Random(~case).choices(every, weights)[0]

    def attempt(case: int, folder: Path) -> Answer:
        reader, made_of = chosen(case), operations(case)
        answer = guarded(lambda: reader.read(made_of, folder))
        return answer._replace(counts=(reader.name, f"{reader.name}: {answer.outcome}"))

    if wanted.case is not None:
        return _show(attempt(wanted.case, _empty(wanted.output / "case")), chosen(wanted.case).name)
    result = run(attempt, wanted.seed * 10**9, 10**8, seconds, wanted.jobs)
    print(f"readers: {_told(result)}")
    for name in sorted({reader.name for reader in every}):
        ends = ("answered", "refused", "budget", "traceback", "memory")
        told = ", ".join(f"{n} {end}" for end in ends if (n := result.counts[f"{name}: {end}"]))
        print(f"  {name}: {result.counts[name]:,} cases: {told}")
    for case, answer in result.failures.items():
        reader = chosen(case)

        def fails(some: Sequence[int], reader: Reader = reader) -> bool:
            folder = _empty(wanted.output / "minimising")
            return guarded(lambda: reader.read(some, folder)).outcome not in ("answered", "refused", "budget")

        fewer = minimised(fails, operations(case))
        _file(wanted.output / f"readers-{case}", reader.name, answer, fewer, reader.input(fewer))
    return len(result.failures)


def _truths(wanted: argparse.Namespace, seconds: float) -> int:
    every = [dump for dump in damaged() if wanted.only in dump.name]
    if not every:
        return 0

    def chosen(case: int) -> Damaged:
        return every[case % len(every)]

    def attempt(case: int, folder: Path) -> Answer:
        return chosen(case).attempt(operations(case), folder)

    if wanted.case is not None:
        return _show(attempt(wanted.case, _empty(wanted.output / "case")), chosen(wanted.case).name)
    result = run(attempt, wanted.seed * 10**9, 10**8, seconds, wanted.jobs)
    print(f"truths: {_told(result)}")
    for what, number in sorted(result.counts.items()):
        print(f"  {what}: {number:,}")
    for case, answer in result.failures.items():
        dump = chosen(case)
        _file(wanted.output / f"truths-{case}", dump.name, answer, operations(case), b"")
    return len(result.failures)


def _told(result: Result) -> str:
    ends = ", ".join(f"{number:,} {end}" for end, number in sorted(result.outcomes.items()))
    return f"{result.cases:,} cases in {result.seconds:.0f} s: {ends or 'none'}"


def _show(answer: Answer, name: str) -> int:
    print(f"{name}: {answer.outcome}\n{answer.detail}\n{answer.counts}")
    return 0


def _empty(folder: Path) -> Path:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _file(folder: Path, name: str, answer: Answer, made_of: Sequence[int], data: bytes) -> None:
    """One failure: what it is, and the input."""
    folder.mkdir(parents=True, exist_ok=True)
    note = f"{name}: {answer.outcome}\noperations {list(made_of)}\n\n{answer.detail}\n"
    (folder / "note.txt").write_text(note)
    if data:
        (folder / "input").write_bytes(data)
    print(f"  FAILED: {folder}: {name}: {answer.outcome}: {answer.detail.strip().splitlines()[-1:]}")


if __name__ == "__main__":
    sys.exit(main())
