"""`harness runs`: look at what was stored."""

from __future__ import annotations

import contextlib
import json
from typing import Annotated, Any

import typer

from harness.cli.options import Db, Json, RunsDir, places, print_json, print_or_json, print_table, shown
from harness.errors import UserError, nearest
from harness.visible import for_terminal

SHOWN = 50  # runs of a table where no limit is named

app = typer.Typer(help="Runs that were stored.", no_args_is_help=True)

COLUMNS = [
    "run_id",
    "agent",
    "engine",
    "model",
    "task",
    "repetition",
    "outcome",
    "ended_by",
    "calls",
    "duration_s",
    "energy",
]


@app.command("list")
def list_runs(
    sweep: Annotated[str | None, typer.Option(help="A sweep's id. Default: the newest.")] = None,
    where: Annotated[list[str] | None, typer.Option(help="column=value, may be repeated.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="The last so many. Default: 50 in a table, all in JSON.")
    ] = None,
    db: Db = None,
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """The runs of a sweep, in its order."""
    from harness.store.db import read_store
    from harness.store.records import find_sweep

    database, _ = places(db, runs_dir)
    with contextlib.closing(read_store(database)) as store:
        chosen = find_sweep(store, sweep)["sweep_id"]
        known = [column.name for column in store.view("runs_summary").columns]
        sql, values = "FROM runs_summary WHERE sweep_id = ?", [chosen]
        for condition in where or []:
            column, equals, value = condition.partition("=")
            if not equals:
                raise UserError(f"--where {condition!r}: expected column=value")
            if column not in known:
                raise UserError(f"--where: there is no column {column!r}; {nearest(column, known)}")
            sql += f" AND {column} = ?"
            values.append(value)
        counted = sql if where else sql.replace("runs_summary", "runs")  # without the view's joins
        # The planner would not see that the order is that of an index, were the limit outside.
        last = f"LIMIT {limit or (-1 if as_json else SHOWN)}"
        rows = list(
            store.query(f"SELECT * FROM (SELECT * {sql} ORDER BY position DESC {last}) ORDER BY position", values)
        )
        found = len(rows) if as_json else store.execute(f"SELECT COUNT(*) {counted}", values).fetchone()[0]
        planned = find_sweep(store, chosen)["planned_runs"]
    if not as_json:
        from harness.analysis.figures import energy_note, marked

        for row in rows:
            row["energy"] = marked(row["energy_j"], row["energy_kind"])
        print_or_json(False, f"sweep {chosen}", rows, COLUMNS)
        if len(rows) < found:
            print(f"the last {len(rows):,} of {found:,} runs; --limit {found} shows all")
        if not where and found < planned:
            print(f"{planned - found} of {planned} runs are outstanding: harness sweep --resume {chosen}")
        if note := energy_note(rows):
            print(note)
        return
    for row in rows:
        row["flags"] = json.loads(row["flags"])
    print_or_json(True, None, rows, COLUMNS)


@app.command("show")
def show_run(
    run_id: Annotated[str, typer.Argument(help="A run's id, as `harness runs list` shows it.")],
    db: Db = None,
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """Everything about one run: facts, calls, energy, files."""
    from harness.analysis.loops.stored import analyse, marks
    from harness.store.db import read_store

    database, folder = places(db, runs_dir)
    with contextlib.closing(read_store(database)) as store:
        found = list(store.query("SELECT * FROM runs WHERE run_id = ?", [run_id]))
        if not found:
            known = [row["run_id"] for row in store.query("SELECT run_id FROM runs")]
            raise UserError(f"there is no run {run_id!r} in {database}; {nearest(run_id, known)}")
        run: dict[str, Any] = found[0]
        summary = next(iter(store.query("SELECT outcome FROM runs_summary WHERE run_id = ?", [run_id])))
        run = {"outcome": summary["outcome"], **run, "flags": json.loads(run["flags"])}
        children = {
            table: list(store.query(f"SELECT * FROM {table} WHERE run_id = ? ORDER BY rowid", [run_id]))
            for table in ("calls", "interventions", "energy", "grades", "artefacts")
        }
        if as_json:
            print_json(run | children)
            return
        analysed = analyse(store, folder, run_id)
    beside = marks(analysed.history) if analysed.history else {}
    for name, value in run.items():
        text = ", ".join(value) if isinstance(value, list) else round(value, 3) if isinstance(value, float) else value
        print(f"{name:<26} {'-' if value in (None, []) else for_terminal(str(text))}")
    if children["calls"]:
        columns = {"call_index": "#", "status": "status", "input_tokens": "in", "cached_tokens": "cached",
                   "output_tokens": "out", "prefill_s": "prefill s", "decode_s": "decode s",
                   "duration_s": "total s", "error": "error"}  # fmt: skip
        rows = [
            [*(call[name] for name in columns), ", ".join(beside.get(call["call_index"], []))]
            for call in children["calls"]
        ]
        print_table("calls", [*columns.values(), "loop"], rows)
        if analysed.why:
            print(f"its loops are unknown: {analysed.why}")
        print(f"step by step: harness loops {run_id}")
    if children["interventions"]:
        fields = ["call_index", "action", "kind", "onset", "steps", "text"]
        rows = [[done[name] for name in fields] for done in children["interventions"]]
        print_table(f"guard ({run['guard']})", fields, rows)
    fields = ["source", "component", "layer", "phase", "joules", "low_j", "high_j", "kind", "coverage"]
    rows = [
        [*(figure[name] for name in fields), figure["detail"] if figure["joules"] is None else ""]
        for figure in children["energy"]
    ]
    print_table("energy", [*fields, "why there is none"], rows)
    if len(children["grades"]) > 1:
        fields = ["number", "graded_at", "verdict", "detail", "test_s"]
        print_table("grades", fields, [[grade[name] for name in fields] for grade in children["grades"]])
    print("files (gzip)")
    for artefact in children["artefacts"]:
        print(f"  {artefact['name']:<24} {shown(artefact['bytes']):>9} bytes  {folder / artefact['path']}")
