# SPDX-License-Identifier: LGPL-2.1-or-later
"""What in a kernel's memory tells whose machine it was."""

from __future__ import annotations

from contextlib import suppress

from drgn import FaultError

from vmcheck.kernel.log import kernel_log
from vmcheck.kernel.program import Kernel

UTSNAME_FIELD = 65
"""Bytes of each member of struct new_utsname (include/uapi/linux/utsname.h)."""
SHORTEST_TEXT = 24
"""Log lines shorter than this identify nobody and occur in the kernel's own constants."""


def identifying(kernel: Kernel) -> list[bytes]:
    """Byte strings to blank: node and domain name, command line, lines of the log.

    What cannot be read is not kept by distill either, and so needs no blanking.
    """
    found: list[bytes] = []
    with suppress(LookupError, FaultError):
        address = kernel.vmcoreinfo_symbol("init_uts_ns") + kernel.vmcoreinfo_number(
            "OFFSET(uts_namespace.name)"
        )
        uts = kernel.read(address, 6 * UTSNAME_FIELD)
        # With its neighbour, so that a node called "a" is found in struct new_utsname alone.
        found += [uts[: 2 * UTSNAME_FIELD], uts[4 * UTSNAME_FIELD :]]
        node = uts[UTSNAME_FIELD : 2 * UTSNAME_FIELD].split(b"\0")[0]
        found += [node] if len(node) >= 4 and node != b"(none)" else []
    with suppress(LookupError, FaultError):
        found.append(bytes(kernel.prog["saved_command_line"].string_()))
    with suppress(LookupError, FaultError):
        lines = (line.partition("] ")[2].encode() for line in kernel_log(kernel).split("\n"))
        found += [line for line in lines if len(line) >= SHORTEST_TEXT]
    return [text for text in found if text.strip(b"\0")]
