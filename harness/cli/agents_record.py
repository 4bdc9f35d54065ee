"""`harness agents record`: runs with real models, put into an agent's record."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from harness.cli.agents_check import one_agent
from harness.cli.options import Db, RunsDir, names, places


def record(
    agent: Annotated[str, typer.Argument(help="A name, or the path of an agent's folder.")],
    sweeps: Annotated[str, typer.Argument(help="Ids of stored sweeps, with commas between.")],
    db: Db = None,
    runs_dir: RunsDir = None,
) -> None:
    """Put an agent's runs of stored sweeps into its record, in the place of those that it has."""
    from harness.conformance.record import check_writable, write_models
    from harness.store.db import read_store
    from harness.store.records import find_sweep

    chosen = one_agent(agent)
    check_writable(chosen)
    database, _ = places(db, runs_dir)
    with contextlib.closing(read_store(database)) as store:
        ids = [find_sweep(store, sweep)["sweep_id"] for sweep in names(sweeps, "SWEEPS")]
        for file in write_models(chosen, store, ids):
            typer.echo(f"written: {file}", err=True)
