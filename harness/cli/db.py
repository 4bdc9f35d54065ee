"""`harness db`: where the database is, what is in it, a copy of it."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Db, Json, RunsDir, places, print_json
from harness.errors import UserError

app = typer.Typer(help="The database.", no_args_is_help=True)


@app.command("path")
def path(db: Db = None, runs_dir: RunsDir = None) -> None:
    """Print the path of the database."""
    print(places(db, runs_dir)[0])


@app.command("backup")
def backup(
    target: Annotated[Path, typer.Argument(help="A file that does not exist yet.")],
    db: Db = None,
    runs_dir: RunsDir = None,
) -> None:
    """Copy the database, also while a sweep is writing it."""
    source = places(db, runs_dir)[0]
    if not source.is_file():
        raise UserError(f"there is no database at {source}: run `harness sweep` first, or name one with --db")
    if target.exists():
        raise UserError(f"{target} exists already: name a file that does not")
    if not target.parent.is_dir():
        raise UserError(f"{target.parent} is no folder: make it first")
    with (
        contextlib.closing(sqlite3.connect(source)) as old,
        contextlib.closing(sqlite3.connect(target)) as new,
    ):
        old.backup(new)
    print(f"{source} copied to {target}")


@app.command("schema")
def schema(as_json: Json = False) -> None:
    """Print every table and column with its meaning."""
    from harness.store.columns import COLUMNS, TABLES

    if as_json:
        print_json({table: {"meaning": TABLES[table], "columns": COLUMNS.get(table, {})} for table in TABLES})
        return
    for table, meaning in TABLES.items():
        print(f"{table}: {meaning}")
        for column, text in COLUMNS.get(table, {}).items():
            print(f"  {column:<26} {text}")
