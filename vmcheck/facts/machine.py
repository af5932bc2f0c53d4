# SPDX-License-Identifier: LGPL-2.1-or-later
"""Machines, as ``uname -m`` prints them."""

from __future__ import annotations

from collections.abc import Mapping

BY_E_MACHINE = {
    # e_machine: (32-bit, 64-bit little endian, 64-bit big endian)
    "EM_386": ("i686", "i686", "i686"),
    "EM_X86_64": ("x86_64", "x86_64", "x86_64"),
    "EM_ARM": ("armv7l", "armv7l", "armv7l"),
    "EM_AARCH64": ("aarch64", "aarch64", "aarch64_be"),
    "EM_PPC": ("ppc", "ppc", "ppc"),
    "EM_PPC64": ("ppc64", "ppc64le", "ppc64"),
    "EM_S390": ("s390", "s390x", "s390x"),
    "EM_RISCV": ("riscv32", "riscv64", "riscv64"),
    "EM_LOONGARCH": ("loongarch32", "loongarch64", "loongarch64"),
    "EM_MIPS": ("mips", "mips64", "mips64"),
    "EM_SPARC": ("sparc", "sparc64", "sparc64"),
    "EM_SPARCV9": ("sparc64", "sparc64", "sparc64"),
    "EM_IA_64": ("ia64", "ia64", "ia64"),
}

SMALLEST_PAGE = {"sparc64": 8192, "alpha": 8192}
PAGE_SIZES = [1 << shift for shift in range(12, 19)]
"""4 KiB to 256 KiB: what any Linux can be built for."""


def uname(e_machine: str | int, bits: int, byteorder: str) -> str:
    """``e_machine`` by its name, or by its number where that has none."""
    if names := BY_E_MACHINE.get(str(e_machine)):
        return names[0 if bits == 32 else 1 if byteorder == "little" else 2]
    return str(e_machine).removeprefix("EM_").lower()


def page_size(machine: str, vmcoreinfo: Mapping[str, str]) -> int:
    """Bytes. VMCOREINFO's PAGESIZE where it makes sense, else the machine's least."""
    said = vmcoreinfo.get("PAGESIZE", "")
    if said.isascii() and said.isdigit() and len(said) < 8 and int(said) in PAGE_SIZES:
        return int(said)
    return SMALLEST_PAGE.get(machine, 4096)
