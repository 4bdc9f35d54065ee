"""The command line in a folder of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Harness


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    return Harness(tmp_path)


@pytest.fixture(scope="session")
def harness_in() -> type[Harness]:
    """For what is made once for several tests, in a folder of its own."""
    return Harness
