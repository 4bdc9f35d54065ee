"""`harness tasks`: suites, their tasks, their images, and the proof that they can be trusted."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli import tasks_build, tasks_pull
from harness.cli.options import Data, Json, print_json, print_or_json, print_table, words
from harness.visible import for_terminal

if TYPE_CHECKING:
    from harness.verify import Proof

app = typer.Typer(help="Suites, their tasks and images.", no_args_is_help=True)


@app.command("list")
def list_tasks(
    suite: Annotated[str | None, typer.Argument(help="A suite or a folder. Default: the suites.")] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """The suites, or the tasks of one and where their images are from."""
    from harness.suites import load_suite

    if suite is None:
        print_or_json(as_json, None, _suites(), ["suite", "tasks", "hash", "summary"])
        return
    chosen = load_suite(suite, data)
    images = _images(chosen.tasks)
    rows = [
        {
            "task": t.name,
            "difficulty": t.metadata.get("difficulty"),
            "tags": _words(t.metadata.get("tags")),
            "title": next((line.strip("# ") for line in t.instruction.splitlines() if line.strip()), ""),
            "image": images.get(t.name),
            "hash": t.content_hash,
        }
        for t in chosen.tasks
    ]
    known = [name for name in ("difficulty", "tags", "image") if any(row[name] for row in rows)]
    columns = ["task", *known, "title"]
    print_or_json(as_json, f"suite {chosen.name}", rows, columns)


def _suites() -> list[dict[str, Any]]:
    """The suites that come along. The rows of a data set are not fetched for it."""
    from harness import paths
    from harness.suites import builtin_suites, load_suite, swebench

    rows: list[dict[str, Any]] = []
    for name in builtin_suites():
        folder = paths.builtin("tasks") / name
        if swebench.is_suite(folder):
            file = swebench.read_file(folder)
            of = f"{file.summary}: {file.dataset}@{file.revision[:7]}"
            rows.append({"suite": name, "tasks": file.count, "hash": None, "summary": of, "folder": str(folder)})
        else:
            suite = load_suite(name)
            of = "task folders"
            count = len(suite.tasks)
            rows.append({"suite": name, "tasks": count, "hash": suite.hash, "summary": of, "folder": str(folder)})
    return rows


def _images(tasks: Any) -> dict[str, str]:
    """Where the images of a data set's instances are from; empty without Docker, and for task folders."""
    from harness.errors import HarnessError
    from harness.images import locate
    from harness.sandbox.daemon import connect
    from harness.suites.swebench import SweBenchTask

    rows = [task for task in tasks if isinstance(task, SweBenchTask)]
    if not rows:
        return {}
    try:
        client = connect(timeout_s=10)
    except HarnessError:
        return {}
    found = {task.name: locate.find(client, task) for task in rows}
    return {name: located.source if located else "not here" for name, located in found.items()}


def _words(value: Any) -> str:
    """Free metadata, of which nobody checks the type."""
    return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


app.command("pull")(tasks_pull.pull)
app.command("build")(tasks_build.build)


@app.command("verify")
def verify(
    suite: Annotated[str, typer.Argument(help="A suite or a folder of tasks.")],
    data: Data = None,
    only: Annotated[str | None, typer.Option(help="Names of tasks, to take no others.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most this many tasks.")] = None,
    as_json: Json = False,
) -> None:
    """Prove that the known solution resolves every task, and nothing less does."""
    import dataclasses
    import tempfile
    import threading
    from pathlib import Path

    from rich.console import Console

    from harness.cli.progress import SweepView
    from harness.gradable import gradable_here
    from harness.manifests import select_agents
    from harness.plan import make_plan
    from harness.sandbox.daemon import connect
    from harness.spec import read_spec
    from harness.store.db import open_store
    from harness.suites import choose, load_suite
    from harness.verify import verify as prove

    flags = {"agents": ["oracle", "nop"], "tasks": suite, "only": words(only), "limit": limit, "order": "listed"}
    spec = read_spec(None, flags)
    agents, unusable = select_agents(spec.agents)
    chosen = gradable_here(choose(load_suite(suite, data), spec.only, limit), spec.only)
    plan = make_plan(spec, chosen, agents, unusable, {})
    with (
        tempfile.TemporaryDirectory(prefix="harness-verify-") as temporary,
        contextlib.closing(open_store(Path(temporary) / "verify.db")) as db,
        SweepView(plan, Console(stderr=as_json)) as view,
    ):
        proofs, stopped = prove(plan, connect(), db, Path(temporary), view, threading.Event())
    left_out = {task.name: task.reason for task in chosen.left_out}
    if as_json:
        print_json(
            {
                "suite": chosen.name,
                "hash": chosen.hash,
                "tasks": [{**dataclasses.asdict(proof), "good": proof.good} for proof in proofs],
                "left_out": left_out,
            }
        )
    else:
        _print_proofs(chosen.name, proofs)
        for name, reason in left_out.items():
            print(f"{name} is left out: {reason}")
    if stopped or not all(proof.good for proof in proofs):
        raise typer.Exit(1)


def _print_proofs(suite: str, proofs: list[Proof]) -> None:
    columns = ["task", "oracle", "nop", "untouched", "wrong", "taken_off", "test_s", "image_source", "image_mb"]
    rows = [{**vars(proof), "image_mb": round(proof.image_bytes / 1e6)} for proof in proofs]
    shown = [column for column in columns if any(row[column] is not None for row in rows)]
    print_table(f"suite {suite}", shown, [[row[column] for column in shown] for row in rows])
    for proof in proofs:
        if not proof.good:
            print(f"{proof.task}: {for_terminal(str(proof.why))}")
            print("".join(f"    {for_terminal(line)}\n" for line in str(proof.log).splitlines()), end="")
    if any(proof.wrong in ("one_hunk", "any_part") for proof in proofs):
        print("one_hunk: nothing less can be taken off; any_part: each part is enough; untouched is the proof of both")
    bad = sum(not proof.good for proof in proofs)
    if bad:
        print(f"{bad} of {len(proofs)} tasks can't be trusted")
    else:
        print(f"all {len(proofs)} can be trusted: with the solution the tests pass, without it they fail")
