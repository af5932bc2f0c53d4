# SPDX-License-Identifier: LGPL-2.1-or-later
"""``python -m vmcheck``, and where the command starts."""

import contextlib
import resource
import sys
from typing import NoReturn

LEAST = {"RLIMIT_AS": 160 << 20, "RLIMIT_DATA": 80 << 20}
"""Bytes. With less, a library that numpy loads ends the process itself, with the exit status 1."""


def main() -> NoReturn:
    for name, least in LEAST.items():
        limit, _ = resource.getrlimit(getattr(resource, name))
        if limit != resource.RLIM_INFINITY and limit < least:
            option = "-v" if name == "RLIMIT_AS" else "-d"
            sys.exit(_refused(f"ulimit {option} leaves {limit >> 20} MiB, and {least >> 20} MiB are needed"))
    try:
        from vmcheck.cli import main as run
    except (ImportError, MemoryError, OSError) as error:
        # Too few descriptors or too little memory. 1 would be a verdict.
        sys.exit(_refused(str(error)))
    run()


def _refused(why: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        print(f"vmcheck: cannot start: {why}", file=sys.stderr, flush=True)
    return 3


if __name__ == "__main__":
    main()
