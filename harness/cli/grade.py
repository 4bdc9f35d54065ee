"""`harness grade`: grade stored patches again, without running agents."""

from __future__ import annotations

import contextlib
import functools
from typing import Annotated

import typer

from harness.cli.options import Data, Db, Json, RunsDir, places, print_json, print_table


def grade(
    sweep: Annotated[str | None, typer.Argument(help="A sweep's id. Default: the newest.")] = None,
    again: Annotated[
        bool, typer.Option("--again", help="All of its patches, not only those whose grading failed.")
    ] = False,
    data: Data = None,
    db: Db = None,
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """Grade the stored patches of a sweep afresh; the earlier verdicts are kept beside."""
    from rich.console import Console

    from harness import paths
    from harness.cli.report import write_summary
    from harness.images.prepare import IN_USE
    from harness.regrade import regrade
    from harness.sandbox import leftovers
    from harness.sandbox.daemon import connect
    from harness.store.db import open_store, read_store, writer_lock
    from harness.store.records import find_sweep

    database, folder = places(db, runs_dir)
    with contextlib.closing(read_store(database)) as store:
        chosen = find_sweep(store, sweep)
    with writer_lock(database, f"grade {chosen['sweep_id']}"), contextlib.closing(open_store(database)) as store:
        say = functools.partial(Console(stderr=True).print, markup=False, highlight=False, soft_wrap=True)
        client = connect()
        leftovers.remove(client, leftovers.find(client, folder))
        with paths.lock(IN_USE, shared=True):
            rows = list(regrade(client, store, folder, chosen, again, data and data.absolute(), say))
    page = write_summary(database, folder, chosen["sweep_id"]) if rows else None
    if as_json:
        print_json({"sweep_id": chosen["sweep_id"], "runs": rows})
    elif not rows:
        print(f"no patch of sweep {chosen['sweep_id']} is to be graded" + ("" if again else ": --again grades all"))
    else:
        columns = ["run_id", "agent", "task", "before", "now", "detail", "test_s"]
        print_table(f"sweep {chosen['sweep_id']}", columns, [[row[column] for column in columns] for row in rows])
        changed = sum(row["before"] != row["now"] for row in rows)
        print(f"{len(rows)} patches graded, {changed} with another verdict")
        print(f"summary     {page}")
    if any(row["now"] == "grader_error" for row in rows):
        raise typer.Exit(1)
