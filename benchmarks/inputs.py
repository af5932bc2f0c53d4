# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is measured: a real dump, a raw one, the kernel's vmlinux; and the tools beside."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Lacking
from fixtures.lab import apt
from vmcheck.facts.header import Format
from vmcheck.formats import read_header, vmlinux

ROOT = Path(__file__).parent.parent
LAB_DUMPS = "build/lab/*/*/vmcore"
CAPTURES = "fixtures/captures/*/*/self-contained"
"""Beside each of these is a distilled dump that brings its own symbols."""
MAKE_A_DUMP = "python -m fixtures.lab run mem-and-cpu-added --kernel 6.1"
MAKE_A_RAW_DUMP = "python -m fixtures.lab run mem-added --kernel 6.1 --raw -o build/lab/6.1/mem-added-raw"


@dataclass(frozen=True)
class Inputs:
    """Of one run of the benchmarks."""

    folder: Path
    """For what is made while measuring."""
    given_dump: Path | None = None
    given_raw: Path | None = None
    given_vmlinux: Path | None = None
    repetitions: int = 15
    scale: int = 1
    """What is built is this many times smaller: for the test of the benchmarks."""

    @property
    def dump(self) -> Path:
        """A real dump with the kernel's symbols in it: a distilled one where there is no whole one."""
        try:
            return self.whole_dump
        except Lacking:
            return next(mark.with_name("vmcore.distilled") for mark in sorted(ROOT.glob(CAPTURES)))

    @property
    def whole_dump(self) -> Path:
        """A real dump that any tool can work on."""
        if found := self.given_dump or next(_lab_dumps(Format.KDUMP), None):
            return found
        raise Lacking(f"no whole dump: {MAKE_A_DUMP}")

    @property
    def raw(self) -> Path:
        """A copy of /proc/vmcore as it is."""
        if found := self.given_raw or next(_lab_dumps(Format.ELF), None):
            return found
        raise Lacking(f"no raw dump: {MAKE_A_RAW_DUMP}")

    @property
    def vmlinux(self) -> Path:
        """The vmlinux with DWARF of the kernel in the whole dump."""
        vmcoreinfo = read_header([self.whole_dump]).vmcoreinfo
        release = vmcoreinfo.get("OSRELEASE", "unknown")
        path = self.given_vmlinux or apt.cache() / "vmlinux" / release / "vmlinux"
        if not path.exists():
            kernel = ".".join(release.split(".")[:2])
            raise Lacking(f"no vmlinux of {release}: python -m fixtures.lab vmlinux {kernel}")
        if vmlinux.build_id(str(path)) != vmcoreinfo.get("BUILD-ID"):
            raise Lacking(f"{path.name} is not of the dump's kernel {release}")
        return path

    @property
    def python(self) -> dict[str, str]:
        """The environment of a Python that keeps its bytecode, as it is where pip installed it."""
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return {
            **inherited,
            "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), inherited.get("PYTHONPATH")))),
            "PYTHONPYCACHEPREFIX": str(self.folder / "bytecode"),
        }

    def vmcheck(self, *arguments: str | Path) -> list[str | Path]:
        return [sys.executable, "-m", "vmcheck", *arguments]


def tool(name: str, package: str) -> str:
    """Where a peer is. Raises Lacking."""
    if path := shutil.which(name):
        return path
    raise Lacking(f"{name} is not on this machine: apt-get install {package}")


def _lab_dumps(wanted: Format) -> Iterator[Path]:
    """Dumps that the lab left on this machine, of one format."""
    for path in sorted(ROOT.glob(LAB_DUMPS)):
        if read_header([path]).format is wanted:
            yield path
