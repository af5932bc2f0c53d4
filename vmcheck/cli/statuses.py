# SPDX-License-Identifier: LGPL-2.1-or-later
"""Exit statuses (docs/guide.md). vmcheck.check has them too, but imports numpy."""

USAGE = 2
UNREADABLE = 3
BUG = 70
INTERRUPTED = 130

HELP = """
\b
Exit status:
  0   complete: every rule looked, and nothing is missing or wrong
  1   something is missing or wrong
  2   wrong usage, or an output cannot be written
  3   the file cannot be read, or is not a dump that vmcheck knows
  4   could not tell: nothing is known to be wrong, but a rule was skipped
  70  a bug in vmcheck
"""
