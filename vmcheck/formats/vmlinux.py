# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a vmlinux tells of its kernel without DWARF: build ID, BTF, symbols, release."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from elftools.common.exceptions import ELFError
from elftools.construct.core import ConstructError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import NoteSection, SymbolTableSection

from vmcheck.errors import VmcheckError
from vmcheck.files import open_input

_DATA = {"STT_OBJECT", "STT_NOTYPE"}


@contextmanager
def _opened(path: str) -> Iterator[ELFFile]:
    try:
        with open_input(path) as file:
            yield ELFFile(file)
    except OSError as error:
        raise VmcheckError(f"{path}: {error.strerror}") from None
    except (ELFError, ConstructError, ValueError, OverflowError, MemoryError) as error:
        raise VmcheckError(f"{path}: not a vmlinux nor a vmcheck symbol file: {error}") from None


def build_id(path: str) -> str | None:
    """The GNU build ID in hexadecimal; None where the file has none."""
    with _opened(path) as elf:
        for section in elf.iter_sections("SHT_NOTE"):
            assert isinstance(section, NoteSection)
            for note in section.iter_notes():
                if note["n_name"] == "GNU" and note["n_type"] == "NT_GNU_BUILD_ID":
                    return str(note["n_desc"])
    return None


def btf(path: str) -> bytes:
    """The .BTF section. Raises VmcheckError where there is none."""
    with _opened(path) as elf:
        section = elf.get_section_by_name(".BTF")
        if section is None:
            raise VmcheckError(f"{path}: no .BTF section: the kernel was built without CONFIG_DEBUG_INFO_BTF")
        return bytes(section.data())


def data_symbols(path: str) -> list[tuple[str, int]]:
    """Name and link-time address of every object that is no function."""
    with _opened(path) as elf:
        table = elf.get_section_by_name(".symtab")
        if not isinstance(table, SymbolTableSection):
            raise VmcheckError(f"{path}: no .symtab section: the file is stripped")
        return [
            (symbol.name, int(symbol["st_value"]))
            for symbol in table.iter_symbols()
            if symbol["st_info"]["type"] in _DATA and symbol["st_value"] and symbol.name
        ]
