"""`harness tasks`: suites, their tasks, and the proof that they can be trusted."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.options import Json, print_json, print_or_json, print_table

app = typer.Typer(help="Suites and their tasks.", no_args_is_help=True)


@app.command("list")
def list_tasks(
    suite: Annotated[str | None, typer.Argument(help="A suite or a folder. Default: the suites.")] = None,
    as_json: Json = False,
) -> None:
    """The suites, or the tasks of one."""
    from harness.suites import builtin_suites, load_suite

    if suite is None:
        found = [load_suite(name) for name in builtin_suites()]
        rows = [{"suite": s.name, "tasks": len(s.tasks), "hash": s.hash, "folder": str(s.folder)} for s in found]
        print_or_json(as_json, None, rows, ["suite", "tasks", "hash"])
        return
    chosen = load_suite(suite)
    rows = [
        {
            "task": t.name,
            "difficulty": t.metadata.get("difficulty"),
            "tags": _words(t.metadata.get("tags")),
            "title": next((line.strip("# ") for line in t.instruction.splitlines() if line.strip()), ""),
            "folder": str(t.folder),
        }
        for t in chosen.tasks
    ]
    print_or_json(as_json, f"suite {chosen.name}", rows, ["task", "difficulty", "tags", "title"])


def _words(value: Any) -> str:
    """Free metadata, of which nobody checks the type."""
    return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


@app.command("verify")
def verify(
    suite: Annotated[str, typer.Argument(help="A suite or a folder of tasks.")],
    limit: Annotated[int | None, typer.Option(help="At most this many tasks.")] = None,
    as_json: Json = False,
) -> None:
    """Run oracle and nop on every task: the one must resolve all, the other none."""
    from rich.console import Console

    from harness.cli.progress import SweepView
    from harness.manifests import select_agents
    from harness.plan import make_plan
    from harness.sandbox.daemon import connect
    from harness.spec import read_spec
    from harness.store.db import open_store
    from harness.suites import choose, load_suite
    from harness.sweep import run_sweep

    spec = read_spec(None, {"agents": ["oracle", "nop"], "tasks": suite, "limit": limit, "order": "listed"})
    agents, unusable = select_agents(spec.agents)
    plan = make_plan(spec, choose(load_suite(suite), [], limit), agents, unusable, {})
    client = connect()
    with (
        tempfile.TemporaryDirectory(prefix="harness-verify-") as folder,
        contextlib.closing(open_store(Path(folder) / "verify.db")) as db,
        SweepView(plan, Console(stderr=as_json)) as view,
    ):
        result = run_sweep(plan, client, db, Path(folder), view, threading.Event())
    verdicts = {(row["task"], row["agent"]): row for row in result.rows}
    rows = []
    for task in plan.suite.tasks:
        oracle, nop = verdicts.get((task.name, "oracle")), verdicts.get((task.name, "nop"))
        good = bool(oracle and nop and oracle["verdict"] == "resolved" and nop["verdict"] == "empty_patch")
        rows.append({"task": task.name, "oracle": oracle and oracle["verdict"], "nop": nop and nop["verdict"],
                     "seconds": oracle and oracle["duration_s"], "good": good})  # fmt: skip
    bad = sum(not row["good"] for row in rows)
    if as_json:
        print_json(rows)
    else:
        columns = ["task", "oracle", "nop", "seconds"]
        print_table(f"suite {plan.suite.name}", columns, [[row[c] for c in columns] for row in rows])
        print(
            f"{len(rows) - bad} of {len(rows)} tasks can be trusted: the solution resolves them, doing nothing does not"
        )
    if bad or result.stopped:
        raise typer.Exit(1)
