"""`harness db`: where the database is, what is in it, a copy of it."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shlex
import sqlite3
from pathlib import Path
from typing import Annotated

import typer

from harness import owned
from harness.cli.options import Db, Json, RunsDir, places, print_json
from harness.errors import MachineError, UserError

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
    # Filled beside the target: a copy that was broken off must not look like one.
    unfinished = target.with_name(f"{owned.prefix()}{target.name}")
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True)) as old,
            contextlib.closing(sqlite3.connect(unfinished)) as new,
        ):
            old.backup(new)
        unfinished.rename(target)
    except (sqlite3.Error, OSError) as error:
        raise MachineError(f"{source} can't be copied to {target}: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()
    print(f"{source} copied to {target}")


@app.command("datasette")
def datasette(
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")] = Path("datasette.json"),
    db: Db = None,
    runs_dir: RunsDir = None,
) -> None:
    """Write what Datasette needs to show the database with the meaning of every column and queries to begin with."""
    from harness.store.datasette import metadata

    database = places(db, runs_dir)[0]
    try:
        out.write_text(json.dumps(metadata(database.stem), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out} can't be written: {error.strerror}") from error
    if importlib.util.find_spec("datasette") is None:
        print("Datasette is not installed: pip install 'agent-energy-harness[datasette]'")
    print(f"{out} written; now: datasette serve {shlex.quote(str(database))} --metadata {shlex.quote(str(out))}")


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
