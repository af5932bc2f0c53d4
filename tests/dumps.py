# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whole real dumps, which are too large for the repository: in $VMCHECK_DUMPS, else beside the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("VMCHECK_DUMPS") or Path(__file__).parents[2] / "shared" / "dumps")


OTHER_MACHINES = "other-machines"
"""The folder of dumps that this machine's makedumpfile and symbol files do not fit."""


def real_dumps() -> list[Path]:
    """Of x86_64 kernels."""
    return sorted(path for path in FOLDER.rglob("vmcore") if OTHER_MACHINES not in path.parts)


def name(path: Path) -> str:
    return f"{path.parent.parent.name}/{path.parent.name}"


every_real_dump = pytest.mark.parametrize(
    "real",
    [pytest.param(path, id=name(path)) for path in real_dumps()]
    or [pytest.param(None, marks=pytest.mark.skip(reason=f"no vmcore below {FOLDER.name} or VMCHECK_DUMPS"))],
)
