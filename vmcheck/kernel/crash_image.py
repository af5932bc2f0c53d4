# SPDX-License-Identifier: LGPL-2.1-or-later
"""``kexec_crash_image``: the loaded crash kernel and how its elfcorehdr is kept fresh."""

from __future__ import annotations

from drgn import Object

from vmcheck.facts.topology import CrashImage
from vmcheck.kernel.program import Kernel

KEXEC_SEGMENT_MAX = 16


def crash_image(kernel: Kernel) -> CrashImage | None:
    """None where no crash kernel is loaded. Raises LookupError or FaultError.

    Members are asked for, never versions: distributions backport. hotplug_support,
    elfcorehdr_index and elfcorehdr_updated are CONFIG_CRASH_HOTPLUG's, since Linux kernel
    commit 247262756121 ("crash: add generic infrastructure for crash hotplug support") (in v6.6).
    """
    pointer = kernel.prog["kexec_crash_image"]
    if not pointer:
        return None
    image = pointer[0].read_()
    segments = [image.segment[i] for i in range(min(int(image.nr_segments), KEXEC_SEGMENT_MAX))]

    def member(*names: str) -> Object | None:
        for name in names:
            try:
                return image.member_(name)
            except LookupError:
                continue
        return None

    def flag(*names: str) -> bool | None:
        value = member(*names)
        return None if value is None else bool(value)

    index = member("elfcorehdr_index")
    return CrashImage(
        segments=tuple((int(part.mem), int(part.memsz), int(part.bufsz)) for part in segments),
        file_mode=flag("file_mode"),
        # v6.6 to v6.9 called it update_elfcorehdr (commit 79365026f869 renamed it).
        hotplug_support=flag("hotplug_support", "update_elfcorehdr"),
        elfcorehdr_index=None if index is None else int(index),
        elfcorehdr_updated=flag("elfcorehdr_updated"),
    )
