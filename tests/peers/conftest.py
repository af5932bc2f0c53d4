# SPDX-License-Identifier: LGPL-2.1-or-later
from __future__ import annotations

import pytest

from tests.lab.conftest import pytest_collection_modifyitems as pytest_collection_modifyitems
from tests.peers.fresh import Captures


@pytest.fixture(scope="session")
def captures(tmp_path_factory: pytest.TempPathFactory) -> Captures:
    return Captures(tmp_path_factory.getbasetemp(), tmp_path_factory.mktemp("dressed"))
