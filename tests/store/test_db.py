"""The schema, its documentation, the lock, and what happens to files that are no database."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from harness.errors import UserError
from harness.outcome import ENDINGS, EndedBy, Verdict, outcome
from harness.store.columns import COLUMNS, TABLES
from harness.store.db import open_store, read_store, writer_lock
from harness.store.migrations import MIGRATIONS
from harness.store.records import end_sweep, insert_run, insert_sweep, set_aside


def test_every_column_is_documented_and_every_documented_column_exists(tmp_path: Path) -> None:
    db = open_store(tmp_path / "h.db")
    assert set(db.table_names()) | set(db.view_names()) == set(TABLES)
    for table in db.tables:
        assert [c.name for c in table.columns] == list(COLUMNS[table.name]), table.name


def test_opening_twice_applies_nothing_twice(tmp_path: Path) -> None:
    open_store(tmp_path / "h.db").close()
    db = open_store(tmp_path / "h.db")
    assert [r["name"] for r in db.table("migrations").rows] == [step.__name__ for step in MIGRATIONS]


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


def test_a_meaning_that_another_version_wrote_is_written_anew(tmp_path: Path) -> None:
    db = open_store(tmp_path / "h.db")
    wanted = sorted(map(str, db.table("outcomes").rows))
    db.execute("UPDATE outcomes SET outcome = 'invalid' WHERE ended_by = 'timeout' AND verdict = 'resolved'")
    db.conn.commit()
    assert sorted(map(str, db.table("outcomes").rows)) != wanted
    db.close()
    assert sorted(map(str, open_store(tmp_path / "h.db").table("outcomes").rows)) == wanted


def test_meanings_in_another_order_are_left_alone(tmp_path: Path) -> None:
    db = open_store(tmp_path / "h.db")
    turned = list(db.table("endings").rows)[::-1]
    with db.atomic():
        db.execute("DELETE FROM endings")
        db.table("endings").insert_all(turned)
    db.close()
    assert list(open_store(tmp_path / "h.db").table("endings").rows) == turned


def test_a_run_that_is_set_aside_reopens_its_sweep(tmp_path: Path) -> None:
    db = open_store(tmp_path / "h.db")
    for sweep in ("s1", "s2"):
        insert_sweep(db, sweep_id=sweep, machine_id="m", facts={}, version="1", spec={}, resolved={}, planned_runs=1)
    columns = db.table("runs").columns
    row: dict[str, Any] = {c.name: (0 if c.type in ("INTEGER", "REAL") else "") if c.notnull else None for c in columns}
    row |= {"run_id": "s1-0", "sweep_id": "s1", "machine_id": "m", "attempt": 1, "ended_by": "sandbox_error"}
    insert_run(db, row, [], [], [], [])
    for sweep in ("s1", "s2"):
        end_sweep(db, sweep)
    set_aside(db, row, "its container vanished")
    assert list(db.table("runs").rows) == []
    assert [(a["sweep_id"], a["ended_by"]) for a in db.table("attempts").rows] == [("s1", "sandbox_error")]
    ended = {r["sweep_id"]: r["ended_at"] for r in db.table("sweeps").rows}
    assert ended["s1"] is None
    assert ended["s2"] is not None
