"""`harness report`: the statistics of sweeps, to be read, printed or computed with; and what ends a sweep."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Db, Json, RunsDir, places, print_json, print_table
from harness.errors import UserError

if TYPE_CHECKING:
    from sqlite_utils import Database

    from harness.analysis.statistics.comparisons import Design


FORMATS = {"html": ".html", "md": ".md", "latex": ".tex", "pdf": ".pdf", "json": ".json", "csv": "-csv"}
"""By name, how the file (of csv the folder) ends that is written where no other is named."""


def report(
    sweeps: Annotated[
        list[str] | None, typer.Argument(metavar="[SWEEP]...", help="Ids of sweeps. Default: the newest.")
    ] = None,
    to: Annotated[str, typer.Option("--format", help="html, md, latex, pdf, json, or csv (a folder).")] = "html",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where to. Default: report.*, in the sweep's folder of the runs."),
    ] = None,
    unblocked: Annotated[
        bool, typer.Option("--unblocked", help="Compare without pairing tasks, for cells that have different ones.")
    ] = False,
    db: Db = None,
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """Write the statistics report of one or several sweeps, and print a table for each."""
    from harness.store.db import read_store
    from harness.store.records import find_sweep

    if to not in FORMATS:
        raise UserError(f"--format {to!r}: expected {', '.join(FORMATS)}")
    database, folder = places(db, runs_dir)
    with contextlib.closing(read_store(database)) as store:
        found = [find_sweep(store, sweep)["sweep_id"] for sweep in sweeps or (None,)]
        ids = list(dict.fromkeys(found))
        name = "report" if len(ids) == 1 else f"report-of-{len(ids)}-sweeps"
        target = output or folder / ids[0] / f"{name}{FORMATS[to]}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            files = _write(store, folder, ids, to, target, unblocked)
        except OSError as error:
            raise UserError(f"the report can't be written: {error.filename or target}: {error.strerror}") from error
        if as_json:
            from harness.analysis.summary import cells

            said = [{"sweep_id": sweep_id, "cells": cells(store, sweep_id)} for sweep_id in ids]
            print_json({"sweeps": said, "report": str(target), "files": [str(file) for file in files]})
            return
    for sweep_id in ids:
        print_cells(database, sweep_id)
    beside = f" and {len(files) - 1} files beside it" if len(files) > 1 else ""
    print(f"report      {target}{beside}")


def _write(store: Database, folder: Path, sweeps: Sequence[str], to: str, target: Path, unblocked: bool) -> list[Path]:
    try:
        from harness.analysis.report.content import report as content
        from harness.analysis.report.formats import WRITERS
        from harness.meter.over_time import power_of
    except ImportError as error:
        raise UserError(
            f"a report needs the package {error.name}: install the extra `report` (`pip install "
            "'agent-energy-harness[report]'`)"
        ) from error
    design: Design = "unblocked" if unblocked else "blocked"
    document = content(store, folder, sweeps, lambda run_id: power_of(store, folder, run_id), design)
    return WRITERS[to](document, target)


def print_cells(database: Path, sweep_id: str) -> None:
    """The table that ends a sweep: one row for each agent and model."""
    from harness.analysis.figures import energy_note
    from harness.analysis.summary import SHORT, cells, guard_note, how_many_tasks, left_out_note, replaced
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
