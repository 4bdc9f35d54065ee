"""The schema, its documentation, the lock, and what happens to files that are no database."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from harness.errors import UserError
from harness.outcome import ENDINGS, EndedBy, Verdict, outcome
from harness.store.columns import COLUMNS, TABLES
from harness.store.db import open_store, read_store, writer_lock


def test_every_column_is_documented_and_every_documented_column_exists(tmp_path: Path) -> None:
    db = open_store(tmp_path / "h.db")
    assert set(db.table_names()) | set(db.view_names()) == set(TABLES)
    for table in db.tables:
        assert [c.name for c in table.columns] == list(COLUMNS[table.name]), table.name


def test_opening_twice_applies_nothing_twice(tmp_path: Path) -> None:
    open_store(tmp_path / "h.db").close()
    db = open_store(tmp_path / "h.db")
    assert [r["name"] for r in db.table("migrations").rows] == ["m001_first"]


def test_a_newer_database_is_refused_by_name(tmp_path: Path) -> None:
    db = open_store(tmp_path / "h.db")
    db.table("migrations").insert({"name": "m999_future", "applied_at": "2030-01-01"})
    db.close()
    with pytest.raises(UserError, match="m999_future"):
        open_store(tmp_path / "h.db")


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("this is not a database, it is a shopping list" * 40)
    with pytest.raises(UserError, match="not an SQLite database"):
        open_store(path)


def test_reading_does_not_create(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no database"):
        read_store(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()


def test_a_second_writer_is_told_who_holds_the_lock(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from harness.store.db import writer_lock\n"
        f"with writer_lock(Path({str(tmp_path / 'h.db')!r}), 'sweep abc'):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    try:
        with (
            pytest.raises(UserError, match=rf"sweep abc \(process {holder.pid}\)"),
            writer_lock(tmp_path / "h.db", "me"),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()
    with writer_lock(tmp_path / "h.db", "me"):
        pass  # the dead holder's lock is free


def test_a_run_that_timed_out_may_be_resolved_and_a_spoilt_one_may_not() -> None:
    assert outcome("timeout", "resolved") == "resolved"
    assert outcome("sandbox_error", "resolved") == "invalid"
    assert outcome("submitted", "grader_error") == "ungraded"
    assert set(ENDINGS) == set(get_args(EndedBy))
    for ended_by in get_args(EndedBy):
        for verdict in get_args(Verdict):
            assert outcome(ended_by, verdict)


def test_the_view_shows_the_outcome_that_the_code_derives(tmp_path: Path) -> None:
    db = open_store(tmp_path / "h.db")
    rows = {(r["ended_by"], r["verdict"]): r["outcome"] for r in db.table("outcomes").rows}
    assert rows[("timeout", "resolved")] == "resolved"
    assert rows[("model_error", "unresolved")] == "invalid"
    assert len(rows) == len(get_args(EndedBy)) * len(get_args(Verdict))
