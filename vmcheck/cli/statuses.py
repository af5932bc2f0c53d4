# SPDX-License-Identifier: LGPL-2.1-or-later
"""Exit statuses. Here and not from vmcheck.check, which takes numpy to import."""

USAGE = 2
UNREADABLE = 3
BUG = 70
INTERRUPTED = 130

HELP = """
\b
Exit status:
  0   complete: every rule looked and found nothing
  1   something is lost or wrong (--fail-on says how wrong)
  2   wrong usage, or an output that cannot be written
  3   the file cannot be read, or is no dump that vmcheck knows
  4   could not tell: nothing wrong was seen, but some rule could not look
  70  a bug in vmcheck
"""
