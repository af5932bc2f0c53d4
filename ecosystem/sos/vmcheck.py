# SPDX-License-Identifier: LGPL-2.1-or-later
"""A plugin for sos: would a crash have been captured whole, and a witness if one happens.

To be placed in sos/report/plugins/. What it collects is read by ``vmcheck check --topology``, or by
``vmcheck record --root`` where vmcheck was not on the machine.
"""

from sos.report.plugins import DebianPlugin, Plugin, RedHatPlugin, UbuntuPlugin


class Vmcheck(Plugin, RedHatPlugin, DebianPlugin, UbuntuPlugin):
    short_desc = "Completeness of kernel crash dumps"

    plugin_name = "vmcheck"
    profiles = ("system", "debug")

    def setup(self):
        self.add_copy_spec(
            [
                "/proc/cpuinfo",
                "/proc/iomem",
                "/proc/sys/kernel/hostname",
                "/proc/sys/kernel/osrelease",
                "/proc/sys/kernel/random/boot_id",
                "/proc/version",
                "/sys/devices/system/cpu/online",
                "/sys/devices/system/cpu/possible",
                "/sys/devices/system/cpu/present",
                "/sys/devices/system/memory/block_size_bytes",
                "/sys/devices/system/memory/memory*/state",
                "/sys/kernel/kexec_crash_loaded",
                "/sys/kernel/kexec_crash_size",
                "/var/lib/vmcheck",
            ]
        )
        self.add_cmd_output(["vmcheck preflight", "vmcheck record"])
