"""Which task went how with which agent and model: a row for each task, a column for each agent and model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlite_utils import Database

from harness.analysis.names import label
from harness.view.filters import Filters, condition
from harness.view.reading import Reading

TASKS = 50  # rows of a page
MOST_SIGNS = 10  # runs of a field that have a sign each; more are counted by outcome
MOST_RUNS = 4_000  # of a page that are read one by one

Cell = tuple[str, str]
"""An agent and a model."""


@dataclass(frozen=True)
class OneRun:
    run_id: str
    repetition: int
    outcome: str
    ended_by: str


@dataclass(frozen=True)
class Field:
    """A task with an agent and a model: its runs, or how many there are of each outcome."""

    counts: dict[str, int]
    runs: list[OneRun]


@dataclass(frozen=True)
class Matrix:
    cells: list[Cell]
    fields: dict[str, dict[Cell, Field]]
    """By task."""
    page: int
    more: bool


def matrix(store: Reading, sweep_id: str, filters: Filters, page: int) -> Matrix | None:
    """The runs that the filters leave, for one page of tasks; None while so many of them are being counted."""
    where, values = condition(sweep_id, filters)
    names = [
        task
        for (task,) in store.db.execute(
            f"SELECT task FROM runs {where} GROUP BY task ORDER BY task LIMIT ? OFFSET ?",
            [*values, TASKS + 1, (page - 1) * TASKS],
        )
    ]
    tasks = names[:TASKS]
    where += f" AND task IN ({','.join('?' * len(tasks))})"
    values += tasks
    [(runs,)] = store.db.execute(f"SELECT COUNT(*) FROM runs {where}", values).fetchall()
    if runs > MOST_RUNS:
        key = f"matrix {sweep_id} {page} {filters.url(sort='', page=1)}"
        fields = store.aside(key, partial(_counted, where=where, values=values))
    else:
        fields = _listed(store.db, where, values)
    if fields is None:
        return None
    cells = sorted({cell for of_task in fields.values() for cell in of_task})
    return Matrix(cells, {task: fields.get(task, {}) for task in tasks}, page, len(names) > TASKS)


def _listed(db: Database, where: str, values: list[Any]) -> dict[str, dict[Cell, Field]]:
    found: dict[str, dict[Cell, Field]] = {}
    rows = db.execute(
        "SELECT task, agent, engine, model, run_id, repetition, outcome, ended_by "
        f"FROM runs JOIN outcomes USING (ended_by, verdict) {where} ORDER BY repetition, position",
        values,
    )
    for task, agent, engine, model, *run in rows:
        field = found.setdefault(task, {}).setdefault((agent, label(engine, model)), Field({}, []))
        one = OneRun(*run)
        field.counts[one.outcome] = field.counts.get(one.outcome, 0) + 1
        field.runs.append(one)
    for of_task in found.values():
        for field in of_task.values():
            if len(field.runs) > MOST_SIGNS:
                field.runs.clear()
    return found


def _counted(db: Database, where: str, values: list[Any]) -> dict[str, dict[Cell, Field]]:
    outcomes = {(ended_by, verdict): outcome for ended_by, verdict, outcome in db.execute("SELECT * FROM outcomes")}
    found: dict[str, dict[Cell, Field]] = {}
    rows = db.execute(
        f"SELECT task, agent, engine, model, ended_by, verdict, COUNT(*) FROM runs {where} GROUP BY 1, 2, 3, 4, 5, 6",
        values,
    )
    for task, agent, engine, model, ended_by, verdict, count in rows:
        counts = found.setdefault(task, {}).setdefault((agent, label(engine, model)), Field({}, [])).counts
        outcome = outcomes[ended_by, verdict]
        counts[outcome] = counts.get(outcome, 0) + count
    return found
