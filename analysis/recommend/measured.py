"""What there is to choose from: every agent with every model of some sweeps, and what it resolved at which cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlite_utils import Database

from harness.analysis.figures import NO_RUN, Figure, not_comparable
from harness.analysis.metrics.cells import cells
from harness.analysis.names import label
from harness.analysis.statistics.estimates import LEAST_TASKS, Estimate, mean, rate
from harness.store.records import find_sweep

Unit = Literal["J", "s"]
"""What a budget is of: gross joules or seconds, both of the agent stage."""


class NotComparable(ValueError):
    """These can't be ranked. The message is a sentence for people."""


@dataclass(frozen=True)
class Tried:
    """A run that counts, that was graded, and that no flag leaves out of energy and time."""

    task: str
    resolved: bool
    energy_j: float | None
    agent_s: float

    def cost(self, unit: Unit) -> float | None:
        return self.energy_j if unit == "J" else self.agent_s


@dataclass(frozen=True)
class Option:
    """One agent with one model in one sweep; other settings are another sweep's, and another option.

    `rate` is of all graded runs, whatever they cost; means are over tasks. `peak_memory_bytes` is the most that a run
    took of sandbox and engine together, the sum of their peaks; None where no run tells both. `tried` are the single
    runs, of which rates under a budget are made."""

    agent: str
    model: str
    sweep: str
    machine: str
    calls_model: bool
    """Controls call none, and are nothing to choose."""
    tasks: int
    runs: int
    rate: Estimate
    energy_j: Estimate
    energy_kind: str | None
    energy_coverage: str | None
    agent_s: Estimate
    tokens: Estimate
    peak_memory_bytes: int | None
    per_resolved_j: Figure
    tried: tuple[Tried, ...]

    @property
    def name(self) -> str:
        return f"{self.agent} with {self.model}"

    def cost(self, unit: Unit) -> Estimate:
        return self.energy_j if unit == "J" else self.agent_s


def options(db: Database, sweeps: Sequence[str] = ()) -> list[Option]:
    """The options of these sweeps, by default of the newest; what the machine spoilt is in none.

    Raises UserError for an unknown sweep, and NotComparable for sweeps of two machines or two suites.
    """
    rows = [find_sweep(db, sweep) for sweep in sweeps] or [find_sweep(db, None)]
    ids = list(dict.fromkeys(row["sweep_id"] for row in rows))
    _one_only("machines", {row["sweep_id"]: row["machine_id"] for row in rows})
    runs = {
        sweep: list(db.query("SELECT * FROM runs_summary WHERE sweep_id = ? AND counts ORDER BY run_id", [sweep]))
        for sweep in ids
    }
    _one_only("suites", {sweep: run["suite"] for sweep in ids for run in runs[sweep]})
    return [option for sweep in ids for option in _of_sweep(db, sweep, runs[sweep])]


def lacks(option: Option, unit: Unit) -> str | None:
    """Why an option can't be chosen under any budget, or None."""
    if not option.calls_model:
        return "it calls no model: a control"
    what, cost = ("energy" if unit == "J" else "time"), option.cost(unit)
    if cost.value is None:
        return f"its {what} is unknown: {cost.why or NO_RUN}"
    tasks = len({run.task for run in option.tried if run.cost(unit) is not None})
    if tasks < LEAST_TASKS:
        return f"too few tasks: {tasks} graded with a known {what}, of at least {LEAST_TASKS}"
    return None


def unrankable(choice: Iterable[Option], unit: Unit) -> str | None:
    """Why options must not be set against each other in this unit, or None."""
    if unit == "s":
        return None
    known = [option for option in choice if option.calls_model]
    if known and all(option.energy_j.value is None for option in known):
        return "; ".join(dict.fromkeys(option.energy_j.why or NO_RUN for option in known))
    return not_comparable([
        Figure(one.energy_j.value, "J", one.energy_kind, one.energy_coverage, machine=one.machine) for one in known
    ])  # fmt: skip


def _one_only(what: str, found: Mapping[str, str]) -> None:
    if len(set(found.values())) > 1:
        said = ", ".join(f"{sweep} ({name})" for sweep, name in found.items())
        raise NotComparable(f"sweeps of different {what} are never put together: {said}; name those of one")


def _of_sweep(db: Database, sweep: str, runs: Sequence[Mapping[str, Any]]) -> list[Option]:
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["agent"], label(run["engine"], run["model"])), []).append(run)
    measured = {(cell.agent, cell.model): cell for cell in cells(db, sweep)}
    return [_option(sweep, name, group, measured[name].gross_j, measured[name].per_resolved_j)
            for name, group in groups.items()]  # fmt: skip


def _option(
    sweep: str, name: tuple[str, str], runs: Sequence[Mapping[str, Any]], gross_j: Figure, per_resolved_j: Figure
) -> Option:
    kept = [run for run in runs if not run["left_out"]]
    energy_j = mean(_by_task(kept, lambda run: run["energy_j"]))
    if gross_j.value is None:  # of different kinds, say, which have no mean
        energy_j = Estimate(None, None, None, energy_j.tasks, energy_j.runs, energy_j.method, gross_j.why)
    peaks = [
        run["sandbox_peak_anon_bytes"] + run["engine_peak_bytes"]
        for run in runs
        if None not in (run["sandbox_peak_anon_bytes"], run["engine_peak_bytes"])
    ]
    return Option(
        agent=name[0],
        model=name[1],
        sweep=sweep,
        machine=runs[0]["machine_id"],
        calls_model=runs[0]["engine"] != "none",
        tasks=len({run["task"] for run in runs}),
        runs=len(runs),
        rate=rate(_by_task(runs, _resolved)),
        energy_j=replace(energy_j, why=energy_j.why or gross_j.why),
        energy_kind=gross_j.kind,
        energy_coverage=gross_j.coverage,
        agent_s=mean(_by_task(kept, lambda run: run["agent_s"])),
        tokens=mean(_by_task(runs, _tokens)),
        peak_memory_bytes=max(peaks, default=None),
        per_resolved_j=per_resolved_j,
        tried=tuple(
            Tried(run["task"], resolved, run["energy_j"], run["agent_s"])
            for run in kept
            if (resolved := _resolved(run)) is not None
        ),
    )


def _resolved(run: Mapping[str, Any]) -> bool | None:
    return None if run["outcome"] == "ungraded" else run["outcome"] == "resolved"


def _tokens(run: Mapping[str, Any]) -> float | None:
    known = None not in (run["input_tokens"], run["output_tokens"])
    return run["input_tokens"] + run["output_tokens"] if known else None


def _by_task(runs: Sequence[Mapping[str, Any]], value: Any) -> dict[str, list[Any]]:
    """What is known of the runs, by task."""
    found: dict[str, list[Any]] = {}
    for run in runs:
        if (told := value(run)) is not None:
            found.setdefault(run["task"], []).append(told)
    return found
