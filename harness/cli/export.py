"""`harness export`: what was stored, in formats that other programs read."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import Db, Json, RunsDir, places, print_json, print_table
from harness.errors import MachineError, UserError

if TYPE_CHECKING:
    from sqlite_utils import Database

FORMATS = ("swebench", "atif", "parquet", "bundle")


def export(
    sweep: Annotated[str | None, typer.Argument(help="A sweep's id. Default: the newest.")] = None,
    to: Annotated[
        str,
        typer.Option(
            "--format",
            help="swebench: predictions for its official command. atif: a trajectory for each run. parquet: a file for "
            "each table. bundle: all that a replication needs in one archive, for `harness import`.",
        ),
    ] = "swebench",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder. Default: the sweep's, in the runs folder.")
    ] = None,
    db: Db = None,
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """Write a sweep in a format that other programs read."""
    from harness.store.db import read_store
    from harness.store.records import find_sweep

    if to not in FORMATS:
        raise UserError(f"--format {to!r}: expected {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    database, folder = places(db, runs_dir)
    with contextlib.closing(read_store(database)) as store:
        chosen = find_sweep(store, sweep)
        sweep_id = chosen["sweep_id"]
        target = output or folder / sweep_id
        try:
            if to == "swebench":
                _predictions(store, folder, sweep_id, target, as_json)
            elif to == "atif":
                _trajectories(store, folder, sweep_id, target / "trajectories", as_json)
            elif to == "parquet":
                _tables(store, folder, sweep_id, target / "parquet", as_json)
            else:
                _bundle(database, folder, sweep_id, target, as_json)
        except OSError as error:
            raise UserError(f"{error.filename or target}: {error.strerror}") from error
        stored = store.table("runs").count_where("sweep_id = ?", [sweep_id])
    if not as_json and stored < chosen["planned_runs"]:
        print(f"not finished: {stored} of {chosen['planned_runs']} runs are in it")


def _predictions(store: Database, folder: Path, sweep_id: str, target: Path, as_json: bool) -> None:
    from harness.analysis.predictions import write_predictions

    files = write_predictions(store, folder, sweep_id, target)
    _print_files(sweep_id, ["file", "predictions", "empty", "left_out"], files, as_json)
    if not as_json:
        print("next        swebench eval SUITE -p FILE --run-id NAME")


def _trajectories(store: Database, folder: Path, sweep_id: str, target: Path, as_json: bool) -> None:
    from dataclasses import asdict

    from harness.analysis.atif import write_trajectories

    written = write_trajectories(store, folder, sweep_id, target)
    if as_json:
        print_json(asdict(written))
        return
    print(f"{len(written.files)} trajectories in {target}")
    if written.without_calls:
        print(f"{len(written.without_calls)} runs called no model and have none")
    for run_id, why in written.unreadable.items():
        print(f"none of {run_id}: {why}")


def _tables(store: Database, folder: Path, sweep_id: str, target: Path, as_json: bool) -> None:
    from harness import __version__
    from harness.analysis.loops.kept import digests
    from harness.analysis.tables import write_tables

    digests(store, folder, sweep_id)  # so that loops are there, be the runs of an older harness
    try:
        files = write_tables(store, sweep_id, target, __version__)
    except ImportError as error:
        raise MachineError(
            "--format parquet needs the package pyarrow: `pip install 'agent-energy-harness[report]'`"
        ) from error
    _print_files(sweep_id, ["file", "rows", "columns"], files, as_json)


def _print_files(sweep_id: str, columns: list[str], files: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(files)
    else:
        print_table(f"sweep {sweep_id}", columns, [[file[column] for column in columns] for file in files])


def _bundle(database: Path, folder: Path, sweep_id: str, target: Path, as_json: bool) -> None:
    from harness.exchange.pack import pack

    packed = pack(database, folder, sweep_id, target / f"{sweep_id}.tar.gz")
    if as_json:
        missing = [file.model_dump() for file in packed.missing]
        print_json({"file": str(packed.file), "bytes": packed.bytes, "files": packed.files, "missing": missing})
        return
    print(f"bundle      {packed.file} ({packed.bytes / 1e6:,.1f} MB, {packed.files} files)")
    for file in packed.missing:
        print(f"left out    {file.path}: {file.why}")
    print(f"next        harness import {packed.file.name}, wherever it is to be read")
