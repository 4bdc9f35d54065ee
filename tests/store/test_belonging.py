"""No table is forgotten where a sweep is taken out of a database."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.store.belonging import EVERYWHERE, tables
from harness.store.db import open_store


def test_every_table_belongs_to_sweeps_or_is_the_harnesss_own(tmp_path: Path) -> None:
    db = open_store(tmp_path / "h.db")
    assert {table.name for table in tables(db)} | EVERYWHERE == set(db.table_names())
    assert [table.name for table in tables(db) if table.shared] == ["calibrations", "machines"]


def test_a_table_whose_rows_can_not_be_told_to_be_a_sweeps_is_an_error(tmp_path: Path) -> None:
    db = open_store(tmp_path / "h.db")
    db.execute("CREATE TABLE weather (day TEXT, celsius REAL)")
    with pytest.raises(LookupError, match="weather"):
        tables(db)
