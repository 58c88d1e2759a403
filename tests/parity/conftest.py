"""Official checkpoints are imported once per test run."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from tests.parity.goldens import Golden


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Golden]:
    """`golden("ST")`: one variant."""
    folder = tmp_path_factory.mktemp("imported")
    return cache(lambda name: Golden(name, folder))
