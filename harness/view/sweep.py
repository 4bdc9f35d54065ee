"""The page of a sweep: what made it, its figures by agent and model, which task went how, and its runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlite_utils import Database
from starlette.requests import Request

from harness.analysis.figures import energy_note
from harness.analysis.summary import cells, guard_note, how_many_tasks, left_out_note, replaced
from harness.errors import nearest
from harness.outcome import ENDINGS, VERDICTS
from harness.view import filters, matrix
from harness.view.reading import Reading, Unknown

COLUMNS: dict[str, tuple[str, bool]] = {
    "run": ("run", False),
    "task": ("task", False),
    "agent": ("agent", False),
    "model": ("model", False),
    "rep": ("rep", True),
    "outcome": ("outcome", False),
    "ended_by": ("ended by", False),
    "calls": ("calls", True),
    "input_tokens": ("tokens in", True),
    "output_tokens": ("out", True),
    "agent_s": ("agent s", True),
    "energy": ("energy J", True),
}
"""Of the list of runs: heading, and whether it is a number."""

CELLS: dict[str, tuple[str, bool]] = {
    "runs": ("runs", True),
    "resolved": ("resolved", False),
    "endings": ("ended by", False),
    "calls": ("calls", True),
    "input_tokens": ("tokens in", True),
    "output_tokens": ("out", True),
    "agent_s": ("agent s", True),
    "energy": ("energy J", True),
    "energy_kind": ("kind", False),
}
"""Of the table by agent and model."""


def page(store: Reading, request: Request) -> Mapping[str, Any]:
    row = find(store.db, request.path_params["sweep_id"])
    sweep_id = row["sweep_id"]
    chosen = filters.from_query(request.query_params)
    matching = filters.count(store.db, sweep_id, chosen)
    runs = matching if not chosen.narrowed else filters.count(store.db, sweep_id, filters.Filters())
    ordered = filters.in_order(chosen, matching)
    facts = store.db.execute("SELECT facts FROM machines WHERE machine_id = ?", [row["machine_id"]]).fetchone()
    return {
        "sweep": row,
        "facts": json.loads(facts[0]) if facts else {},
        "runs": runs,
        "about": store.aside(f"sweep {sweep_id}", lambda db: about(db, sweep_id)),
        "filters": chosen,
        "ordered": ordered == chosen,
        "most_by_energy": filters.MOST_BY_ENERGY,
        "matching": matching,
        "rows": filters.rows(store.db, sweep_id, ordered),
        "pages": max(1, -(-matching // filters.PAGE)),
        "matrix": matrix.matrix(store, sweep_id, chosen, _number(request, "tasks")),
        "columns": COLUMNS,
        "cell_columns": CELLS,
        "endings": ENDINGS,
        "verdicts": VERDICTS,
        "version": version(store, request)["version"],
    }


def version(store: Reading, request: Request) -> Mapping[str, str]:
    """Another word whenever a run of the sweep has come, or was graded again, or the sweep has ended."""
    row = find(store.db, request.path_params["sweep_id"])
    runs = store.db.execute("SELECT COUNT(*) FROM runs WHERE sweep_id = ?", [row["sweep_id"]]).fetchone()
    newest = store.db.execute("SELECT (SELECT MAX(rowid) FROM runs), (SELECT MAX(rowid) FROM grades)").fetchone()
    return {"version": "-".join(map(str, (*runs, *newest, row["ended_at"])))}


def find(db: Database, sweep_id: str) -> dict[str, Any]:
    """A sweep by its whole id, without its plan, which may be long. Raises Unknown with the nearest ids."""
    found = list(
        db.query(
            "SELECT sweep_id, created_at, ended_at, machine_id, harness_version, planned_runs, spec "
            "FROM sweeps WHERE sweep_id = ?",
            [sweep_id],
        )
    )
    if not found:
        known = [name for (name,) in db.execute("SELECT sweep_id FROM sweeps ORDER BY created_at DESC LIMIT 1000")]
        raise Unknown(f"there is no sweep {sweep_id!r} in the store; {nearest(sweep_id, known)}")
    row: dict[str, Any] = found[0]
    return row


def about(db: Database, sweep_id: str) -> dict[str, Any]:
    """What is made of every run of a sweep: its figures by agent and model, with what has to be said of them."""
    rows = cells(db, sweep_id)
    [(text,)] = db.execute("SELECT resolved FROM sweeps WHERE sweep_id = ?", [sweep_id]).fetchall()
    plan = json.loads(text)
    agents, models = dict.fromkeys(row["agent"] for row in rows), dict.fromkeys(row["model"] for row in rows)
    endings = db.execute("SELECT DISTINCT ended_by FROM runs WHERE sweep_id = ? ORDER BY 1", [sweep_id]).fetchall()
    return {
        "cells": rows,
        "tasks": how_many_tasks(db, sweep_id),
        "notes": [note for note in (energy_note(rows), left_out_note(rows), guard_note(db, sweep_id)) if note],
        "replaced": replaced(db, sweep_id),
        "plan": {name: plan.get(name, {}) for name in ("agents", "models", "sampling", "rules")},
        "choices": {
            "agent": list(agents),
            "model": list(models),
            "ended_by": [name for (name,) in endings],
        },
    }


def _number(request: Request, name: str) -> int:
    text = request.query_params.get(name, "1")
    return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 8 else 1
