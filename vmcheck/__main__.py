# SPDX-License-Identifier: LGPL-2.1-or-later
"""``python -m vmcheck``."""

from vmcheck.cli import main

if __name__ == "__main__":
    main()
