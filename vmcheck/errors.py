# SPDX-License-Identifier: LGPL-2.1-or-later
"""The errors a user can act on. Anything else that escapes is a bug and tracebacks."""

from __future__ import annotations


def plain(text: str) -> str:
    """``text`` on one line, control and other unprintable characters shown as escapes.

    Names and strings of a dump are a stranger's: a terminal must show them, never obey them.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class VmcheckError(Exception):
    """One line for the user: the file, the field, what it held and what was possible."""

    def __init__(self, message: str) -> None:
        super().__init__(plain(message))


class UnreadableFile(VmcheckError):
    """The file cannot be read at all, or its header contradicts itself."""


class UnsupportedFormat(VmcheckError):
    """The file is something else, recognised and named where that is possible."""


class PageNotStored(VmcheckError):
    """Physical memory that the dump does not hold; the message says why."""

    def __init__(self, message: str, address: int | None = None) -> None:
        super().__init__(message)
        self.address = address
        """The first physical address that could not be read."""
