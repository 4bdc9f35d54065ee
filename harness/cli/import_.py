"""`harness import`: a sweep that was exported elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.options import Db, Json, RunsDir, places, print_json


def import_(
    file: Annotated[Path, typer.Argument(help="A bundle, as `harness export --format bundle` writes it.")],
    db: Db = None,
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """Add a sweep of another place to the database, after checking every checksum."""
    from harness.exchange.take_in import take_in

    database, folder = places(db, runs_dir)
    taken = take_in(file, database, folder)
    manifest = taken.manifest
    if as_json:
        about = manifest.model_dump(include={"sweep_id", "runs", "planned_runs", "missing"})
        print_json(about | {"machines": sorted(manifest.machines), "is_new": taken.is_new})
        return
    if not taken.is_new:
        print(f"sweep {manifest.sweep_id} is in {database} already, the same in every row: nothing was changed")
        return
    unfinished = f" of {manifest.planned_runs} planned" if manifest.runs < manifest.planned_runs else ""
    print(f"sweep       {manifest.sweep_id}: {manifest.runs}{unfinished} runs, into {database}")
    print(f"machine     {', '.join(sorted(manifest.machines))}: never pooled with runs of another")
    for lost in manifest.missing:
        print(f"missing     {lost.path}: where it was packed, {lost.why}")
    print(f"next        harness report {manifest.sweep_id}")
