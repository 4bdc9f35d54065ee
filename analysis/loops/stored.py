"""Loops of stored runs: each run's journal read back, and what it spent. Reads the store and nothing else."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from harness.analysis.loops.detector import Loop
from harness.analysis.loops.price import Spending
from harness.analysis.loops.watch import History, history_of
from harness.analysis.names import label
from harness.analysis.steps.journal import Unanalysable, read_calls

NO_CALLS = "it made no call to a model"


@dataclass(frozen=True)
class Analysed:
    """A stored run. `history` is None where there is none to be told, for the reason in `why`."""

    run: dict[str, Any]
    """Its row of `runs_summary`, with `setup_s`, `ended_detail` and `verdict_detail`."""
    spending: Spending
    history: History | None
    why: str | None

    @property
    def model(self) -> str:
        return label(self.run["engine"], self.run["model"])

    @property
    def unanalysable(self) -> bool:
        return self.history is None and self.why != NO_CALLS

    @property
    def dead_end(self) -> Loop | None:
        return self.history.dead_end if self.history else None


def analyse(db: Database, runs_dir: Path, sweep_id: str, run_id: str | None = None) -> list[Analysed]:
    """Every run of a sweep, without its steps, or one with them: those of a large sweep would not fit into memory.

    A journal that can't be read makes its run unanalysable, nothing more.
    """
    where, values = ("sweep_id = ?", [sweep_id]) if run_id is None else ("run_id = ?", [run_id])
    rows = list(
        db.query(
            "SELECT runs_summary.*, runs.setup_s, runs.ended_detail, runs.verdict_detail "
            f"FROM runs_summary JOIN runs USING (run_id) WHERE runs.{where} ORDER BY runs.position",
            values,
        )
    )
    calls = _by_run(db, f"SELECT calls.* FROM calls JOIN runs USING (run_id) WHERE sent AND runs.{where} "
                    "ORDER BY call_index", values)  # fmt: skip
    phases = _by_run(
        db,
        "SELECT energy.* FROM energy JOIN runs USING (run_id) WHERE energy.source = runs.energy_source "
        f"AND component = 'total' AND layer = 'gross' AND phase != 'agent' AND runs.{where}",
        values,
    )
    spread = _by_run(
        db, f"SELECT call_energy.* FROM call_energy JOIN runs USING (run_id) WHERE runs.{where}", values
    )  # fmt: skip
    files = _by_run(
        db,
        "SELECT artefacts.* FROM artefacts JOIN runs USING (run_id) "
        f"WHERE artefacts.name IN ('calls.jsonl', 'messages.jsonl') AND runs.{where}",
        values,
    )
    found, alone = [], run_id is not None
    for row in rows:
        own = row["run_id"]
        by_phase = {part["phase"]: part["joules"] for part in phases.get(own, [])}
        spending = Spending(row, calls.get(own, []), by_phase, _by_call(spread.get(own, [])))
        paths = {file["name"]: runs_dir / file["path"] for file in files.get(own, [])}
        history, why = _history(paths, bool(row["calls"]))
        if history is not None and not alone:
            history = replace(history, steps=[])
        found.append(Analysed(row, spending, history, why))
    return found


def _by_run(db: Database, query: str, values: list[str]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in db.query(query, values):
        found.setdefault(row["run_id"], []).append(row)
    return found


def _by_call(parts: list[dict[str, Any]]) -> dict[int, float | None]:
    """Joules of each call over its phases; None where those of one are unknown."""
    found: dict[int, float | None] = {}
    for part in parts:
        index, before = part["call_index"], found.get(part["call_index"], 0.0)
        found[index] = None if before is None or part["spread_j"] is None else before + part["spread_j"]
    return found


def _history(paths: dict[str, Path], called: bool) -> tuple[History | None, str | None]:
    if not called:
        return None, NO_CALLS
    if paths.keys() != {"calls.jsonl", "messages.jsonl"}:
        return None, "its journal of calls was not kept"
    try:
        with ExitStack() as stack:
            calls, messages = (
                stack.enter_context(_lines(paths[name])) for name in ("calls.jsonl", "messages.jsonl")
            )  # fmt: skip
            return history_of(read_calls(calls, messages)), None
    except Unanalysable as error:
        return None, f"{paths['calls.jsonl'].parent}: {error}"
    except OSError as error:
        return None, f"its journal of calls can't be read: {error}"
    except Exception as error:  # noqa: BLE001 - whatever a foreign journal can make of it, the report goes on
        return None, f"{paths['calls.jsonl'].parent}: the search for loops failed: {type(error).__name__}: {error}"


def _lines(path: Path) -> io.TextIOWrapper:
    """The lines of a compressed file; bytes that are no UTF-8 are kept as replacement characters."""
    return io.TextIOWrapper(gzip.open(path, "rb"), encoding="utf-8", errors="replace")


def marks(history: History) -> dict[int, list[str]]:
    """What to write beside each call: the loops that it is part of, at their onset with how far they go."""
    found: dict[int, list[str]] = {}
    for loop in history.loops:
        for step in history.steps:
            if step.thread == loop.thread and loop.onset <= step.call <= loop.end:
                first = step.call == loop.onset
                found.setdefault(step.call, []).append(f"{loop.kind} to {loop.end}" if first else f"{loop.kind} …")
    return found


def as_rows(analysed: Analysed) -> Iterator[dict[str, Any]]:
    """The loops of a run as rows."""
    history = analysed.history
    for loop in history.loops if history else []:
        yield {
            "run_id": analysed.run["run_id"],
            "kind": loop.kind,
            "conversation": loop.thread,
            "onset": loop.onset,
            "end": loop.end,
            "steps": loop.steps,
            "plain_at": loop.alarm,
            "recovered": history is not None and history.recovered(loop),
        }
