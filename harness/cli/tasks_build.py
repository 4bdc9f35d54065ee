"""`harness tasks build`: images of a data set's instances, made here."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from harness.cli.options import Data, Json, names, print_json, print_table
from harness.errors import MachineError, UserError


def build(
    suite: Annotated[str, typer.Argument(help="A suite of a data set.")],
    only: Annotated[str | None, typer.Option(help="Names of tasks, to take no others.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most this many tasks.")] = None,
    data: Data = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Take the base commits from a git server: github, or a URL or path with {repo} in it. "
            "Default: releases of the package index, each near its base commit.",
        ),
    ] = None,
    python: Annotated[
        list[str] | None, typer.Option(help="VERSION=PREFIX of a Python of yours, such as 3.6=/opt/python3.6.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the images of a suite from Debian's packages, the package index, and releases or commits."""
    import time

    from harness.images import locate, rebuilt, recipes
    from harness.sandbox import leftovers
    from harness.sandbox.daemon import connect
    from harness.sandbox.removal import wait_for_removals
    from harness.suites import choose, load_suite
    from harness.suites.swebench import SweBenchTask

    if limit is not None and limit < 1:
        raise UserError(f"--limit: expected 1 or more, found {limit}")
    named = names(only, "--only")
    chosen = choose(load_suite(suite, data), named, limit)
    tasks = [task for task in chosen.tasks if isinstance(task, SweBenchTask)]
    known = recipes.read(chosen.folder)
    if len(tasks) < len(chosen.tasks):
        raise UserError(f"the tasks of suite {chosen.name} are folders: their images are built as a sweep begins")
    if not known:
        raise UserError(f"suite {chosen.name} says of none of its images how they are rebuilt: `harness tasks pull`")
    if source is not None and source != "github" and "{repo}" not in source:
        raise UserError(f"--from {source!r}: expected github, or a URL or path with {{repo}} in it")
    pythons = rebuilt.read_pythons(python or [], known)
    client = connect()
    leftovers.remove(client, leftovers.find(client))
    rebuilt.check_space(client, tasks, known)

    rows: list[dict[str, Any]] = []
    failures: list[str] = []
    left_out: list[str] = []
    for task in tasks:
        began = time.monotonic()
        row: dict[str, Any] = {"task": task.name, "state": "built", "seconds": None}
        recipe = known.get(task.name)
        if source is None and recipe and recipe.only_from_commit and task.name not in named:
            left_out.append(f"{task.name} is left out: {recipe.only_from_commit}; `--from` names a git server")
            continue
        try:
            made = rebuilt.build(client, task, recipe, _say, source=source, pythons=pythons)
            if (found := locate.find(client, task)) is not None:
                locate.prepare_one(client, task, found, _say)  # now, so that a sweep begins at once
            row |= {"seconds": time.monotonic() - began, "source": made.source, "origin": made.origin}
            row |= {"python": made.python, "image": made.image}
        except (UserError, MachineError) as error:
            # What was built stays, and the others are still worth having.
            row |= {"state": "failed", "error": str(error)}
            failures.append(str(error))
        rows.append(row)
    wait_for_removals()
    if as_json:
        print_json({"images": rows, "left_out": left_out})
    else:
        columns = ["task", "state", "source", "origin", "python", "seconds"]
        print_table(f"suite {chosen.name}", columns, [[row.get(column) for column in columns] for row in rows])
        for line in [*failures, *left_out]:
            print(line)
        counts = f"{len(rows) - len(failures)} images are built, {len(failures)} failed, {len(left_out)} are left out"
        print(f"{counts} of {len(tasks)}")
    if failures:
        raise typer.Exit(1)


def _say(text: str) -> None:
    typer.echo(text, err=True)
