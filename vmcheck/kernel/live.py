# SPDX-License-Identifier: LGPL-2.1-or-later
"""A kernel that is running: this machine's, or a QEMU guest's."""

from __future__ import annotations

from dataclasses import replace

from drgn import Architecture, FaultError, PlatformFlags, Program

from vmcheck.errors import PageNotStored, UnreadableFile, VmcheckError
from vmcheck.facts.header import DumpHeader, Format, Producer
from vmcheck.facts.machine import MACHINES, ByteOrder
from vmcheck.facts.ranges import EMPTY
from vmcheck.facts.topology import CrashImage, Unknown
from vmcheck.kernel import crash_image
from vmcheck.kernel.program import Kernel, Memory
from vmcheck.kernel.read import UNREADABLE


class Guest:
    """A QEMU guest's physical memory, read from outside while it runs."""

    def __init__(self, socket: str) -> None:
        """``socket`` is QEMU's QMP socket. Raises VmcheckError where there is no kernel behind it."""
        self._prog = Program()
        try:
            self._prog.set_qemu_qmp(socket)
        except (OSError, ValueError, FaultError) as error:
            raise UnreadableFile(f"{socket}: no QMP socket of a running QEMU: {error}") from None
        try:
            vmcoreinfo = self._prog["VMCOREINFO"].string_()
        except (LookupError, FaultError):
            raise VmcheckError(
                f"{socket}: the guest gave QEMU no VMCOREINFO: start QEMU with -device vmcoreinfo, and let "
                "the guest's kernel load qemu_fw_cfg"
            ) from None
        self.header = self._header(socket, bytes(vmcoreinfo))

    def _header(self, socket: str, vmcoreinfo: bytes) -> DumpHeader:
        platform = self._prog.platform
        assert platform is not None
        little = bool(platform.flags & PlatformFlags.IS_LITTLE_ENDIAN)
        made = DumpHeader(
            path=socket,
            format=Format.ELF,
            producer=Producer.LOADED,
            machine=_machine(platform.arch, little),
            bits=64 if platform.flags & PlatformFlags.IS_64_BIT else 32,
            byteorder="little" if little else "big",
            page_size=4096,
            described=EMPTY,
            stored=EMPTY,
            file_size=0,
            expected_size=0,
            vmcoreinfo_notes=(vmcoreinfo,),
        )
        said = made.vmcoreinfo.get("PAGESIZE", "")
        return replace(made, page_size=int(said)) if said in ("4096", "16384", "65536") else made

    def read(self, address: int, size: int) -> bytes:
        """Raises PageNotStored where the guest has no memory."""
        try:
            return bytes(self._prog.read(address, size, physical=True))
        except FaultError as error:
            raise PageNotStored(str(error), error.address) from None


def _machine(arch: Architecture, little: bool) -> str:
    order: ByteOrder = "little" if little else "big"
    names = {machine.byteorder: machine.name for machine in MACHINES if machine.drgn == arch.name}
    return names.get(order) or next(iter(names.values()))


def loaded_image(header: DumpHeader, memory: Memory) -> CrashImage | Unknown | None:
    """``kexec_crash_image`` of a live kernel; None: no crash kernel is loaded. Raises VmcheckError."""
    kernel = Kernel(header, memory)
    if not kernel.has_types:
        return Unknown(f"kexec_crash_image: {'; '.join(kernel.remarks)}")
    try:
        return crash_image.crash_image(kernel)
    except UNREADABLE as error:
        return Unknown(f"kexec_crash_image: {error}")
