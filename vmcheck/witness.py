# SPDX-License-Identifier: LGPL-2.1-or-later
"""A recorded topology, or the running machine, beside a dump: what it may hear, and what not. Pure.

A witness of the same boot fills in what the dump's own kernel could not tell. It is never
preferred to that kernel, and never proves that nothing is missing: what came after it was
recorded is not in it. One of another boot is refused; only the running machine, asked for
by name, may say what memory and CPUs the hardware has now, and no finding rests on that.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from itertools import islice
from typing import TypeVar

from vmcheck.diagnosis import Comparison
from vmcheck.header import DumpHeader
from vmcheck.quantities import address_range, count, size
from vmcheck.ranges import EMPTY, RangeSet
from vmcheck.records.snapshot import Snapshot
from vmcheck.topology import Blocks, Resources, Sections, Topology, Unknown

Account = TypeVar("Account", bound=Sections | Resources | Blocks)

UNNAMED = ("", "(none)", "localhost", "localhost.localdomain")
"""What a host is called that has no name."""
LIVE = "live"
"""The witness's name where it is the running machine."""


def hear(
    header: DumpHeader, topology: Topology, snapshot: Snapshot, name: str
) -> tuple[Topology, Comparison]:
    """The dump's topology with what the witness adds, and how the two compare."""
    same, why = same_boot(header, topology, snapshot)
    if same is False and name != LIVE:
        return topology, Comparison(name, "topology", None, f"refused, it is of another boot: {why}")
    if same is False:
        return _of_another_boot(header, topology, snapshot)
    when = f"recorded {_utc(snapshot.recorded)}"
    if same is None:
        when += f"; that it is of the same boot rests on your word: {why}"
    filled = _filled(topology, snapshot.topology, f"{when}: what came after that is not in it")
    agrees, text = _compared(topology, snapshot)
    return filled, Comparison(name, "topology", agrees, f"of the same boot ({why}), {when}: {text}")


def same_boot(header: DumpHeader, topology: Topology, snapshot: Snapshot) -> tuple[bool | None, str]:
    """Whether the witness is of the boot that crashed, and what tells so.

    VMCOREINFO names addresses that KASLR draws anew at each boot; the kernel only adds
    CRASHTIME to it when it crashes.
    """
    ours, theirs = topology.boot_id, snapshot.topology.boot_id
    if not isinstance(ours, Unknown) and not isinstance(theirs, Unknown):
        return ours == theirs, f"boot_id is {theirs}" + ("" if ours == theirs else f", the dump's is {ours}")
    if header.vmcoreinfo_notes and snapshot.vmcoreinfo is not None:
        dumped, recorded = _items(header.vmcoreinfo), _items(_parsed(snapshot.vmcoreinfo))
        if dumped == recorded:
            return True, "VMCOREINFO is the same to the byte"
        differs = sorted(key for key in dumped.keys() | recorded if dumped.get(key) != recorded.get(key))
        return False, f"VMCOREINFO has another {differs[0]}"
    release = snapshot.topology.release
    if not isinstance(topology.release, Unknown) and not isinstance(release, Unknown):
        if topology.release != release:
            return False, f"its kernel is {release}, the dump's is {topology.release}"
        return None, f"both are of {release}, and nothing else can be compared"
    return None, "the dump does not tell which boot it is of"


def _parsed(vmcoreinfo: str) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for line in vmcoreinfo.split("\n"):
        key, separator, value = line.partition("=")
        if separator:
            found.setdefault(key, value)
    return found


def _items(vmcoreinfo: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in vmcoreinfo.items() if key != "CRASHTIME"}


def _of_another_boot(
    header: DumpHeader, topology: Topology, snapshot: Snapshot
) -> tuple[Topology, Comparison]:
    """The machine as it runs now, for a dump that was taken before its last boot."""
    resources = snapshot.topology.resources
    if isinstance(resources, Unknown):
        return topology, Comparison(LIVE, "topology", None, f"nothing to compare: {resources.why}")
    node = header.utsname[1] if len(header.utsname) > 1 else ""
    if node not in UNNAMED and node != snapshot.node:
        return topology, Comparison(
            LIVE, "topology", None, f"refused: the dump is of {node}, this machine is {snapshot.node}"
        )
    ram = resources.account.ram
    gone = header.described.aligned_inward(header.page_size) - ram.aligned_outward(header.page_size)
    if gone.size * 20 > header.described.size:
        return topology, Comparison(
            LIVE,
            "topology",
            None,
            f"refused: this machine has no memory at {size(gone.size)} of what the dump describes, "
            "so it is another one, or has lost memory since",
        )
    more = ram.aligned_inward(header.page_size) - header.described.aligned_outward(header.page_size)
    # The crash kernel's reservation may lie elsewhere at each boot.
    more -= _excluded(snapshot.topology) | _excluded(topology)
    text = "the dump describes all the memory that it has"
    if more:
        first = ", ".join(address_range(start, end) for start, end in islice(more, 4))
        text = f"it has {size(more.size)} of memory that the dump does not describe: {first}"
        text += ", ..." if len(more) > 4 else ""
        if isinstance(topology.excluded, Unknown):
            text += " (the reservation of the crash kernel that made the dump may be a part of it)"
    present = snapshot.topology.present_cpus
    if not isinstance(present, Unknown):
        text += f"; it has {count(len(present), 'CPU')}, the dump the registers of {len(header.cpu_notes)}"
    return topology, Comparison(
        LIVE,
        "topology",
        not more,
        f"another boot of this machine, which proves what the hardware has now, not what the kernel that "
        f"crashed had: {text}",
    )


def _filled(topology: Topology, witness: Topology, caution: str) -> Topology:
    """``topology`` with the witness's facts where its own are Unknown; memory accounts get the caution."""
    names = ("excluded", "possible_cpus", "present_cpus", "online_cpus", "crash_image", "crash_hotplug")
    taken = {name: getattr(witness, name) for name in names if isinstance(getattr(topology, name), Unknown)}
    filled = replace(
        topology,
        sections=_cautioned(witness.sections, caution)
        if isinstance(topology.sections, Unknown)
        else topology.sections,
        resources=_cautioned(witness.resources, caution)
        if isinstance(topology.resources, Unknown)
        else topology.resources,
        blocks=_cautioned(witness.blocks, caution)
        if isinstance(topology.blocks, Unknown)
        else topology.blocks,
        **taken,
    )
    if filled == topology:
        return topology
    return replace(
        filled, remarks=(*topology.remarks, f"what its kernel could not tell is from a witness, {caution}")
    )


def _cautioned(fact: Account | Unknown, caution: str) -> Account | Unknown:
    if isinstance(fact, Unknown):
        return fact
    account = replace(fact.account, unread=(*fact.account.unread, caution))
    return replace(fact, account=account)


def _compared(topology: Topology, snapshot: Snapshot) -> tuple[bool | None, str]:
    """Memory then and at the crash, and what the header lacked already then."""
    now, then = topology.system_ram, snapshot.topology.system_ram
    if isinstance(then, Unknown):
        return None, f"it does not tell the memory: {then.why}"
    stale = ""
    if snapshot.described is not None:
        lacked = (then - _excluded(snapshot.topology)).aligned_inward(
            4096
        ) - snapshot.described.aligned_outward(4096)
        stale = f"; elfcorehdr lacked {size(lacked.size)} of it already" if lacked else ""
        stale = stale or "; elfcorehdr described all of it then"
    if isinstance(now, Unknown):
        return None, f"{size(then.size)} of memory were online{stale}"
    came, went = now - then, then - now
    changes = [f"{size(ranges.size)} {what}" for ranges, what in ((came, "came"), (went, "went")) if ranges]
    if changes:
        return False, f"{' and '.join(changes)} between then and the crash{stale}"
    return True, f"the same memory was online{stale}"


def _excluded(topology: Topology) -> RangeSet:
    if isinstance(topology.excluded, Unknown):
        return EMPTY
    return reduce(RangeSet.__or__, (part.ranges for part in topology.excluded), EMPTY)


def _utc(seconds: int) -> str:
    when = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return when.strftime("%Y-%m-%d %H:%M:%S UTC")
