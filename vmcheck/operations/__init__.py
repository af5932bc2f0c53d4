# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the commands do: one verb a file."""
