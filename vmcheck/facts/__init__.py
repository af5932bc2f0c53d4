# SPDX-License-Identifier: LGPL-2.1-or-later
"""The values: what a dump's headers claim, what a kernel knew, what the rules found."""
