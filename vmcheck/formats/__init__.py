# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bytes -> :class:`~vmcheck.facts.header.DumpHeader`, from every clothing that a vmcore wears.

The format is recognised by its signature, never by the file's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol

from vmcheck.errors import UnreadableFile
from vmcheck.facts.body import Body, Verified
from vmcheck.facts.header import DumpHeader
from vmcheck.files import open_input
from vmcheck.formats import flattened, kdump, signatures
from vmcheck.formats.file import DumpFile, StoredFile
from vmcheck.formats.kdump import SplitPart as SplitPart

ELF_SIGNATURE = b"\x7fELF"
ELF_CORE = 4
"""e_type: ET_CORE."""
ELF_EXECUTABLES = 2, 3
"""ET_EXEC and ET_DYN."""


class Memory(Protocol):
    """Physical memory that a dump holds."""

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes at a physical address, or :class:`~vmcheck.errors.PageNotStored`."""

    def body(self) -> Body:
        """What became of the pages that the headers promise."""

    def verify(self, start: int, end: int) -> Verified:
        """Unpack or read every page with a physical address in ``[start, end)``."""

    def mark(self) -> dict[int, bytes]:
        """By file offset, what says that ``vmcheck distill`` made the file."""

    def header_patches(self) -> dict[int, bytes]:
        """By file offset, what blanks in the headers what identifies the machine."""

    def page_patches(self, address: int, page: bytes) -> dict[int, bytes]:
        """By file offset, what makes a stored page hold other bytes."""


class Dump:
    """An open dump: its headers, its memory and its files."""

    header: DumpHeader
    memory: Memory
    files: tuple[DumpFile, ...]
    """As given; of a flattened stream the file that it stands for. Their extents are those read."""

    def __init__(self, paths: Sequence[str | Path], record: bool = False) -> None:
        with ExitStack() as opened:
            self.files = tuple(opened.enter_context(_open_file(path, record)) for path in paths)
            header, self.memory = _read(self.files)
            self.header = _of_stream(header, self.files)
            self._opened = opened.pop_all()

    def close(self) -> None:
        self._opened.close()

    def __enter__(self) -> Dump:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_dump(paths: Sequence[str | Path], record: bool = False) -> Dump:
    """A dump from its file, or from the parts of ``makedumpfile --split`` in any order.

    With ``record``, :attr:`Dump.files` keep the extents that are read.
    """
    return Dump(paths, record)


def is_dump(head: bytes) -> bool:
    """Whether a file that begins so is a dump, or pretends to be one. Other ELF files are none."""
    if head.startswith((kdump.SIGNATURE, flattened.SIGNATURE)):
        return True
    order: Literal["little", "big"] = "big" if head[5:6] == b"\2" else "little"
    return head.startswith(ELF_SIGNATURE) and int.from_bytes(head[16:18], order) == ELF_CORE


def is_executable(path: str) -> bool:
    """Whether the file is an ELF executable or shared object, as a vmlinux is, and no core."""
    with open_input(path) as file:
        head = file.read(18)
    order: Literal["little", "big"] = "little" if head[5:6] == b"\x01" else "big"
    return head[:4] == ELF_SIGNATURE and int.from_bytes(head[16:18], order) in ELF_EXECUTABLES


def read_header(paths: Sequence[str | Path]) -> DumpHeader:
    """What a dump's headers claim."""
    with open_dump(paths) as dump:
        return dump.header


def split_part(path: str | Path) -> SplitPart | None:
    """Which part of which dump a file is, by its headers alone; None where it is no part of one."""
    with _open_file(path, False) as file:
        return kdump.split_part(file) if file.read(0, min(8, file.size)) == kdump.SIGNATURE else None


def _open_file(path: str | Path, record: bool) -> DumpFile:
    stored = StoredFile(path, record)
    try:
        if stored.read(0, min(16, stored.size)) != flattened.SIGNATURE:
            return stored
        stored.record = False
        return flattened.FlattenedFile(stored, record)
    except BaseException:
        stored.close()
        raise


def _of_stream(header: DumpHeader, files: Sequence[DumpFile]) -> DumpHeader:
    """``header`` with what only the flattened stream knows: a cut one lacks its end mark at the least."""
    if not any(isinstance(file, flattened.FlattenedFile) for file in files):
        return header
    header = replace(header, flattened=True)
    if not any(file.cut for file in files):
        return header
    least = header.file_size + flattened.RECORD.size
    return replace(header, expected_size=max(header.expected_size, least))


def _read(files: Sequence[DumpFile]) -> tuple[DumpHeader, Memory]:
    if not files:
        raise ValueError("no file was given")
    heads = [file.read(0, min(8, file.size)) for file in files]
    if all(head == kdump.SIGNATURE for head in heads):
        return kdump.read(files)
    for file, head in zip(files, heads, strict=True):
        if head != kdump.SIGNATURE and not head.startswith(ELF_SIGNATURE):
            raise signatures.refuse(file)
    if len(files) > 1:
        raise UnreadableFile(
            f"{files[1].name}: only parts of a split kdump-compressed dump are read together"
        )
    # pyelftools takes a tenth of a second to import, and most dumps are not ELF.
    from vmcheck.formats import elf

    return elf.read(files[0])
