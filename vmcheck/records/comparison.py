# SPDX-License-Identifier: LGPL-2.1-or-later
"""A record, or the running machine, compared with a dump. Pure.

A record of the same boot fills in facts that the dump's own kernel does not give. It never
replaces a fact of that kernel, and never proves that nothing is missing: it lacks what came
later. A record of another boot is refused. Only the running machine, when the user names it,
may say what memory and CPUs the hardware has now, and no finding rests on that.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from itertools import islice
from typing import Any, TypeVar

from vmcheck.errors import plain
from vmcheck.facts.diagnosis import Comparison
from vmcheck.facts.header import DumpHeader, parsed_vmcoreinfo
from vmcheck.facts.quantities import address_range, count, size
from vmcheck.facts.ranges import EMPTY, RangeSet
from vmcheck.facts.topology import Blocks, Resources, Sections, Topology, Unknown
from vmcheck.records.snapshot import Snapshot

Account = TypeVar("Account", bound=Sections | Resources | Blocks)

UNNAMED = ("", "(none)", "localhost", "localhost.localdomain")
"""The names of a host that nobody named."""
LIVE = "live"
"""The name of the record that is the running machine."""
LONGEST_NAME = 64
"""HOST_NAME_MAX. A record may be a stranger's."""

FILLED_IN = ("excluded", "possible_cpus", "present_cpus", "online_cpus", "crash_image", "crash_hotplug")
"""Facts that a record of the same boot may give, besides the accounts of memory."""


def hear(
    header: DumpHeader, topology: Topology, snapshot: Snapshot, name: str
) -> tuple[Topology, Comparison]:
    """The dump's topology with the facts that the record adds, and how the two compare."""
    same, why = same_boot(header, topology, snapshot)
    if same is False and name != LIVE:
        return topology, _compare(name, None, f"refused, it is of another boot: {why}")
    if same is False:
        return _of_another_boot(header, topology, snapshot)
    when = f"recorded {_utc(snapshot.recorded)}"
    agrees, text = _compared(topology, snapshot)
    if same:
        filled = _filled(topology, snapshot.topology, f"{when}: it lacks what came after that")
        return filled, _compare(name, agrees, f"of the same boot ({why}), {when}: {text}")
    when += f"; vmcheck cannot check that it is of the same boot: {why}"
    if _has_account(topology):
        # The reservation or the CPUs of another boot would hide a loss from whole accounts.
        return topology, _compare(name, agrees, f"{when}: {text}")
    filled = _filled(topology, snapshot.topology, f"{when}: it lacks what came after that")
    return filled, _compare(name, agrees, f"{when}: {text}")


def _has_account(topology: Topology) -> bool:
    accounts = (topology.sections, topology.resources, topology.blocks)
    return any(not isinstance(fact, Unknown) for fact in accounts)


def _compare(name: str, agrees: bool | None, text: str) -> Comparison:
    return Comparison(plain(name), "topology", agrees, plain(text))


def same_boot(header: DumpHeader, topology: Topology, snapshot: Snapshot) -> tuple[bool | None, str]:
    """Whether the record is of the boot that crashed, and why. None: nothing decides it.

    VMCOREINFO has addresses that KASLR randomizes at each boot; a crash only adds CRASHTIME.
    """
    ours, theirs = topology.boot_id, snapshot.topology.boot_id
    if not isinstance(ours, Unknown) and not isinstance(theirs, Unknown):
        differs_from = "" if ours == theirs else f", the dump's is {_short(ours)}"
        return ours == theirs, f"boot_id is {_short(theirs)}{differs_from}"
    if header.vmcoreinfo_notes and snapshot.vmcoreinfo is not None:
        dumped, recorded = _items(header.vmcoreinfo), _items(parsed_vmcoreinfo(snapshot.vmcoreinfo))
        if dumped == recorded:
            return True, "VMCOREINFO is the same to the byte"
        differs = sorted(key for key in dumped.keys() | recorded if dumped.get(key) != recorded.get(key))
        return False, f"VMCOREINFO has another {_short(differs[0])}"
    release = snapshot.topology.release
    if not isinstance(topology.release, Unknown) and not isinstance(release, Unknown):
        if topology.release != release:
            return False, f"its kernel is {_short(release)}, the dump's is {_short(topology.release)}"
        return None, f"both are of {_short(release)}, and nothing else can be compared"
    return None, "the dump does not show which boot it is of"


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."


def _items(vmcoreinfo: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in vmcoreinfo.items() if key != "CRASHTIME"}


def _of_another_boot(
    header: DumpHeader, topology: Topology, snapshot: Snapshot
) -> tuple[Topology, Comparison]:
    """The machine as it runs now, and a dump from before its last boot."""
    resources = snapshot.topology.resources
    if isinstance(resources, Unknown):
        return topology, _compare(LIVE, None, f"nothing to compare: {resources.why}")
    node = header.utsname[1] if len(header.utsname) > 1 else ""
    if node not in UNNAMED and node != snapshot.node:
        here = _short(snapshot.node)
        return topology, _compare(
            LIVE, None, f"refused: the dump is of {_short(node)}, this machine is {here}"
        )
    ram = resources.account.ram
    gone = header.described.aligned_inward(header.page_size) - ram.aligned_outward(header.page_size)
    if gone.size * 20 > header.described.size:
        return topology, _compare(
            LIVE,
            None,
            f"refused: this machine has no memory at {size(gone.size)} that the dump describes, "
            "so it is another machine, or memory was removed since",
        )
    more = ram.aligned_inward(header.page_size) - header.described.aligned_outward(header.page_size)
    # The crash kernel's reservation may be elsewhere at each boot.
    more -= _excluded(snapshot.topology) | _excluded(topology)
    text = "the dump describes all the memory that it has now"
    if more:
        first = ", ".join(address_range(start, end) for start, end in islice(more, 4))
        text = f"it has {size(more.size)} of memory that the dump does not describe: {first}"
        text += ", ..." if len(more) > 4 else ""
        if isinstance(topology.excluded, Unknown):
            text += " (it may include what was reserved for the crash kernel)"
    present = snapshot.topology.present_cpus
    if not isinstance(present, Unknown):
        text += (
            f"; it has {count(len(present), 'CPU')}, the dump has the registers of {len(header.cpu_notes)}"
        )
    return topology, _compare(
        LIVE,
        not more,
        "another boot of this machine: it shows what the hardware has now, not what the crashed kernel "
        f"had: {text}",
    )


def _filled(topology: Topology, record: Topology, caution: str) -> Topology:
    """``topology`` with the record's facts where its own are Unknown; memory accounts get the caution."""

    def given(name: str) -> Any:
        own, recorded = getattr(topology, name), getattr(record, name)
        return recorded if isinstance(own, Unknown) and not isinstance(recorded, Unknown) else own

    accounts = {
        name: _cautioned(fact, caution)
        for name in ("sections", "resources", "blocks")
        if (fact := given(name)) != getattr(topology, name)
    }
    filled = replace(topology, **{name: given(name) for name in FILLED_IN}, **accounts)
    if filled == topology:
        return topology
    return replace(
        filled,
        remarks=(
            *topology.remarks,
            f"facts that the dump's kernel does not give are from a record, {caution}",
        ),
    )


def _cautioned(fact: Account, caution: str) -> Account:
    account = replace(fact.account, unread=(*fact.account.unread, caution))
    return replace(fact, account=account)


def _compared(topology: Topology, snapshot: Snapshot) -> tuple[bool | None, str]:
    """Memory then and at the crash, and what the header already lacked then."""
    now, then = topology.system_ram, snapshot.topology.system_ram
    if isinstance(then, Unknown):
        return None, f"it has no memory to compare: {then.why}"
    stale = ""
    if snapshot.described is not None:
        lacked = (then - _excluded(snapshot.topology)).aligned_inward(
            4096
        ) - snapshot.described.aligned_outward(4096)
        stale = f"; elfcorehdr already lacked {size(lacked.size)} of it" if lacked else ""
        stale = stale or "; elfcorehdr described all of it then"
    if isinstance(now, Unknown):
        return None, f"{size(then.size)} of memory was online{stale}"
    came, went = now - then, then - now
    changes = [
        f"{size(ranges.size)} was {what}" for ranges, what in ((came, "added"), (went, "removed")) if ranges
    ]
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
