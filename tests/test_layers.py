# SPDX-License-Identifier: LGPL-2.1-or-later
"""The house's plan as data: who may import whom, and where each library lives (docs/architecture.md)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmcheck.facts import machine

ROOT = Path(__file__).parents[1]

# Imports point up: each line may import from the lines above it, and a package from itself.
LAYERS = [
    # Values, and what is computed from them without a file, a clock or a word printed.
    "errors",
    "facts",
    "rules",
    "diagnosis",
    "check",
    "budget files",
    # What reads and what shows. Neither knows the other.
    "formats report",
    "kernel records",
    "operations",
    "cli",
]
PURE = {name for line in LAYERS[:5] for name in line.split()}

HOMES = {
    "click": {"cli"},
    "cramjam": {"formats"},
    "distributed": {"operations.scan"},
    "drgn": {"kernel"},
    "elftools": {"formats"},
    "jinja2": {"report"},
    "lzallright": {"formats"},
    "markupsafe": {"report"},
    # cli.expect reads a report back.
    "msgspec": {"report", "records", "cli.expect"},
    # The terminal's width and colours are asked for where it is printed to.
    "rich": {"report", "cli"},
    "zstandard": {"formats"},
}
EVERYWHERE = {"numpy"}

HARMLESS = {
    *("__future__", "bisect", "collections", "dataclasses", "datetime", "enum", "functools", "itertools"),
    *("math", "numpy", "operator", "re", "struct", "textwrap", "types", "typing"),
}
"""What a pure module may import besides vmcheck's own: nothing that reads, waits or prints."""
BESIDES = {
    # The registry of the rules imports each of them.
    "rules": {"importlib", "inspect", "pkgutil"},
    # remedies.toml, its own table, is a part of the code.
    "diagnosis.remedies": {"pathlib", "sys", "tomli", "tomllib"},
}
MACHINES_NAMED = {
    "facts.machine",
    # The numbers of this machine's own system calls.
    "operations.sandbox",
}
FORBIDDEN_CALLS = {"print", "open", "input", "exec", "eval", "breakpoint"}


def modules() -> dict[str, ast.Module]:
    """Every module by its name without ``vmcheck.``; the package itself is ``__init__``."""
    found = {}
    for path in sorted((ROOT / "vmcheck").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT / "vmcheck").with_suffix("").parts)
        found[name if name == "__init__" else name.removesuffix(".__init__")] = ast.parse(path.read_text())
    return found


MODULES = modules()
every_module = pytest.mark.parametrize("module", MODULES)


def imported(tree: ast.Module) -> Iterator[str]:
    """Names of what a module imports, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer"
            assert node.module
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            modules_named = [name for name in names if name.removeprefix("vmcheck.") in MODULES]
            yield from modules_named or [node.module]


def layer(module: str) -> int:
    top = module.split(".")[0]
    for number, line in enumerate(LAYERS):
        if top in line.split():
            return number
    raise AssertionError(f"vmcheck/{top} has no place in LAYERS")


def ours(module: str) -> set[str]:
    """vmcheck's own modules that a module imports."""
    names = {name for name in imported(MODULES[module]) if name.split(".")[0] == "vmcheck"}
    return {name.removeprefix("vmcheck.") for name in names if name != "vmcheck"}


def libraries(module: str) -> set[str]:
    return {name.split(".")[0] for name in imported(MODULES[module])} - {"vmcheck"}


def lives_in(module: str, homes: set[str]) -> bool:
    return any(module == home or module.startswith(f"{home}.") for home in homes)


@every_module
def test_imports_point_up(module: str) -> None:
    if module in ("__init__", "__main__"):
        return
    package = module.split(".")[0]
    wrong = {name for name in ours(module) if name.split(".")[0] != package and layer(name) >= layer(module)}
    assert wrong == set()


@every_module
def test_each_library_has_one_home(module: str) -> None:
    strays = {name for name in libraries(module) & HOMES.keys() if not lives_in(module, HOMES[name])}
    assert strays == set()


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[0] in PURE])
def test_what_decides_reads_no_file_no_clock_and_prints_nothing(module: str) -> None:
    assert libraries(module) - HARMLESS - BESIDES.get(module, set()) == set()
    calls = {
        node.func.id
        for node in ast.walk(MODULES[module])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert calls & FORBIDDEN_CALLS == set()
    clocks = {
        node.attr
        for node in ast.walk(MODULES[module])
        if isinstance(node, ast.Attribute) and node.attr in ("now", "today", "utcnow", "monotonic")
    }
    assert clocks == set()


def test_every_library_that_is_imported_has_a_home_and_is_a_dependency() -> None:
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = [
        text for name, texts in project["optional-dependencies"].items() if name != "dev" for text in texts
    ]
    declared = {text.split(">")[0].split(";")[0].strip() for text in [*project["dependencies"], *optional]}
    aliases = {"pyelftools": "elftools", "tomli": "tomli"}
    available = {aliases.get(name, name) for name in declared}
    # markupsafe is jinja2's, and tomli is the standard library's tomllib before Python 3.11.
    assert HOMES.keys() | EVERYWHERE <= available | {"markupsafe"}
    used = {name for module in MODULES for name in libraries(module)}
    assert HOMES.keys() <= used
    assert not available - used - {"tomli"}


def test_only_the_command_line_and_the_isolated_child_end_the_process() -> None:
    ending = {
        module
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("exit", "_exit")
    }
    assert ending <= {"cli", "cli.output", "operations.isolation", "__main__", "cli.watch"}


def test_no_module_is_named_after_the_standard_library() -> None:
    names = {part for module in MODULES for part in module.split(".")} - {"__init__", "__main__"}
    assert names & sys.stdlib_module_names == set()


def test_the_plan_has_no_empty_rooms() -> None:
    there = {module.split(".")[0] for module in MODULES}
    assert {name for line in LAYERS for name in line.split()} - there == set()


@pytest.mark.parametrize("module", [name for name in MODULES if name not in MACHINES_NAMED])
def test_a_machine_s_name_stands_in_its_record_alone(module: str) -> None:
    """In strings that are whole names: what differs between machines is a field of facts.machine.Machine."""
    names = {name for each in machine.MACHINES for name in (each.name, *each.aliases)}
    strings = {
        node.value
        for node in ast.walk(MODULES[module])
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert strings & names == set()
