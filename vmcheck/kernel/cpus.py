# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which CPUs a kernel has, and the registers that they saved."""

from __future__ import annotations

import struct

import numpy as np
from drgn import FaultError, sizeof

from vmcheck.facts.header import Producer, unwritten_registers
from vmcheck.facts.topology import SavedNote, Unknown
from vmcheck.kernel.program import Kernel

MAX_CPUS = 8192
"""The most that CONFIG_NR_CPUS can be."""
MIN_NOTE = 20
"""Bytes: the note's header and its name."""
MAX_NOTE = 64 << 10
"""Bytes. note_buf_t has 148 to 536, by machine."""


def mask(kernel: Kernel, name: str) -> frozenset[int]:
    """CPU numbers in ``__cpu_<name>_mask``. Raises LookupError or FaultError."""
    # Before Linux kernel commit 5aec01b834fd ("kernel/cpu.c: eliminate cpu_*_mask") (in v4.5).
    old = f"cpu_{name}_bits"
    has_old = kernel.symbols is not None and kernel.symbols.address(old) is not None
    variable = kernel.prog[old if has_old else f"__cpu_{name}_mask"]
    address = variable.address_
    assert address is not None
    size = min(sizeof(variable), MAX_CPUS // 8) * 8 // kernel.header.bits
    words = kernel.words(address, size)
    bits = np.unpackbits(
        words.astype("<u8").view(np.uint8).reshape(-1, 8)[:, : kernel.header.bits // 8], bitorder="little"
    )
    return frozenset(np.flatnonzero(bits).tolist())


def saved_notes(kernel: Kernel, cpus: frozenset[int]) -> dict[int, SavedNote | Unknown]:
    """``crash_notes`` of each CPU. Raises LookupError or FaultError where it cannot be found at all.

    crash_save_cpu() fills it on every CPU that stops, whether or not elfcorehdr names it. On a
    kernel that has not crashed, where it will be filled stands for what it will hold.
    """
    size = min(max(_note_size(kernel), MIN_NOTE), MAX_NOTE)
    base = int(kernel.prog["crash_notes"])
    if not base:
        raise LookupError("crash_notes was never allocated")
    offsets = kernel.prog["__per_cpu_offset"]
    found: dict[int, SavedNote | Unknown] = {}
    for cpu in sorted(cpus):
        try:
            address = (base + int(offsets[cpu])) % (1 << kernel.header.bits)
            if kernel.header.producer is Producer.LOADED:
                # What a PT_NOTE of elfcorehdr holds: per_cpu_ptr_to_phys().
                found[cpu] = SavedNote(unwritten_registers(kernel.physical(address)))
            else:
                found[cpu] = _parse(kernel.read(address, size), kernel)
        except FaultError as error:
            found[cpu] = Unknown(f"crash_notes of CPU {cpu}: {error}")
    return found


def _note_size(kernel: Kernel) -> int:
    try:
        return int(sizeof(kernel.prog.type("note_buf_t")))
    except LookupError:
        # The note's header and name, the registers, and an empty note behind them.
        prstatus = kernel.header.arch.prstatus
        return 512 if prstatus is None else MIN_NOTE + prstatus


def _parse(data: bytes, kernel: Kernel) -> SavedNote | Unknown:
    """The descriptor of the NT_PRSTATUS that crash_save_cpu() wrote."""
    n_namesz, n_descsz, n_type = struct.unpack_from(
        "<III" if kernel.header.byteorder == "little" else ">III", data
    )
    if not n_namesz:
        return SavedNote(b"")
    descriptor = data[20 : 20 + n_descsz]
    if (n_type, data[12 : 12 + n_namesz]) != (1, b"CORE\0") or len(descriptor) < n_descsz:
        return Unknown(f"crash_notes begins with n_namesz {n_namesz}, n_descsz {n_descsz}, n_type {n_type}")
    return SavedNote(descriptor)
