# SPDX-License-Identifier: LGPL-2.1-or-later
"""The wheel, built and installed elsewhere as a user would, checks a real dump and makes its page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from fixtures.capture import captures

ROOT = Path(__file__).parents[1]
CAPTURE = next(capture for capture in captures() if capture.name == "6.1.0-56-amd64/memory-and-cpu-added")


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    # Not from here: the checkout must not be what is imported.
    return subprocess.run(
        [str(part) for part in command],
        cwd="/",
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    built = run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("vmcheck-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of a fresh virtual environment that has the wheel and nothing else."""
    home = tmp_path_factory.mktemp("elsewhere")
    venv.create(home, with_pip=False)
    done = run(
        *(sys.executable, "-m", "pip", "--python", home / "bin" / "python"),
        *("install", "--quiet", "--no-deps", "--no-index", wheel),
    )
    assert done.returncode == 0, done.stderr
    return home / "bin"


def dependencies() -> str:
    """Where the tests' own libraries are: a .pth file there, such as this checkout's, is not followed."""
    return sysconfig.get_path("purelib")


def test_the_wheel_has_every_file_that_is_not_python(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    data = {
        path for path in (ROOT / "vmcheck").rglob("*") if path.suffix in (".toml", ".json", ".j2", ".css")
    }
    data |= set((ROOT / "templates").iterdir())
    assert len(data) >= 3
    assert {
        path.relative_to(ROOT).as_posix()
        if path.is_relative_to(ROOT / "vmcheck")
        else f"vmcheck/templates/{path.name}"
        for path in data
    } <= names
    assert not [name for name in names if name.startswith(("tests/", "fixtures/")) or "__pycache__" in name]


def test_the_installed_program_checks_a_dump(installed: Path, tmp_path: Path) -> None:
    page, document = tmp_path / "report.html", tmp_path / "report.json"
    done = run(
        *(installed / "vmcheck", "check", CAPTURE.vmcore, "-s", str(CAPTURE.symbols)),
        *("--html", page, "--json", document),
        PYTHONPATH=dependencies(),
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("INCOMPLETE: ")
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert CAPTURE.truth["kernel"] in page.read_text()
    assert json.loads(document.read_bytes())["exit_status"] == 1


def test_what_runs_is_the_installed_package(installed: Path) -> None:
    done = run(
        *(installed / "python", "-c", "import vmcheck; print(vmcheck.__file__)"), PYTHONPATH=dependencies()
    )
    assert Path(done.stdout.strip()).is_relative_to(installed.parent)


@pytest.mark.parametrize(
    "arguments", [["explain"], ["explain", "undescribed-ram"], ["--version"], ["schema"]]
)
def test_commands_that_need_data_find_it(installed: Path, arguments: list[str]) -> None:
    done = run(installed / "vmcheck", *arguments, PYTHONPATH=dependencies())
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
