# SPDX-License-Identifier: LGPL-2.1-or-later
"""Kernels without BTF, laid out as Linux 3.10 to 5.4 lay their structures out on x86_64."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.kernels import (
    EARLY,
    HAS_MEM_MAP,
    IMAGE,
    ONLINE,
    PAGE_OFFSET,
    PRESENT,
    SECTION_SIZE,
    SECTIONS_PER_ROOT,
    SYSTEM_RAM,
    Machine,
    note,
    words,
)

BUILD = bytes(range(20))
"""The build ID, in the kernel's own notes: VMCOREINFO has none before v5.9."""
ROOTS = 8
BOOT = range(8)
"""1 GiB of memory at boot, in sections of 128 MiB."""


@dataclass(frozen=True)
class Era:
    """What differs between kernels, by what brought it."""

    release: str
    desc: bool = True
    """struct resource has desc (v4.6); before, parent follows flags."""
    masks: str = "__cpu_{}_mask"
    """v4.5; before, cpu_*_bits."""
    nr_segments: int = 7
    """The word of struct kimage that has it: 6 before vmcoreinfo_data_copy (v4.13)."""
    flags: int = PRESENT | HAS_MEM_MAP
    """Of an online section that was there at boot."""
    e820: str = "e820_table_firmware"
    """v4.12; before, e820_saved, which is no pointer."""
    end_section: bool = True
    """struct memory_block has end_section_nr (until v5.4)."""
    name_at: int = 0
    """The word of struct kobject that has its name."""
    log: str = "printk_log"
    resource_size: int = 64
    section_size: int = 16
    """Bytes of struct mem_section: 32 with MEMCG before v4.8."""


ERAS = (
    Era("3.10.0-1160.el7.x86_64", False, "cpu_{}_bits", 6, e820="e820_saved", log="log", section_size=32),
    Era("4.4.180-94.97-default", False, "cpu_{}_bits", 6, e820="e820_saved"),
    Era("4.12.14-lp151.27-default", nr_segments=6),
    Era("4.14.336-253.554.amzn2.x86_64", flags=PRESENT | HAS_MEM_MAP | ONLINE),
    Era("4.18.0-147.el8.x86_64", flags=PRESENT | HAS_MEM_MAP | ONLINE, resource_size=96),
    Era("5.4.0-26-generic", flags=PRESENT | HAS_MEM_MAP | ONLINE | EARLY, end_section=False),
)


def old_kernel(era: Era, added: Iterable[int] = (), offline: Iterable[int] = (), cpus: int = 2) -> Machine:
    """1 GiB at boot, sections added later and online, sections added and never onlined."""
    machine = Machine()
    # No BTF.
    machine.btf = b""
    machine.build_id = BUILD.hex()
    for key in ("BUILD-ID", "OFFSET(page.compound_head)"):
        del machine.vmcoreinfo[key]
    machine.vmcoreinfo["OSRELEASE"] = era.release
    machine.symbols |= {"_stext": IMAGE, "_etext": IMAGE + 0x1000}
    notes = struct.pack("<III", 6, 4, 3) + b"Xen\0\0\0\0\0" + bytes(4)
    notes += struct.pack("<III", 4, 20, 3) + b"GNU\0" + BUILD
    machine.symbols["__stop_notes"] = machine.place(notes, "__start_notes") + len(notes)
    online, there = sorted([*BOOT, *added]), sorted([*BOOT, *added, *offline])
    _sections(machine, era, online, there)
    _resources(machine, era, there)
    _devices(machine, era, online, there)
    _cpus(machine, era, cpus)
    _e820(machine, era)
    _image(machine, era)
    _log(machine, era)
    _tasks(machine)
    machine.place(words(PAGE_OFFSET), "page_offset_base")
    return machine


def _sections(machine: Machine, era: Era, online: Sequence[int], there: Sequence[int]) -> None:
    per_root = 4096 // era.section_size
    table = b""
    for number in range(per_root):
        flags = 0
        if number in there:
            flags = PRESENT | HAS_MEM_MAP | (era.flags & ONLINE if number in online else 0)
        if number in BOOT:
            flags = era.flags
        table += words(flags, *[0] * (era.section_size // 8 - 1))
    roots = machine.place(words(machine.place(table, align=4096), *[0] * (ROOTS - 1)))
    machine.vmcoreinfo |= {
        "SYMBOL(mem_section)": f"{roots:x}",
        "LENGTH(mem_section)": str(ROOTS),
        "SIZE(mem_section)": str(era.section_size),
        "OFFSET(mem_section.section_mem_map)": "0",
    }
    assert SECTIONS_PER_ROOT == 4096 // 16


def _resource(era: Era, start: int, end: int, flags: int, name: int, *links: int) -> bytes:
    """``links``: parent, sibling, child."""
    desc = [0] if era.desc else []
    return words(start, (end - 1) % 2**64, name, flags, *desc, *links).ljust(era.resource_size, b"\xee")


def _resources(machine: Machine, era: Era, there: Sequence[int]) -> None:
    name = machine.place(b"System RAM\0")
    pci = machine.place(b"PCI mem\0")
    root = machine.place(_resource(era, 0, 0, 0, pci, 0, 0, 0), "iomem_resource")
    first = 0
    for number in reversed(there):
        start = number * SECTION_SIZE
        made = _resource(era, start, start + SECTION_SIZE, SYSTEM_RAM, name, root, first, 0)
        first = machine.place(made)
    machine.put(root, _resource(era, 0, 0, 0, pci, 0, 0, first))
    machine.place(_resource(era, 0, 1, 0, 0, 0, 0, 0), "crashk_res")


def _devices(machine: Machine, era: Era, online: Sequence[int], there: Sequence[int]) -> None:
    """memory_subsys -> subsys_private, its klist of devices, struct memory_block around each device."""
    machine.place(struct.pack("<i", 1) + b"\xff" * 4, "sections_per_block")
    get, put = (machine.place(bytes(8), f"klist_devices_{what}") for what in ("get", "put"))
    private = machine.place(bytes(40 * 8))
    machine.place(words(0, machine.place(bytes(64)), 0, private, 0).ljust(256, b"\0"), "memory_subsys")
    klist = private + 20 * 8
    head = klist + 8
    nodes = [machine.place(bytes(14 * 8)) for _ in there]
    ring = [head, *nodes_links(nodes), head]
    machine.put(klist, words(0, ring[1], ring[-2], get, put))
    for place, number in enumerate(there):
        name = machine.place(f"memory{number}".encode() + b"\0")
        state = 1 if number in online else 4
        block = words(number, *([number] if era.end_section else []), state, 0, 0, 0)
        made = machine.place(block + words(*[0] * era.name_at, name, 0).ljust(64, b"\0"))
        device = made + len(block)
        node = nodes[place]
        # struct device_private: ..., knode_bus (n_klist, n_node, n_ref), ..., device.
        machine.put(node, words(klist, ring[place + 2], ring[place], 1, 0, 0, device))


def nodes_links(nodes: Sequence[int]) -> list[int]:
    """Addresses of the list heads in klist nodes, which are their second words."""
    return [node + 8 for node in nodes]


def _cpus(machine: Machine, era: Era, cpus: int) -> None:
    machine.place(struct.pack("<I", 4) + b"\xff" * 4, "nr_cpu_ids")
    present = (1 << cpus) - 1
    for name, mask in {"possible": 0b1111, "present": present, "online": present}.items():
        # NR_CPUS is 8192: what lies behind nr_cpu_ids is no CPU's.
        machine.place(words(mask, *[0] * 127), era.masks.format(name))
    saved = [machine.place(note(cpu) if cpu < cpus else bytes(368)) for cpu in range(4)]
    machine.place(words(saved[0]), "crash_notes")
    machine.place(words(*[(place - saved[0]) % 2**64 for place in saved], *[0] * 60), "__per_cpu_offset")


def _e820(machine: Machine, era: Era) -> None:
    entries = [(0, 0x9FC00, 1), (0x9FC00, 0x400, 2), (1 << 20, (1 << 30) - (1 << 20), 1)]
    table = struct.pack("<I", len(entries)) + b"".join(struct.pack("<QQI", *entry) for entry in entries)
    if era.e820 == "e820_saved":
        machine.place(table, era.e820)
    else:
        machine.place(words(machine.place(table)), era.e820)


def _image(machine: Machine, era: Era) -> None:
    """kexec_load of two segments."""
    segments = [(0x10, 100, 0x3000000, 4096), (0x20, 8192, 0x3001000, 8192)]
    listed = [word for segment in segments for word in segment] + [0] * (4 * (16 - len(segments)))
    before = era.nr_segments + 1 + 64
    image = machine.place(bytes(8 * (before + 10)))
    heads = [address for i in range(3) for address in [image + 8 * (before + 2 * i)] * 2]
    machine.put(
        image,
        words(*[0xFFFF888000000000 + i for i in range(era.nr_segments)], 2, *listed, *heads, 0x3000, 1),
    )
    machine.place(words(image), "kexec_crash_image")


def _log(machine: Machine, era: Era) -> None:
    def record(seconds: float, text: str) -> bytes:
        data = text.encode()
        length = -(-(16 + len(data)) // 8) * 8
        header = struct.pack("<QHHHBB", int(seconds * 10**9), length, len(data), 0, 0, 0)
        return header + data.ljust(length - len(header), b"\0")

    late, early = record(2.5, "sysrq: Trigger a crash"), record(1.0, f"Linux version {era.release}")
    size = 256
    first = size - len(early) - 16
    assert len(late) <= first
    buffer = bytearray(size)
    # The newest record wrapped to the start; a length of 0 says so.
    buffer[: len(late)] = late
    buffer[first : first + len(early)] = early
    log = machine.place(bytes(buffer))
    for name, data in {
        "log_buf": words(log),
        "log_buf_len": struct.pack("<I", size),
        "log_first_idx": struct.pack("<I", first),
        "log_next_idx": struct.pack("<I", len(late)),
    }.items():
        machine.vmcoreinfo[f"SYMBOL({name})"] = f"{machine.place(data):x}"
    offsets = {"ts_nsec": 0, "len": 8, "text_len": 10}
    machine.vmcoreinfo |= {f"OFFSET({era.log}.{name})": str(offset) for name, offset in offsets.items()}
    machine.vmcoreinfo[f"SIZE({era.log})"] = "16"


TASKS, PID, COMM, TASK_SIZE = 0x1C8, 0x248, 0x3A0, 0x600


def _tasks(machine: Machine, names: Sequence[str] = ("systemd", "kthreadd", "systemd-udevd", "sshd")) -> None:
    places = [machine.place(bytes(TASK_SIZE)) for _ in ("swapper/0", *names)]
    machine.symbols["init_task"] = places[0]
    for number, (place, name) in enumerate(zip(places, ("swapper/0", *names), strict=True)):
        after, before = places[(number + 1) % len(places)], places[number - 1]
        machine.put(place + TASKS, words(after + TASKS, before + TASKS))
        pid = number if number < 3 else 300 + number
        machine.put(place + PID, struct.pack("<II", pid, pid))
        machine.put(place + COMM, name.encode().ljust(16, b"\0"))
        # A list of one task, as thread_group is.
        machine.put(place + TASKS + 0x40, words(place + TASKS + 0x40, place + TASKS + 0x40))
    machine.place(bytes(12 << 10))
