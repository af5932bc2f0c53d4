# SPDX-License-Identifier: LGPL-2.1-or-later
"""A validator for Linux kernel crash dumps."""

__version__ = "0.1.0"
