# SPDX-License-Identifier: LGPL-2.1-or-later
"""``python -m benchmarks``: measure, print the table, write it into docs/performance.md."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

# As vmcheck's own command does, before anything imports numpy.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from benchmarks import headers, page, ranges, topology, whole
from benchmarks.inputs import ROOT, Inputs
from benchmarks.measure import Lacking, Row

PAGE = ROOT / "docs" / "performance.md"
BENCHMARKS: dict[str, Callable[[Inputs], Iterator[Row]]] = {
    "check": whole.check_alone,
    "crash": whole.check_beside_crash,
    "drgn": whole.check_beside_drgn,
    "raw": whole.check_raw,
    "memory": whole.memory,
    "bytes": whole.bytes_read,
    "headers": headers.program_headers,
    "bitmaps": headers.bitmaps,
    "ranges": ranges.range_sets,
    "topology": topology.topology,
}


def measure(names: Sequence[str], inputs: Inputs) -> list[Row]:
    """The rows of the named benchmarks, or of all. One that lacks something is a row that says so."""
    rows: list[Row] = []
    for name in names or BENCHMARKS:
        print(f"{name}...", file=sys.stderr, flush=True)
        try:
            rows += BENCHMARKS[name](inputs)
        except Lacking as reason:
            rows.append(Row(name, f"not measured: {reason}"))
    return rows


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    options.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; by default all"
    )
    options.add_argument("--dump", type=Path, help="a real kdump-compressed dump; by default the lab's")
    options.add_argument("--raw", type=Path, help="a raw /proc/vmcore; by default the lab's")
    options.add_argument("--vmlinux", type=Path, help="the dump's vmlinux with DWARF; by default the lab's")
    options.add_argument("--repetitions", type=int, default=15, metavar="N")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if unknown := set(options.names) - set(BENCHMARKS):
        parser().error(f"no benchmark {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="vmcheck-benchmarks.") as folder:
        inputs = Inputs(Path(folder), options.dump, options.raw, options.vmlinux, max(1, options.repetitions))
        rows = measure(options.names, inputs)
    text = f"{page.table(rows)}\n\n{page.machine()}"
    print(text)
    if not options.names:
        page.write(PAGE, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
