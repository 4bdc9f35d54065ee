"""`harness tasks`: suites, their tasks, and the proof that they can be trusted."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import Json, print_json, print_or_json, print_table

if TYPE_CHECKING:
    from harness.grading.harbor import Grade

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
    from harness.grading.harbor import grade_untouched
    from harness.manifests import select_agents
    from harness.plan import make_plan
    from harness.run import task_limits
    from harness.sandbox.daemon import connect
    from harness.spec import read_spec
    from harness.store.db import open_store
    from harness.suites import choose, load_suite
    from harness.sweep import prepare_images, run_sweep

    spec = read_spec(None, {"agents": ["oracle", "nop"], "tasks": suite, "limit": limit, "order": "listed"})
    agents, unusable = select_agents(spec.agents)
    plan = make_plan(spec, choose(load_suite(suite), [], limit), agents, unusable, {})
    client = connect()
    cancelled = threading.Event()
    rows = []
    with (
        tempfile.TemporaryDirectory(prefix="harness-verify-") as temporary,
        contextlib.closing(open_store(Path(temporary) / "verify.db")) as db,
        SweepView(plan, Console(stderr=as_json)) as view,
    ):
        folder = Path(temporary)
        prepared = prepare_images(client, plan, folder, view)
        result = run_sweep(plan, client, db, folder, view, cancelled)
        made = {(row["task"], row["agent"]): row for row in result.rows}
        for task in plan.suite.tasks:
            view.say(f"{task.name}: the tests, without any change")
            limits = task_limits(task, int(client.info()["NCPU"]), plan.spec)
            # An empty patch is not graded in a sweep, so the nop's verdict alone would prove nothing of the tests.
            untouched = grade_untouched(client, task, prepared[task.name], limits, cancelled)
            oracle, nop = made.get((task.name, "oracle")), made.get((task.name, "nop"))
            good = bool(
                oracle
                and nop
                and (oracle["verdict"], nop["verdict"], untouched.verdict) == ("resolved", "empty_patch", "unresolved")
            )
            rows.append(
                {
                    "task": task.name,
                    "oracle": oracle and oracle["verdict"],
                    "nop": nop and nop["verdict"],
                    "untouched": untouched.verdict,
                    "seconds": oracle and oracle["duration_s"],
                    "good": good,
                    "why": None if good else _why(oracle, untouched),
                    "log": None if good else _last_lines(folder, oracle, untouched.log),
                }
            )
    bad = sum(not row["good"] for row in rows)
    if as_json:
        print_json(rows)
    else:
        columns = ["task", "oracle", "nop", "untouched", "seconds"]
        print_table(f"suite {plan.suite.name}", columns, [[row[c] for c in columns] for row in rows])
        for row in rows:
            if not row["good"]:
                print(f"{row['task']}: {row['why']}")
                print("".join(f"    {line}\n" for line in str(row["log"]).splitlines()), end="")
        if bad:
            print(f"{bad} of {len(rows)} tasks can't be trusted")
        else:
            print(f"all {len(rows)} can be trusted: with the solution the tests pass, without it they fail")
    if bad or result.stopped:
        raise typer.Exit(1)


def _why(oracle: dict[str, Any] | None, untouched: Grade) -> str:
    if untouched.verdict == "resolved":
        return "its tests pass without any change"
    if untouched.verdict != "unresolved":
        return f"its tests come to nothing without any change: {untouched.detail}"
    if oracle is None:
        return "the solution was not tried"
    if oracle["verdict"] != "resolved":
        detail = oracle["verdict_detail"] or oracle["ended_detail"] or "its tests fail with the solution"
        return f"the solution does not resolve it ({oracle['verdict']}): {detail}"
    return "doing nothing changed something"


def _last_lines(folder: Path, oracle: dict[str, Any] | None, untouched_log: bytes) -> str:
    """The end of what the tests printed with the solution, or without where there is no such log."""
    from harness.store.artefacts import read

    log = untouched_log
    if oracle is not None:
        with contextlib.suppress(FileNotFoundError):
            log = read(folder, f"{oracle['sweep_id']}/{oracle['run_id']}/tests.log.gz")
    return "\n".join(log.decode(errors="replace").strip().splitlines()[-10:])
