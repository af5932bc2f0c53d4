# SPDX-License-Identifier: LGPL-2.1-or-later
"""The options that raise or lower what the examination of one dump may take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from vmcheck.budget import DEFAULT, Budget

Command = TypeVar("Command", bound=Callable[..., Any])


def limit_options(command: Command) -> Command:
    """--time-limit and --memory-limit, which :func:`budget` takes."""
    options = [
        click.option(
            "--time-limit",
            type=click.FloatRange(min=0.1, max=1e6),
            default=DEFAULT.seconds,
            show_default=True,
            metavar="SECONDS",
            help="The most time that one dump may take.",
        ),
        click.option(
            "--memory-limit",
            type=click.IntRange(min=16, max=1 << 24),
            default=DEFAULT.memory >> 20,
            show_default=True,
            metavar="MIB",
            help="The most memory that one dump may take, beyond what drgn maps of a vmlinux.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def budget(time_limit: float, memory_limit: int) -> Budget:
    return Budget(time_limit, memory_limit << 20)
