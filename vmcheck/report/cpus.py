# SPDX-License-Identifier: LGPL-2.1-or-later
"""What became of each CPU's registers."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from vmcheck.check import Report
from vmcheck.facts.findings import Severity
from vmcheck.facts.topology import Unknown


class Registers(str, enum.Enum):
    """Worst first."""

    LOST = "lost"
    """A finding says that they are neither in the notes nor in memory."""
    RECOVERABLE = "recoverable"
    """In no note, and still in the dump's memory."""
    DOUBTFUL = "doubtful"
    """A finding says that tools misread them."""
    UNKNOWN = "unknown"
    """The CPU was online, and whether it saved could not be read."""
    PRESENT = "present"
    OFFLINE = "offline"
    """There is nothing to save."""


def registers(report: Report) -> Mapping[int, Registers]:
    """By CPU number, of every CPU that was present, online or is named by a finding."""
    topology = report.topology
    states: dict[int, Registers] = {}
    if not isinstance(topology.present_cpus, Unknown):
        states |= dict.fromkeys(topology.present_cpus, Registers.OFFLINE)
    if not isinstance(topology.online_cpus, Unknown):
        saved = Registers.UNKNOWN if isinstance(topology.saved_notes, Unknown) else Registers.PRESENT
        states |= dict.fromkeys(topology.online_cpus, saved)
    for finding in reversed(report.findings):
        if finding.severity is Severity.LOST:
            fate = Registers.RECOVERABLE if finding.recoverable else Registers.LOST
        elif finding.severity is Severity.WRONG:
            fate = Registers.DOUBTFUL
        else:
            continue
        states |= dict.fromkeys(finding.cpus, fate)
    return dict(sorted(states.items()))
