"""Faults of every kind, and one invariant after each. `make faults` makes all of them, CI a short cut."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Harness


@pytest.fixture(scope="session")
def thorough() -> bool:
    return os.environ.get("HARNESS_FAULTS") == "all"


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    """The command line, with a temporary folder that nobody else uses: what is left in it is the harness's.

    Its path is short, since the sockets of runs lie in it.
    """
    with tempfile.TemporaryDirectory(prefix="hf-") as temporary:
        yield Harness(tmp_path, {"TMPDIR": temporary}, own_session=True)
