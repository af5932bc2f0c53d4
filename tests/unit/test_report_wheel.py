# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[2]

MAKE_A_PAGE = """
import runpy, sys
from vmcheck.report import page
reports = runpy.run_path(sys.argv[1])
print(page.__file__)
print(page.page(reports["ADDED"]))
"""


def test_a_wheel_installed_elsewhere_brings_its_templates(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    run = subprocess.run(
        [sys.executable, "-c", MAKE_A_PAGE, str(ROOT / "tests" / "reports.py")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    imported, made = run.stdout.split("\n", 1)
    assert imported == str(installed / "vmcheck" / "report" / "page.py")
    assert made.startswith("<!DOCTYPE html>")
    assert "0x100000000" in made
