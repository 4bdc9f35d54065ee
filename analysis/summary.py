"""A sweep on one page: what each agent cost with each model, and every run. Reads the store and nothing else."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import Environment, FileSystemLoader
from sqlite_utils import Database

from harness.analysis import failures
from harness.analysis.figures import energy_note, marked
from harness.analysis.loops.counterfactual import curve
from harness.analysis.loops.kept import digests
from harness.analysis.loops.summary import kinds, recorded, wastes
from harness.analysis.names import label

HEADINGS = {
    "agent": "agent",
    "model": "model",
    "runs": "runs",
    "resolved": "resolved",
    "endings": "ended by",
    "calls": "calls",
    "input_tokens": "tokens in",
    "output_tokens": "tokens out",
    "agent_s": "agent s",
    "energy": "energy J",
    "energy_kind": "energy kind",
    "sandbox_mb": "sandbox MB",
    "engine_mb": "engine MB",
}

NUMERIC = frozenset(HEADINGS) - {"agent", "model", "resolved", "endings", "energy_kind"}

SHORT = {
    "agent": "agent",
    "model": "model",
    "resolved": "resolved",
    "endings": "ended by",
    "calls": "calls",
    "input_tokens": "tokens in",
    "output_tokens": "out",
    "agent_s": "seconds",
    "energy": "joules",
}
"""The columns that fit a terminal. `energy` is the figure with the mark of its kind."""

COLOURS = ("#4477aa", "#ee6677", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#e08a3c", "#7a5195", "#8c6d31", "#393b79")
"""Of the classes of a bar, told apart by people who see few colours; resolved has one of its own."""


def cells(db: Database, sweep_id: str) -> list[dict[str, Any]]:
    """One row for each agent and model: counts over its valid runs, and means over those with a known value.

    Seconds and joules leave out the runs that a flag leaves out (table `flags`); `left_out` counts them by flag. A mean
    of nothing is None.
    """
    runs = list(db.query("SELECT * FROM runs_summary WHERE sweep_id = ? ORDER BY agent, engine, model", [sweep_id]))
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["agent"], label(run["engine"], run["model"])), []).append(run)
    return [_cell(agent, model, group) for (agent, model), group in groups.items()]


def _cell(agent: str, model: str, group: Sequence[dict[str, Any]]) -> dict[str, Any]:
    valid = [run for run in group if run["counts"]]
    graded = [run for run in valid if run["outcome"] != "ungraded"]
    resolved = sum(run["outcome"] == "resolved" for run in graded)
    endings: dict[str, int] = {}
    for run in group:
        endings[run["ended_by"]] = endings.get(run["ended_by"], 0) + 1
    fit = [run for run in valid if not run["left_out"]]
    kinds = sorted({run["energy_kind"] for run in fit})
    # Figures of different kinds or coverage are never averaged.
    alike = len({(run["energy_kind"], run["energy_coverage"]) for run in fit}) == 1
    energy_j = _mean(run["energy_j"] for run in fit) if alike else None
    left_out = Counter(flag for run in valid for flag in set((run["left_out"] or "").split(", ")) - {""})
    return {
        "agent": agent,
        "model": model,
        "runs": len(group),
        "valid": len(valid),
        "resolved": f"{resolved} of {len(graded)}",
        "resolved_runs": resolved,
        "graded_runs": len(graded),
        "endings": ", ".join(f"{name} {count}" if count > 1 else name for name, count in endings.items()),
        "calls": _mean(run["calls"] for run in valid),
        "input_tokens": _mean(run["input_tokens"] for run in valid),
        "output_tokens": _mean(run["output_tokens"] for run in valid),
        "agent_s": _mean(run["agent_s"] for run in fit),
        "energy_j": energy_j,
        "energy": marked(energy_j, kinds[0]) if alike else None,
        "energy_kind": ", ".join(kinds) or None,
        "left_out": dict(left_out),
        "sandbox_mb": _mean(_mb(run["sandbox_peak_anon_bytes"]) for run in valid),
        "engine_mb": _mean(_mb(run["engine_peak_bytes"]) for run in valid),
    }


def how_many_tasks(db: Database, sweep_id: str) -> str:
    """The tasks of a sweep, in a sentence: how many, of which suite, and how many could not be graded there."""
    [(text,)] = db.execute("SELECT resolved FROM sweeps WHERE sweep_id = ?", [sweep_id]).fetchall()
    suite = json.loads(text).get("suite", {})
    count, left_out = len(suite.get("tasks", ())), suite.get("left_out") or {}
    said = f"n = {count} task{'' if count == 1 else 's'} of {suite.get('name')} (hash {suite.get('hash')})"
    sources = db.execute(
        "SELECT image_source, COUNT(DISTINCT task) FROM runs WHERE sweep_id = ? GROUP BY 1 ORDER BY 1", [sweep_id]
    ).fetchall()
    if any(source != "dockerfile" for source, _ in sources):
        said += "; images: " + ", ".join(f"{number} {source}" for source, number in sources)
    if left_out:
        said += f"; {len(left_out)} left out, which could not be graded there: {', '.join(left_out)}"
    return said


def guard_note(db: Database, sweep_id: str) -> str | None:
    """What a guard did in a sweep, in a sentence; None where there was none."""
    guards = db.execute(
        "SELECT DISTINCT guard, guard_patience FROM runs WHERE sweep_id = ? AND guard != 'off'", [sweep_id]
    ).fetchall()
    if not guards:
        return None
    [(guard, patience)] = guards
    done = db.execute(
        "SELECT action, COUNT(*), COUNT(DISTINCT run_id) FROM interventions JOIN runs USING (run_id) "
        "WHERE sweep_id = ? GROUP BY action ORDER BY action",
        [sweep_id],
    ).fetchall()
    said = "; ".join(f"{action} {count} times in {runs} runs" for action, count, runs in done) or "nothing to do"
    with_patience = f", patience {patience}" if patience is not None else ""
    return f"guard {guard}{with_patience}: {said}; not to be pooled with runs of another guard"


def replaced(db: Database, sweep_id: str) -> list[str]:
    """What adapters of a sweep replaced in their frameworks, a sentence each."""
    rows = db.execute(
        "SELECT DISTINCT agent, overrides FROM runs WHERE sweep_id = ? AND overrides IS NOT NULL ORDER BY agent",
        [sweep_id],
    ).fetchall()
    return [f"{agent} with {what} replaced: {why}" for agent, text in rows for what, why in json.loads(text).items()]


def left_out_note(rows: Sequence[dict[str, Any]]) -> str | None:
    """Which runs are in no mean of seconds and joules, in a sentence, or None."""
    said = [
        f"{count} of {row['agent']} × {row['model']} ({flag})"
        for row in rows
        for flag, count in row["left_out"].items()
    ]
    return f"left out of seconds and joules: {', '.join(said)}; see Flags in docs/schema.md" if said else None


def page(db: Database, sweep_id: str, runs_dir: Path) -> str:
    """The whole page, with no reference to anything outside of it."""
    sweep = next(iter(db.query("SELECT * FROM sweeps WHERE sweep_id = ?", [sweep_id])))
    machine = next(iter(db.query("SELECT facts FROM machines WHERE machine_id = ?", [sweep["machine_id"]])))
    runs = list(db.query("SELECT * FROM runs_summary WHERE sweep_id = ? ORDER BY run_id", [sweep_id]))
    meanings = {row["ended_by"]: row["meaning"] for row in db.query("SELECT ended_by, meaning FROM endings")}
    rows = cells(db, sweep_id)
    analysed = digests(db, runs_dir, sweep_id)
    classes = failures.by_cell(analysed)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["shown"] = shown
    environment.filters["percent"] = percent
    environment.globals.update(label=label, marked=marked)
    return environment.get_template("summary.html.j2").render(
        sweep=sweep,
        spec=json.loads(sweep["spec"]),
        resolved=json.loads(sweep["resolved"]),
        facts=json.loads(machine["facts"]),
        headings=HEADINGS,
        numeric=NUMERIC,
        cells=rows,
        runs=runs,
        missing=sweep["planned_runs"] - len(runs),
        meanings={name: meanings[name] for name in dict.fromkeys(run["ended_by"] for run in runs)},
        note=" ".join(filter(None, [energy_note(rows), left_out_note(rows), guard_note(db, sweep_id)])) or None,
        tasks=how_many_tasks(db, sweep_id),
        classes=classes,
        class_names=list(dict.fromkeys(name for counts in classes.values() for name in counts)),
        failure_of={run.run["run_id"]: failures.failure_of(run) for run in analysed},
        rules=failures.RULES,
        seen_rules={name.partition(":")[0] for counts in classes.values() for name in counts},
        colours=COLOURS,
        wastes=wastes(analysed),
        kinds=kinds(analysed),
        curve=curve(recorded(analysed)),
        unanalysable=[run for run in analysed if run.unanalysable],
    )


def shown(value: Any) -> str:
    """A value for people: unknown is a dash, never a zero."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"


def percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _mb(value: int | None) -> float | None:
    return None if value is None else value / 1e6
