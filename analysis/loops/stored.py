"""Loops of stored runs: each run's journal read back, and what it spent. Reads the store and nothing else."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from harness.analysis.loops.price import Spending
from harness.analysis.loops.watch import History, history_of
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


def analyse(db: Database, runs_dir: Path, run_id: str) -> Analysed:
    """A run that is in the store. A journal that can't be read makes it unanalysable, nothing more."""
    [row] = db.query(
        "SELECT runs_summary.*, runs.setup_s, runs.ended_detail, runs.verdict_detail "
        "FROM runs_summary JOIN runs USING (run_id) WHERE runs.run_id = ?",
        [run_id],
    )
    calls = db.query("SELECT * FROM calls WHERE run_id = ? AND sent ORDER BY call_index", [run_id])
    phases = db.query(
        "SELECT phase, joules FROM energy WHERE run_id = ? AND source = ? AND component = 'total' AND layer = 'gross' "
        "AND phase != 'agent'",
        [run_id, row["energy_source"]],
    )
    spread = db.query("SELECT call_index, spread_j FROM call_energy WHERE run_id = ?", [run_id])
    files = db.query(
        "SELECT name, path FROM artefacts WHERE run_id = ? AND name IN ('calls.jsonl', 'messages.jsonl')", [run_id]
    )
    by_phase = {part["phase"]: part["joules"] for part in phases}
    spending = Spending(row, list(calls), by_phase, _by_call(spread))
    paths = {file["name"]: runs_dir / file["path"] for file in files}
    return Analysed(row, spending, *_history(paths, bool(row["calls"])))


def _by_call(parts: Iterable[dict[str, Any]]) -> dict[int, float | None]:
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
