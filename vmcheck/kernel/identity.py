# SPDX-License-Identifier: LGPL-2.1-or-later
"""What in a kernel's memory identifies the machine."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from drgn import FaultError

from vmcheck.kernel.log import kernel_log
from vmcheck.kernel.program import Kernel

UTSNAME_FIELD = 65
"""Bytes of each member of struct new_utsname (include/uapi/linux/utsname.h)."""
SHORTEST_LINE = 24
"""Log lines shorter than this identify nobody and occur in the kernel's own constants."""
SHORTEST_PARAMETER = 12
"""As for ``quiet`` and ``panic=-1``."""
SHORTEST_NAME = 4
EDGE = 8
"""Bytes of a phrase that tell it where a page ends in the middle of it."""


@dataclass(frozen=True)
class Identity:
    phrases: tuple[bytes, ...]
    """Long enough to be nothing else: command line, its parameters, lines of the log."""
    names: tuple[bytes, ...]
    """Node and domain: a host may be called ``node``, as are members of the kernel's own types."""

    @cached_property
    def _edges(self) -> frozenset[bytes]:
        """What a page can begin or end with in the middle of a phrase."""
        windows = {
            phrase[begin : begin + EDGE] for phrase in self.phrases for begin in range(len(phrase) - EDGE + 1)
        }
        return frozenset(windows - {bytes(EDGE)})

    def blanked(self, page: bytes, constant: bool = False) -> bytes:
        """The page with zeros for all of this; names are left alone in the kernel's own constants."""
        for phrase in self.phrases:
            if phrase in page:
                page = page.replace(phrase, bytes(len(phrase)))
        if not self._edges.isdisjoint((page[:EDGE], page[-EDGE:])):
            for phrase in self.phrases:
                page = _without_beginning(phrase, _without_end(phrase, page))
        if constant:
            return page
        for name in self.names:
            if name in page:
                word = rb"(?<![\w-])" + re.escape(name) + rb"(?![\w-])"
                page = re.sub(word, bytes(len(name)), page)
        return page


def _without_beginning(phrase: bytes, page: bytes) -> bytes:
    """Without a phrase that goes on behind the page."""
    place = phrase.find(page[-EDGE:])
    length = place + EDGE
    if place < 0 or not page.endswith(phrase[:length]):
        return page
    return page[:-length] + bytes(length)


def _without_end(phrase: bytes, page: bytes) -> bytes:
    """Without a phrase that began before the page."""
    place = phrase.rfind(page[:EDGE])
    end = phrase[place:]
    return bytes(len(end)) + page[len(end) :] if place >= 0 and page.startswith(end) else page


def identity(kernel: Kernel) -> Identity:
    """From whatever copies can be read: each may be lost, or not be in the dump."""
    phrases, names = [], [*kernel.header.utsname[1:2], *kernel.header.utsname[5:6]]
    with suppress(LookupError, FaultError):
        uts = kernel.read(kernel.vmcoreinfo_symbol("init_uts_ns") + _name_offset(kernel), 6 * UTSNAME_FIELD)
        # With its neighbour, so that a node called "a" is found in struct new_utsname alone.
        phrases += [uts[: 2 * UTSNAME_FIELD], uts[4 * UTSNAME_FIELD :]]
        names += [_field(uts, 1), _field(uts, 5)]
    command_lines = []
    with suppress(LookupError, FaultError):
        command_lines.append(bytes(kernel.prog["saved_command_line"].string_()))
    with suppress(LookupError, FaultError):
        lines = [line.partition("] ")[2] for line in kernel_log(kernel).split("\n")]
        command_lines += [line.partition("ommand line: ")[2].encode() for line in lines]
        banner = _banner(kernel)
        phrases += [
            line.encode() for line in lines if len(line) >= SHORTEST_LINE and line.encode() not in banner
        ]
    for line in command_lines:
        phrases += [line, *_parameters(line)]
    return Identity(
        tuple(dict.fromkeys(phrase for phrase in phrases if len(phrase.strip(b"\0")) >= EDGE)),
        tuple({name.encode() for name in names if len(name) >= SHORTEST_NAME and name != "(none)"}),
    )


def _name_offset(kernel: Kernel) -> int:
    """Of struct new_utsname in struct uts_namespace. VMCOREINFO has it since v6.1."""
    try:
        return kernel.vmcoreinfo_number("OFFSET(uts_namespace.name)")
    except LookupError:
        return int(kernel.prog.type("struct uts_namespace").member("name").offset)


def _field(uts: bytes, number: int) -> str:
    return uts[number * UTSNAME_FIELD :][:UTSNAME_FIELD].split(b"\0")[0].decode("utf-8", "replace")


def _parameters(command_line: bytes) -> Iterable[bytes]:
    """Those with a value of their own: parse_args() puts a NUL behind each in its copy of the line."""
    return [part for part in command_line.split() if b"=" in part and len(part) >= SHORTEST_PARAMETER]


def _banner(kernel: Kernel) -> bytes:
    """The log begins with linux_banner, a constant that names the build and is read by a check."""
    with suppress(LookupError, FaultError):
        return bytes(kernel.prog["linux_banner"].string_())
    return b""
