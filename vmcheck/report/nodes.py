# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine's memory by NUMA node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from vmcheck.check import Report
from vmcheck.facts.ranges import RangeSet
from vmcheck.facts.topology import Unknown

Nodes = Mapping[int, RangeSet]


class NodeMemory(NamedTuple):
    """Bytes."""

    node: int
    ram: int
    """System RAM, or all memory of the node where System RAM is unknown."""
    missing: int


def several_nodes(report: Report) -> Nodes:
    """The nodes' memory, where there are several: a machine of one node needs no word of it."""
    nodes = report.topology.nodes
    return {} if isinstance(nodes, Unknown) or len(nodes) < 2 else dict(sorted(nodes.items()))


def by_node(report: Report) -> list[NodeMemory] | None:
    """None: unknown."""
    nodes, ram = report.topology.nodes, report.topology.system_ram
    if isinstance(nodes, Unknown):
        return None
    return [
        NodeMemory(
            node,
            (memory if isinstance(ram, Unknown) else memory & ram).size,
            (memory & report.lost_memory).size,
        )
        for node, memory in sorted(nodes.items())
    ]


def nodes_of(ranges: RangeSet, nodes: Nodes) -> list[int]:
    return [node for node, memory in nodes.items() if _meet(memory, ranges)]


def _meet(memory: RangeSet, ranges: RangeSet) -> bool:
    """As ``bool(memory & ranges)``, which is too slow for each of a thousand rows."""
    place = np.searchsorted(memory.ends, ranges.starts, side="right")
    below = place < len(memory)
    return bool(np.any(memory.starts[place[below]] < ranges.ends[below]))
