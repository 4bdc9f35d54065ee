"""`harness agents record`: runs with real models, put into an agent's record."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from harness.cli.options import Db, RunsDir, names, places


def record(
    agent: Annotated[str, typer.Argument(help="A name, or the path of an agent's folder.")],
    sweeps: Annotated[str, typer.Argument(help="Ids of stored sweeps, with commas between.")],
    db: Db = None,
    runs_dir: RunsDir = None,
) -> None:
    """Put an agent's runs of stored sweeps into the record that `agents check --record` wrote."""
    from harness.agent_record import model_rows, write_models
    from harness.manifests import select_agents
    from harness.store.db import read_store
    from harness.store.records import find_sweep

    [chosen], _ = select_agents([agent])
    database, _ = places(db, runs_dir)
    with contextlib.closing(read_store(database)) as store:
        ids = [find_sweep(store, sweep)["sweep_id"] for sweep in names(sweeps, "SWEEPS")]
        models = model_rows(store, chosen, ids)
    for file in write_models(chosen, models):
        typer.echo(f"written: {file}", err=True)
