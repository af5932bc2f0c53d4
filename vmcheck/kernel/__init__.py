# SPDX-License-Identifier: LGPL-2.1-or-later
"""A kernel's memory -> Topology. The only home of drgn; read.py is the way in."""
