"""`harness export`: what was stored, in formats that other programs read."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Db, Json, RunsDir, places, print_json, print_table
from harness.errors import UserError

FORMATS = ("swebench",)


def export(
    sweep: Annotated[str | None, typer.Argument(help="A sweep's id. Default: the newest.")] = None,
    to: Annotated[str, typer.Option("--format", help="swebench: predictions for its official command.")] = "swebench",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder. Default: the sweep's, in the runs folder.")
    ] = None,
    db: Db = None,
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """Write the patches of a sweep, a file for each agent, model and repetition."""
    from harness.analysis.predictions import write_predictions
    from harness.store.db import read_store
    from harness.store.records import find_sweep

    if to not in FORMATS:
        raise UserError(f"--format {to!r}: expected {' or '.join(FORMATS)}")
    database, folder = places(db, runs_dir)
    with contextlib.closing(read_store(database)) as store:
        sweep_id = find_sweep(store, sweep)["sweep_id"]
        target = output or folder / sweep_id
        try:
            files = write_predictions(store, folder, sweep_id, target)
        except OSError as error:
            raise UserError(f"{error.filename or target}: {error.strerror}") from error
    if as_json:
        print_json(files)
        return
    columns = ["file", "predictions", "empty", "left_out"]
    print_table(f"sweep {sweep_id}", columns, [[file[column] for column in columns] for file in files])
    print("next        swebench eval SUITE -p FILE --run-id NAME")
