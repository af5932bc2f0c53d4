# SPDX-License-Identifier: LGPL-2.1-or-later
"""Why a dump is incomplete, what that costs and what to do."""
