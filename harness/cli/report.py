"""`harness report`: the summary of a sweep, as a table and as a page."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Db, Json, RunsDir, places, print_json, print_table


def report(
    sweep: Annotated[str | None, typer.Argument(help="A sweep's id. Default: the newest.")] = None,
    db: Db = None,
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """Write a sweep's HTML summary and print its table."""
    from harness.store.db import read_store
    from harness.store.records import find_sweep

    database, folder = places(db, runs_dir)
    with contextlib.closing(read_store(database)) as store:
        sweep_id = find_sweep(store, sweep)["sweep_id"]
    page = write_summary(database, folder, sweep_id)
    if as_json:
        from harness.analysis.summary import cells

        with contextlib.closing(read_store(database)) as store:
            print_json({"sweep_id": sweep_id, "cells": cells(store, sweep_id), "page": str(page)})
        return
    print_cells(database, sweep_id)
    print(f"summary     {page}")


def print_cells(database: Path, sweep_id: str) -> None:
    """The table that ends a sweep: one row for each agent and model."""
    from harness.analysis.summary import SHORT, cells, energy_note, guard_note, how_many_tasks, left_out_note, replaced
    from harness.store.db import read_store

    with contextlib.closing(read_store(database)) as store:
        rows = cells(store, sweep_id)
        notes = [energy_note(rows), left_out_note(rows), guard_note(store, sweep_id)]
        tasks = how_many_tasks(store, sweep_id)
        overrides = replaced(store, sweep_id)
    if not rows:
        return
    print_table(f"sweep {sweep_id}", list(SHORT.values()), [[row[name] for name in SHORT] for row in rows])
    print("means per valid run; seconds and joules of the agent stage")
    print(tasks)
    for note in filter(None, notes):
        print(note)
    for line in overrides:
        print(line)


def write_summary(database: Path, folder: Path, sweep_id: str) -> Path:
    """Write the page beside the sweep's artefacts and return its path."""
    from harness.analysis.summary import page
    from harness.store.db import read_store

    target = folder / sweep_id / "summary.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(read_store(database)) as store:
        target.write_text(page(store, sweep_id, folder), encoding="utf-8")
    return target
