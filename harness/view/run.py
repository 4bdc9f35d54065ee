"""The page of a run: its facts, its power over time, and its steps as a conversation."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlite_utils import Database
from starlette.requests import Request

from harness.analysis.failures import failure_of
from harness.analysis.loops.digest import digest_of
from harness.analysis.loops.stored import NO_CALLS, Analysed, analyse, marks
from harness.errors import nearest
from harness.flags import FLAGS
from harness.meter import over_time
from harness.outcome import ENDINGS, VERDICTS
from harness.store.artefacts import read
from harness.view import chart, filters
from harness.view.conversation import conversation
from harness.view.reading import Reading, Unknown

NEAR = 40  # ids on each side among which the nearest to an unknown one are looked for


def page(store: Reading, request: Request) -> Mapping[str, Any]:
    db = store.db
    run = find(db, request.path_params["run_id"])
    run_id, sweep_id = run["run_id"], run["sweep_id"]
    rows = {
        table: list(db.query(f"SELECT * FROM {table} WHERE run_id = ? ORDER BY {order}", [run_id]))
        for table, order in ORDERS.items()
    }
    files = {row["name"]: store.runs_dir / row["path"] for row in rows["artefacts"]}
    analysed = analyse(db, store.runs_dir, run_id)
    digest = digest_of(analysed)
    recording, drawn, no_power = _power(store.runs_dir, rows["artefacts"], run)
    chosen = filters.from_query(request.query_params)
    ordered = chosen
    if chosen.order == "energy":
        ordered = filters.in_order(chosen, filters.count(db, sweep_id, chosen))
    before, after = filters.neighbours(db, sweep_id, run_id, ordered)
    beside = marks(analysed.history) if analysed.history else {}
    return {
        "run": run | analysed.run,
        "filters": chosen,
        "before": before,
        "after": after,
        "turns": conversation(rows["calls"], analysed, files, rows["call_energy"], rows["interventions"], beside),
        "conversations": len({step.thread for step in analysed.history.steps}) if analysed.history else 0,
        "history": analysed.history,
        "silent": _silent(analysed),
        "failure": failure_of(digest),
        "dead_end": digest.dead_end,
        "wasted": digest.wasted,
        "spent": digest.whole,
        "chart": chart.chart(run, rows["calls"], analysed.history, recording, drawn),
        "power": drawn,
        "no_power": no_power,
        "rows": rows,
        "energy": [row for row in rows["energy"] if row["source"] == run["energy_source"]],
        "flags": [(flag, _meaning(flag)) for flag in json.loads(run["flags"])],
        "endings": ENDINGS,
        "verdicts": VERDICTS,
    }


ORDERS = {
    "calls": "call_index",
    "call_energy": "call_index",
    "interventions": "number",
    "energy": "rowid",
    "grades": "number",
    "artefacts": "name",
}
"""The tables with rows of a run, and the order that they are shown in."""


def find(db: Database, run_id: str) -> dict[str, Any]:
    """A run's row. Raises Unknown with the nearest ids."""
    found = list(db.query("SELECT * FROM runs WHERE run_id = ?", [run_id]))
    if found:
        row: dict[str, Any] = found[0]
        return row
    known = [
        name
        for sign, way in (("<", "DESC"), (">", "ASC"))
        for (name,) in db.execute(
            f"SELECT run_id FROM runs WHERE run_id {sign} ? ORDER BY run_id {way} LIMIT ?", [run_id, NEAR]
        )
    ]
    raise Unknown(f"there is no run {run_id!r} in the store; {nearest(run_id, known)}")


def _power(
    runs_dir: Path, artefacts: list[dict[str, Any]], run: Mapping[str, Any]
) -> tuple[over_time.Recorded | None, over_time.Power | None, str | None]:
    """What is known of the run's windows, of its power, and why there is none."""
    path = next((row["path"] for row in artefacts if row["name"] == "power.json"), None)
    if path is None:
        return None, None, "no readings of its power were kept"
    recording = None
    try:
        recording = over_time.recorded(json.loads(read(runs_dir, path)))
        return recording, over_time.power(recording, run["energy_source"]), None
    except over_time.NoPower as error:
        return recording, None, str(error)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        return None, None, f"its readings can't be read at {runs_dir / path}: {error}"


def _silent(analysed: Analysed) -> str | None:
    """Why its steps have no words, or None."""
    return analysed.why if analysed.history is None and analysed.why != NO_CALLS else None


def _meaning(flag: str) -> str:
    known = FLAGS.get(flag.partition(":")[0])
    return known.meaning if known else ""
