from __future__ import annotations

from pathlib import Path

import pytest
from energy_rows import open_sweep
from sqlite_utils import Database


@pytest.fixture
def db(tmp_path: Path) -> Database:
    """With a sweep that has no run yet."""
    return open_sweep(tmp_path / "h.db")
