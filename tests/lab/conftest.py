"""Tests that boot a kernel take minutes: they run when asked for, by ``-m lab`` or VMCHECK_LAB=1."""

from __future__ import annotations

import os

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "lab" in config.option.markexpr or os.environ.get("VMCHECK_LAB"):
        return
    why = pytest.mark.skip(reason="boots kernels under QEMU: ask with -m lab or VMCHECK_LAB=1")
    for item in items:
        if item.get_closest_marker("lab"):
            item.add_marker(why)
