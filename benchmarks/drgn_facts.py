# SPDX-License-Identifier: LGPL-2.1-or-later
"""The peer: ``drgn_facts.py VMCORE VMLINUX`` reads with drgn and DWARF what a check asks the kernel."""

from __future__ import annotations

import os
import sys

os.environ["DRGN_DISABLE_PLUGINS"] = "*"

from drgn import FaultError, Program
from drgn.helpers.linux.cpumask import for_each_online_cpu, for_each_possible_cpu, for_each_present_cpu
from drgn.helpers.linux.ioport import for_each_resource
from drgn.helpers.linux.mm import for_each_memory_block
from drgn.helpers.linux.percpu import per_cpu_ptr
from drgn.helpers.linux.printk import get_dmesg


def facts(prog: Program) -> list[object]:
    possible = list(for_each_possible_cpu(prog))
    notes = [prog.read(per_cpu_ptr(prog["crash_notes"], cpu), 356) for cpu in possible]
    image = prog["kexec_crash_image"]
    segments = [image.segment[i].mem.value_() for i in range(image.nr_segments)] if image else []
    resources = [
        (resource.start.value_(), resource.end.value_(), resource.flags.value_(), resource.name.string_())
        for resource in for_each_resource(prog["iomem_resource"].address_of_())
    ]
    blocks = []
    try:
        for block in for_each_memory_block(prog):
            blocks.append((block.start_section_nr.value_(), block.state.value_()))
    except FaultError:
        pass
    return [
        possible,
        list(for_each_present_cpu(prog)),
        list(for_each_online_cpu(prog)),
        notes,
        segments,
        resources,
        blocks,
        get_dmesg(prog),
    ]


if __name__ == "__main__":
    prog = Program()
    prog.set_core_dump(sys.argv[1])
    prog.load_debug_info([sys.argv[2]])
    print(facts(prog))
