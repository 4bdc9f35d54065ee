"""Opening the database, and the lock that keeps two sweeps from writing one.

Reading needs no lock: the database is in WAL mode, so `harness runs list` works while a sweep runs.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from harness.errors import MachineError, UserError
from harness.flags import FLAGS
from harness.outcome import ENDINGS, all_outcomes
from harness.store.migrations import is_current, migrate


def open_store(path: Path) -> Database:
    """Open (or create) the database for writing, migrated to the newest schema.

    Raises UserError when `path` is no database or a newer harness's, MachineError when it can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        db = Database(path)
        db.execute("PRAGMA busy_timeout = 10000")
        db.execute("PRAGMA foreign_keys = ON")
        # A run that was said to be stored survives a loss of power, whatever default this SQLite was built with.
        db.execute("PRAGMA synchronous = FULL")
        tables = db.table_names()
        if tables and "migrations" not in tables:
            raise UserError(f"{path} is a database, but none of the harness: name another file with --db")
        db.enable_wal()
        migrate(db)
        _write_meanings(db)
    except sqlite3.DatabaseError as error:
        if "not a database" in str(error):
            raise UserError(f"{path} is not an SQLite database: name another file with --db") from error
        raise MachineError(f"the database {path} can't be opened: {error}") from error
    except OSError as error:
        raise MachineError(f"the database {path} can't be created: {error.strerror}") from error
    return db


def new_store(path: Path) -> Database:
    """Create a database in one file, without WAL beside it; other databases can be attached to it by their URIs."""
    db = Database(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rwc", uri=True))
    migrate(db)
    _write_meanings(db)
    return db


def read_store(path: Path) -> Database:
    """Open an existing database for reading. Raises UserError when there is none at `path`, or one of an older schema
    that can't be written."""
    return open_store(path) if _can_be_written(path) else look_into(path)


def look_into(path: Path) -> Database:
    """Open an existing database and never write it, not even to bring its schema up to date.

    Raises UserError when there is none at `path`, when it is none of the harness, or of an older schema.
    """
    if not path.is_file():
        raise UserError(f"there is no database at {path}: run `harness sweep` first, or name another one with --db")
    # Another user's, or an archived one: WAL would need its folder, so what has reached the file itself is read.
    how = "mode=ro" if _can_be_written(path) else "mode=ro&immutable=1"
    db = Database(sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True))
    try:
        db.execute("PRAGMA query_only = ON")
        current = is_current(db)
    except sqlite3.DatabaseError as error:
        db.close()
        raise UserError(f"{path} can't be read as a database of the harness: {error}") from error
    if not current:
        db.close()
        raise UserError(
            f"{path} was written by an older harness and can't be updated where it lies: copy it to a folder "
            "that you may write to, and name the copy with --db"
        )
    return db


def damage(db: Database | sqlite3.Connection) -> str | None:
    """What is wrong with a database's pages, if anything. Every one of them is read."""
    [(state,)] = db.execute("PRAGMA quick_check(1)").fetchall()
    return None if state == "ok" else " ".join(str(state).removeprefix("*** in database main ***").split())


def _can_be_written(path: Path) -> bool:
    return path.is_file() and os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def _write_meanings(db: Database) -> None:
    rows = [
        {
            "ended_by": name,
            "fault": e.fault,
            "retried": int(e.retried),
            "counts": int(e.counts),
            "meaning": e.meaning,
        }
        for name, e in ENDINGS.items()
    ]
    pairs = [{"ended_by": e, "verdict": v, "outcome": o} for e, v, o in all_outcomes()]
    flags = [{"flag": name, "leaves_out": int(f.leaves_out), "meaning": f.meaning} for name, f in FLAGS.items()]
    wanted: dict[str, list[dict[str, Any]]] = {"endings": rows, "outcomes": pairs, "flags": flags}
    # Written only when they differ, so that a reader never waits for a sweep that is writing.
    if not all(_same_rows(db, table, meanings) for table, meanings in wanted.items()):
        with db.atomic():
            for table, meanings in wanted.items():
                db.execute(f"DELETE FROM {table}")
                db.table(table).insert_all(meanings)


def _same_rows(db: Database, table: str, rows: list[dict[str, Any]]) -> bool:
    """Whether the table holds just these rows, in any order."""

    def contents(some: Iterable[dict[str, Any]]) -> set[frozenset[tuple[str, Any]]]:
        return {frozenset(row.items()) for row in some}

    return contents(db.table(table).rows) == contents(rows)


@contextmanager
def writer_lock(path: Path, owner: str) -> Iterator[None]:
    """Hold the right to write runs into the database at `path`.

    `owner` says who holds it, for the sentence that another sweep is shown. The kernel frees the lock when the
    holder dies, however it dies. Raises UserError when it is taken, MachineError when the folder can't be written.
    """
    lock = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = lock.open("a+")
    except OSError as error:
        raise MachineError(f"the database {path} can't be written: {error.strerror}: {error.filename}") from error
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            try:
                held = json.loads(file.read())
                holder = f"{held['owner']} (process {held['pid']})"
            except (ValueError, KeyError):
                holder = "another process"
            raise UserError(
                f"{path} is being written by {holder}: wait for it, or name another database with --db"
            ) from error
        file.seek(0)
        file.truncate()
        file.write(json.dumps({"owner": owner, "pid": os.getpid()}))
        file.flush()
        try:
            yield
        finally:
            with suppress(OSError):  # on a disk that has become read-only
                file.seek(0)
                file.truncate()
