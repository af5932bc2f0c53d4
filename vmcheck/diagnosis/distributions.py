# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which distribution's kernel crashed, and how that distribution keeps elfcorehdr up to date."""

from __future__ import annotations

import re
from typing import NamedTuple

from vmcheck.facts.case import Case
from vmcheck.facts.diagnosis import Regime

UNKNOWN = "unknown"
"""The policy where the distribution is not known, or has no commands of its own in remedies.toml."""


class Distribution(NamedTuple):
    name: str
    """For people."""
    policy: str
    """By which name remedies.toml has it: its commands are those of this family."""
    regime: Regime | None
    """What its udev rules do, where they are installed. None: it has no such rules."""
    release: str = ""
    """A pattern of its kernels' releases."""
    banner: str = ""
    """A pattern of linux_banner."""


DISTRIBUTIONS = (
    # Also Oracle's UEK of that age: 5.4.17-2136.el7uek.
    Distribution("RHEL 7", "rhel7", Regime.RHEL7_PER_EVENT_RELOAD, r"\.el7"),
    Distribution("RHEL", "rhel", Regime.RHEL_THROTTLED_RELOAD, r"\.el\d+"),
    Distribution("Fedora", "rhel", Regime.RHEL_THROTTLED_RELOAD, r"\.fc\d+"),
    # Rebuilds of RHEL 8 and later: Anolis OS, Alibaba Cloud Linux.
    Distribution("Anolis OS", "rhel", Regime.RHEL_THROTTLED_RELOAD, r"\.an\d+"),
    Distribution("Alibaba Cloud Linux", "rhel", Regime.RHEL_THROTTLED_RELOAD, r"\.al\d+"),
    # kdumpctl too; what their rules do was not seen.
    Distribution("Amazon Linux", "unknown", Regime.USER_SPACE_RELOAD, r"\.amzn\d+"),
    Distribution("Azure Linux", "unknown", Regime.USER_SPACE_RELOAD, r"\.(azl|cm)\d+"),
    Distribution("openEuler", "unknown", Regime.USER_SPACE_RELOAD, r"\.oe\d+"),
    Distribution("Flatcar", "unknown", None, r"-flatcar$"),
    Distribution("Container-Optimized OS", "unknown", None, banner="Container-Optimized OS|Chromium OS"),
    # 5.14.21-150500.55.19-default, 4.12.14-lp151.27-default, 6.4.0-150600.23.47-default
    Distribution("SUSE", "suse", Regime.SUSE_RELOAD, r"-(1[56]\d{4}|lp1\d\d)\.\d+.*-\w+$", "SUSE"),
    Distribution("Ubuntu", "ubuntu", Regime.DEBIAN_TRY_RELOAD, banner="Ubuntu"),
    Distribution("Debian", "debian", Regime.DEBIAN_TRY_RELOAD, banner="Debian"),
)
"""The first that matches, releases before banners: a banner names the compiler too, perhaps another's."""
POLICIES = frozenset({UNKNOWN, *(each.policy for each in DISTRIBUTIONS)})


def distribution(case: Case) -> Distribution | None:
    """The distribution of the kernel that crashed; None where neither release nor banner shows it."""
    release = case.topology.release if isinstance(case.topology.release, str) else ""
    banner = case.topology.banner if isinstance(case.topology.banner, str) else ""
    banner += " " + " ".join(case.header.utsname)
    for field, text in (("release", release), ("banner", banner)):
        for each in DISTRIBUTIONS:
            pattern = getattr(each, field)
            if pattern and re.search(pattern, text):
                return each
    return None
