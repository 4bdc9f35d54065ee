"""The runs of a sweep as the statistics take them, and two sweeps beside each other. Reads the store alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlite_utils import Database

from harness.analysis.figures import CLOCK, CONSTANT, NO_ENERGY
from harness.analysis.names import label
from harness.analysis.records import differences
from harness.analysis.statistics.comparisons import Test, compare
from harness.analysis.statistics.estimates import Estimate, mean, ratio
from harness.analysis.statistics.success import Difference, compare_rates

METRICS = {
    "calls": "calls",
    "tokens": "tokens",
    "input_tokens": "tokens",
    "output_tokens": "tokens",
    "agent_s": "s",
    "energy_j": "J",
    "net_energy_j": "J",
    "sandbox_peak_anon_bytes": "bytes",
    "engine_peak_bytes": "bytes",
}
"""What is compared, and its unit; each is a column of runs_summary, tokens the sum of two."""

ENERGY = frozenset({"energy_j", "net_energy_j"})
CLOCKED = ENERGY | {"agent_s"}
"""What a flag leaves a run out of."""

CellName = tuple[str, str]


@dataclass
class CellRuns:
    """One agent with one model: by metric and task a value for each run that counts and has one; by task whether each
    graded run was resolved; how many runs a flag left out; and what the energies are."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=lambda: {name: {} for name in METRICS})
    resolved: dict[str, list[bool]] = field(default_factory=dict)
    runs: int = 0
    left_out: int = 0
    energies: set[tuple[str, str | None]] = field(default_factory=set)

    def add(self, run: Mapping[str, Any]) -> None:
        """A run that counts, as a row of `runs_summary`."""
        self.runs += 1
        self.left_out += bool(run["left_out"])
        if run["outcome"] != "ungraded":
            self.resolved.setdefault(run["task"], []).append(run["outcome"] == "resolved")
        if not run["left_out"]:
            self.energies.add((run["energy_kind"], run["energy_coverage"]))
        for name in METRICS:
            value = value_of(run, name)
            if value is not None and not (name in CLOCKED and run["left_out"]):
                self.values[name].setdefault(run["task"], []).append(value)


def value_of(run: Mapping[str, Any], metric: str) -> float | None:
    """A run's value of a metric; tokens are those of prompts and answers, unknown where one of the two is."""
    if metric == "tokens":
        known = None not in (run["input_tokens"], run["output_tokens"])
        return float(run["input_tokens"] + run["output_tokens"]) if known else None
    return None if run[metric] is None else float(run[metric])


@dataclass(frozen=True)
class Sweep:
    sweep_id: str
    machine: Mapping[str, Any]
    record: Mapping[str, Any]
    """What it came to: agents, models, suite, sampling, rules, and the harness's version."""
    cells: dict[CellName, CellRuns]


def read_sweep(db: Database, sweep_id: str) -> Sweep:
    [row] = db.query(
        "SELECT sweeps.*, machines.facts FROM sweeps JOIN machines USING (machine_id) WHERE sweep_id = ?", [sweep_id]
    )
    record = json.loads(row["resolved"])
    record.pop("runs", None)
    cells: dict[CellName, CellRuns] = {}
    for run in db.query("SELECT * FROM runs_summary WHERE sweep_id = ? AND counts ORDER BY run_id", [sweep_id]):
        cells.setdefault((run["agent"], label(run["engine"], run["model"])), CellRuns()).add(run)
    return Sweep(sweep_id, json.loads(row["facts"]), record | {"harness": row["harness_version"]}, cells)


@dataclass(frozen=True)
class Change:
    """A metric of a cell in two sweeps. `ratio` is of the second's mean over the first's, over the tasks of both."""

    metric: str
    unit: str
    one: Estimate
    other: Estimate
    ratio: Estimate
    test: Test | None


@dataclass(frozen=True)
class CellChange:
    agent: str
    model: str
    runs: tuple[int, int]
    left_out: tuple[int, int]
    rate: Difference
    """The second's rate less the first's."""
    changes: list[Change]


@dataclass(frozen=True)
class SweepChange:
    differences: list[str]
    """What differs in their records, a line each."""
    only: dict[str, list[CellName]]
    """Cells that one of the two alone has, by sweep."""
    cells: list[CellChange]


def compare_sweeps(one: Sweep, other: Sweep) -> SweepChange:
    """Cell by cell, paired by task. Nothing is pooled."""
    shared = sorted(set(one.cells) & set(other.cells))
    only = {each.sweep_id: sorted(set(each.cells) - set(shared)) for each in (one, other)}
    cells = [_cell(name, one.cells[name], other.cells[name]) for name in shared]
    records = ({**each.record, "machine": each.machine} for each in (one, other))
    changed = [f"{key}: {before} -> {after}" for key, before, after in differences(*records)]
    return SweepChange(changed, only, cells)


def _cell(name: CellName, one: CellRuns, other: CellRuns) -> CellChange:
    changes = []
    for metric, unit in METRICS.items():
        if not one.values[metric] and not other.values[metric]:
            continue
        means = mean(one.values[metric]), mean(other.values[metric])
        if why := _not_comparable(metric, one, other):
            tasks = min(means[0].tasks, means[1].tasks)
            changes.append(Change(metric, unit, *means, Estimate(None, None, None, tasks, 0, "ratio", why), None))
            continue
        of_means = ratio(other.values[metric], one.values[metric])
        [pair] = compare({"a": one.values[metric], "b": other.values[metric]}).pairs
        changes.append(Change(metric, unit, *means, of_means, pair.test))
    difference = compare_rates(other.resolved, one.resolved)
    return CellChange(*name, (one.runs, other.runs), (one.left_out, other.left_out), difference, changes)


def _not_comparable(metric: str, one: CellRuns, other: CellRuns) -> str | None:
    if metric not in ENERGY:
        return None
    energies = one.energies | other.energies
    if len(energies) > 1:
        said = ", ".join(sorted(f"{kind} ({coverage})" for kind, coverage in energies))
        return f"energies of different kind or coverage are not compared: {said}"
    kind = next(iter(energies), ("unavailable", None))[0]
    return CLOCK if kind == CONSTANT else NO_ENERGY if kind == "unavailable" else None
