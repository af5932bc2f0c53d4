# SPDX-License-Identifier: LGPL-2.1-or-later
"""What differs between machines: one record each. No other module compares a machine's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ByteOrder = Literal["little", "big"]

KiB, MiB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Machine:
    """One architecture as the kernel builds it. None: not known, or there is none."""

    name: str
    """As ``uname -m`` prints it."""
    bits: Literal[32, 64] | None = None
    """Of a kernel's pointers, whatever the class of the ELF file around it."""
    byteorder: ByteOrder | None = None
    e_machine: str | None = None
    """Its constant in the ELF header, by name."""
    aliases: tuple[str, ...] = ()
    """Other names that ``uname -m`` or distributions use for the same."""
    drgn: str | None = None
    """The name of drgn's Architecture. None: drgn cannot read its kernels."""
    smallest_page: int = 4 * KiB
    """Bytes."""
    section_size_bits: int | None = None
    """SECTION_SIZE_BITS, where all kernels have the same and a root of mem_section is a page."""
    stack: int | None = None
    """THREAD_SIZE in bytes: a kernel stack. KASAN doubles it, which is not seen."""
    stack_of_a_page: bool = False
    """A kernel stack is a page where pages are larger than ``stack`` (arm64's MIN_THREAD_SHIFT)."""
    registers: int | None = None
    """Bytes of elf_gregset_t, the registers in ``struct elf_prstatus``."""
    x86: bool = False
    """elf_header_exclude_ranges() leaves out the first MiB, which the crash kernel itself uses."""
    image_base: int | None = None
    """Where the kernel image is mapped (less phys_base), apart from the direct map."""
    capture_kernel_writes_header: bool = False
    """elfcorehdr is made after the crash, and registers are taken by the machine, not by crash_notes."""
    kernel_updates_since: str | None = None
    """The release in which the kernel can first update elfcorehdr itself (CONFIG_CRASH_HOTPLUG)."""
    kexec_file_load: bool = False
    """A kernel can have CONFIG_KEXEC_FILE."""
    kexec_tools_ranges: int | None = None
    """CRASH_MAX_MEMORY_RANGES of kexec-tools: ranges of memory beyond it are dropped silently."""
    kexec_tools_exact_ram: bool = False
    """kexec-tools describes lines of /proc/iomem that are "System RAM" exactly, no "System RAM (driver)"."""
    packed_off_t: bool = False
    """A 64-bit member of a struct is aligned to 4 bytes."""

    @property
    def known(self) -> bool:
        return self.bits is not None

    def kernel_bits(self, file_bits: int) -> int:
        """Bits of the kernel's pointers in a file of ``file_bits``, which may be around a smaller kernel.

        QEMU calls a machine x86_64 whose CPUs are in 32-bit mode, and writes 32-bit notes.
        """
        return min(self.bits or file_bits, file_bits)

    @property
    def pr_pid(self) -> int | None:
        """Offset of pr_pid in ``struct elf_prstatus`` (include/linux/elfcore.h), bytes."""
        return None if self.bits is None else PR_PID[self.bits]

    @property
    def prstatus(self) -> int | None:
        """sizeof(struct elf_prstatus), bytes: pr_reg is 112 or 72 bytes in, pr_fpvalid comes last."""
        if self.registers is None or self.bits is None:
            return None
        word = self.bits // 8
        return (112 if self.bits == 64 else 72) + self.registers + word

    def stack_size(self, page_size: int) -> int | None:
        """Bytes of a kernel stack where a page has ``page_size``."""
        if self.stack is None:
            return None
        return max(self.stack, page_size) if self.stack_of_a_page else self.stack


PR_PID: Mapping[int, int] = {32: 24, 64: 32}
"""By the bits of a pointer, where the machine is not known."""

# THREAD_SIZE: arch/*/include/asm/thread_info.h, Kconfig's THREAD_SHIFT for powerpc.
# CONFIG_CRASH_HOTPLUG: x86 since v6.6, powerpc since v6.10.
# CONFIG_KEXEC_FILE: ARCH_SUPPORTS_KEXEC_FILE in arch/*/Kconfig.
MACHINES: tuple[Machine, ...] = (
    Machine(
        "x86_64", 64, "little", "EM_X86_64", aliases=("amd64",), drgn="X86_64",
        section_size_bits=27, stack=16 * KiB, registers=27 * 8, x86=True, image_base=0xFFFFFFFF80000000,
        kernel_updates_since="6.6", kexec_file_load=True, kexec_tools_ranges=32768,
    ),
    Machine(
        "i686", 32, "little", "EM_386", aliases=("i386", "i486", "i586"), drgn="I386",
        stack=8 * KiB, registers=17 * 4, x86=True,
        kernel_updates_since="6.6", kexec_tools_ranges=32768, packed_off_t=True,
    ),
    Machine(
        "aarch64", 64, "little", "EM_AARCH64", aliases=("arm64",), drgn="AARCH64",
        stack=16 * KiB, stack_of_a_page=True, registers=34 * 8,
        kexec_file_load=True, kexec_tools_exact_ram=True,
    ),
    Machine(
        "aarch64_be", 64, "big", "EM_AARCH64", drgn="AARCH64",
        stack=16 * KiB, stack_of_a_page=True, registers=34 * 8,
        kexec_file_load=True, kexec_tools_exact_ram=True,
    ),
    Machine(
        "armv7l", 32, "little", "EM_ARM", aliases=("arm", "armv6l", "armv7", "armv8l", "armhf"), drgn="ARM",
        stack=8 * KiB, registers=18 * 4, kexec_tools_exact_ram=True,
    ),
    Machine(
        "ppc64le", 64, "little", "EM_PPC64", aliases=("ppc64el", "powerpc64le"), drgn="PPC64",
        stack=16 * KiB, registers=48 * 8, kernel_updates_since="6.10", kexec_file_load=True,
    ),
    Machine(
        "ppc64", 64, "big", "EM_PPC64", aliases=("powerpc64",), drgn="PPC64",
        stack=16 * KiB, registers=48 * 8, kernel_updates_since="6.10", kexec_file_load=True,
    ),
    Machine("ppc", 32, "big", "EM_PPC", aliases=("powerpc",), stack=8 * KiB, registers=48 * 4),
    Machine(
        "s390x", 64, "big", "EM_S390", drgn="S390X", stack=16 * KiB, registers=27 * 8,
        capture_kernel_writes_header=True, kexec_file_load=True,
    ),
    Machine("s390", 32, "big", "EM_S390", stack=8 * KiB, capture_kernel_writes_header=True),
    Machine(
        "riscv64", 64, "little", "EM_RISCV", drgn="RISCV64",
        stack=16 * KiB, registers=32 * 8, kexec_file_load=True, kexec_tools_exact_ram=True,
    ),
    Machine("riscv32", 32, "little", "EM_RISCV", drgn="RISCV32", stack=8 * KiB, registers=32 * 4),
    Machine(
        "loongarch64", 64, "little", "EM_LOONGARCH", aliases=("loong64",),
        stack=16 * KiB, registers=45 * 8, kexec_file_load=True, kexec_tools_ranges=1024,
        kexec_tools_exact_ram=True,
    ),
    Machine("loongarch32", 32, "little", "EM_LOONGARCH", stack=8 * KiB),
    Machine("mips64", 64, "big", "EM_MIPS", aliases=("mips64el",), stack=16 * KiB, registers=45 * 8),
    Machine("mips", 32, "big", "EM_MIPS", aliases=("mipsel",), stack=8 * KiB, registers=45 * 4),
    Machine("sparc64", 64, "big", "EM_SPARCV9", smallest_page=8 * KiB, stack=16 * KiB),
    Machine("sparc", 32, "big", "EM_SPARC", stack=8 * KiB),
    Machine("alpha", 64, "little", "EM_ALPHA", smallest_page=8 * KiB, stack=16 * KiB),
    Machine("ia64", 64, "little", "EM_IA_64", stack=32 * KiB),
)  # fmt: skip

_BY_NAME = {name: each for each in MACHINES for name in (each.name, *each.aliases)}
_BY_ELF: dict[str, list[Machine]] = {}
for _each in MACHINES:
    _BY_ELF.setdefault(_each.e_machine or "", []).append(_each)

PRSTATUS = frozenset(each.prstatus for each in MACHINES if each.prstatus)
"""Sizes of ``struct elf_prstatus``, bytes."""
PRSTATUS_32 = frozenset(each.prstatus for each in MACHINES if each.bits == 32 and each.prstatus)
"""Sizes of ``struct elf_prstatus`` that only 32-bit machines have, bytes."""

PAGE_SIZES = [1 << shift for shift in range(12, 19)]
"""4 KiB to 256 KiB: what any Linux can be built for."""


def named(name: str) -> Machine:
    """The record of a name or alias; of an unknown one a record that knows nothing else."""
    return _BY_NAME.get(name) or Machine(name)


def of_elf(e_machine: str | int, bits: int, byteorder: ByteOrder) -> Machine:
    """By the ELF header. An ELF64 file may be around a 32-bit kernel: kexec-tools writes PAE's so."""
    candidates = _BY_ELF.get(str(e_machine), [])
    # Where several fit, bits tell before the byte order does.
    for fits in (
        lambda each: each.bits == bits and each.byteorder == byteorder,
        lambda each: each.bits == bits,
        lambda each: each.byteorder == byteorder,
        lambda each: True,
    ):
        for each in candidates:
            if fits(each):
                return each
    return Machine(str(e_machine).removeprefix("EM_").lower())


def page_size(machine: Machine, vmcoreinfo: Mapping[str, str]) -> int:
    """Bytes. VMCOREINFO's PAGESIZE where it makes sense, else the machine's least."""
    said = vmcoreinfo.get("PAGESIZE", "")
    if said.isascii() and said.isdigit() and len(said) < 8 and int(said) in PAGE_SIZES:
        return int(said)
    return machine.smallest_page
