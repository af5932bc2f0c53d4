# SPDX-License-Identifier: LGPL-2.1-or-later
"""How fast vmcheck is and how much memory it takes, beside its peers in the same run.

``python -m benchmarks`` measures everything and writes the table of docs/performance.md;
``python -m benchmarks NAME...`` measures those alone and prints them.
"""
