# SPDX-License-Identifier: LGPL-2.1-or-later
"""What goes around vmcheck says nothing that vmcheck does not understand."""

from __future__ import annotations

import ast
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from vmcheck.cli import cli

ROOT = Path(__file__).parents[2]
ECOSYSTEM = ROOT / "ecosystem"
UNITS = sorted((ECOSYSTEM / "systemd").iterdir())


def commands() -> Iterator[tuple[str, list[str]]]:
    """(where, words after ``vmcheck``) of every command line that is run."""
    for unit in UNITS:
        for line in unit.read_text().splitlines():
            key, _, value = line.partition("=")
            if key in ("ExecStart", "ExecReload"):
                program, *words = shlex.split(value)
                assert program == "/usr/bin/vmcheck"
                yield unit.name, words
    plugin = ast.parse((ECOSYSTEM / "sos/vmcheck.py").read_text())
    for node in ast.walk(plugin):
        if isinstance(node, ast.Constant) and str(node.value).startswith("vmcheck "):
            yield "sos", str(node.value).split()[1:]


@pytest.mark.parametrize(("where", "words"), list(commands()), ids=lambda value: str(value)[:60])
def test_every_command_line_is_one_that_vmcheck_takes(where: str, words: list[str]) -> None:
    name, *rest = words
    command = cli.commands[name]
    command.make_context(name, rest, resilient_parsing=False)


def test_a_command_line_that_vmcheck_does_not_take_would_be_noticed() -> None:
    with pytest.raises(click.UsageError):
        cli.commands["preflight"].make_context("preflight", ["--no-such-option"])


def test_every_unit_that_is_named_is_there() -> None:
    names = {unit.name for unit in UNITS}
    for unit in UNITS:
        if unit.suffix in (".timer", ".path"):
            assert f"{unit.stem}.service" in names


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    for unit in UNITS:
        text = unit.read_text().replace("/usr/bin/vmcheck", "/bin/true")
        kept = [line for line in text.splitlines() if not line.startswith("Documentation=")]
        (tmp_path / unit.name).write_text("\n".join(kept) + "\n")
    units = [str(tmp_path / unit.name) for unit in UNITS]
    said = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert [line for line in said.stderr.splitlines() if "vmcheck" in line] == []


def test_kdump_post_keeps_what_only_the_capture_kernel_knows(tmp_path: Path) -> None:
    old, new = tmp_path / "127.0.0.1-old", tmp_path / "127.0.0.1-new"
    for age, folder in ((1_000_000_000, old), (1_700_000_000, new)):
        folder.mkdir()
        (folder / "kexec-dmesg.log").write_text(
            "[ 1.0] vmcore: Warning: Zero PT_NOTE entries found\n" * 3 + "[ 1.1] other\n"
        )
        os.utime(folder, (age, age))
    script = ECOSYSTEM / "kdump/kdump_post.sh"
    environment = {**os.environ, "VMCHECK_CRASH_ROOT": str(tmp_path)}
    subprocess.run(["sh", str(script), "1"], check=True, env=environment)
    assert (new / "vmcheck-capture.txt").read_text() == "core_collector_status=1\nempty_notes=3\n"
    assert not (old / "vmcheck-capture.txt").exists()


def test_kdump_post_without_a_dump_is_no_failure(tmp_path: Path) -> None:
    script = ECOSYSTEM / "kdump/kdump_post.sh"
    environment = {**os.environ, "VMCHECK_CRASH_ROOT": str(tmp_path)}
    assert subprocess.run(["sh", str(script), "0"], env=environment, check=False).returncode == 0


def test_every_command_has_a_man_page_that_groff_takes(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(ECOSYSTEM / "man.py"), str(tmp_path)], check=True, cwd=ROOT)
    pages = {path.name for path in tmp_path.iterdir()}
    assert pages == {"vmcheck.1", *(f"vmcheck-{name}.1" for name in cli.commands)}
    if shutil.which("groff") is None:
        pytest.skip("groff is not here")
    for page in sorted(tmp_path.iterdir()):
        said = subprocess.run(
            ["groff", "-man", "-Tascii", "-ww", "-z", str(page)], capture_output=True, text=True, check=False
        )
        assert (said.returncode, said.stderr) == (0, "")
