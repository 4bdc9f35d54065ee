"""`harness recommend`: the agent and model to use under a budget."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import Db, Json, RunsDir, places, print_json, print_table
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.analysis.recommend import Recommendation, Wanted
    from harness.analysis.recommend.decision import Judged


def recommend(
    sweeps: Annotated[list[str] | None, typer.Argument(help="Sweeps of one machine. Default: the newest.")] = None,
    max_energy: Annotated[str | None, typer.Option(help="Energy for one task, as 20kJ.")] = None,
    max_time: Annotated[str | None, typer.Option(help="Time for one task instead, as 30min.")] = None,
    min_rate: Annotated[float | None, typer.Option(help="Least share of tasks to be resolved, 0 to 1.")] = None,
    memory: Annotated[str | None, typer.Option(help="Most memory of sandbox and engine, as 8GB.")] = None,
    db: Db = None,
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """Print the agent and model to use under a budget of one task, from what was measured, and why not the others."""
    wanted = _wanted(max_energy, max_time, min_rate, memory)
    from harness.analysis.recommend import NotComparable, options
    from harness.analysis.recommend import recommend as decide
    from harness.store.db import read_store

    database, _ = places(db, runs_dir)
    with contextlib.closing(read_store(database)) as store:
        try:
            choice = options(store, sweeps or [])
        except NotComparable as error:
            raise UserError(str(error)) from error
    found = decide(choice, wanted)
    if as_json:
        print_json(_plain(found, wanted))
        return
    _print(found, wanted)


def _wanted(max_energy: str | None, max_time: str | None, min_rate: float | None, memory: str | None) -> Wanted:
    from harness.amounts import BYTES, JOULES, SECONDS, amount

    if (max_energy is None) == (max_time is None):
        raise UserError("give one budget for a task: --max-energy, as 20kJ, or --max-time, as 30min")
    if min_rate is not None and not 0 <= min_rate <= 1:
        raise UserError(f"--min-rate {min_rate:g}: expected a share of the tasks, 0 to 1, as 0.05")
    memory_bytes = None if memory is None else amount(memory, "--memory", BYTES, "8GB")
    from harness.analysis.recommend import Wanted

    if max_energy is not None:
        return Wanted(amount(max_energy, "--max-energy", JOULES, "20kJ"), "J", min_rate, memory_bytes)
    return Wanted(amount(str(max_time), "--max-time", SECONDS, "30min"), "s", min_rate, memory_bytes)


def _print(found: Recommendation, wanted: Wanted) -> None:
    from harness.analysis.figures import NOTES
    from harness.analysis.recommend.decision import percent, quantity

    if not found.judged:
        print("there is no run to choose by yet")
        return
    several = len({one.option.sweep for one in found.judged}) > 1
    who = ["agent", "model", *(["sweep"] if several else [])]
    names = [[getattr(one.option, field) for field in who] for one in found.judged]
    print_table(
        f"under {quantity(wanted.budget, wanted.unit)} a task",
        [*who, "tasks", "runs", "resolved", "resolved within it", "runs within it", "Pareto set"],
        [
            [*name, one.option.tasks, one.option.runs, percent(one.option.rate), percent(one.expected),
             None if one.within.value is None else f"{one.within.value:.1%}", "yes" if one.pareto else ""]
            for name, one in zip(names, found.judged, strict=True)
        ],
    )  # fmt: skip
    print_table(
        "what whole runs took: means over tasks",
        [*who, "energy a task", "kind", "covers", "seconds", "tokens", "peak GB", "J/resolved"],
        [
            [*name, _joules(one), one.option.energy_kind, one.option.energy_coverage, one.option.agent_s.value,
             one.option.tokens.value, _gigabytes(one.option.peak_memory_bytes),
             _per_resolved(one)]
            for name, one in zip(names, found.judged, strict=True)
        ],
    )  # fmt: skip
    print(found.said)
    for one in found.judged:
        if one.why_not:
            print(f"not {one.name}: {'; '.join(one.why_not)}")
    for note in found.notes:
        print(f"note: {note}")
    kinds = {one.option.energy_kind for one in found.judged if one.option.energy_j.value is not None}
    for kind, note in NOTES.items():
        if kind in kinds:
            print(note)


def _per_resolved(one: Judged) -> str | None:
    from harness.analysis.figures import marked

    figure = one.option.per_resolved_j
    return "undefined" if one.option.rate.value == 0 else marked(figure.value, str(figure.kind))


def _joules(one: Judged) -> str | None:
    from harness.analysis.figures import MARKS
    from harness.analysis.recommend.decision import quantity

    energy_j = one.option.energy_j
    if energy_j.value is None:
        return None
    told = quantity(energy_j.value, "J") + MARKS[str(one.option.energy_kind)]
    if energy_j.low is None or energy_j.high is None:
        return told
    return f"{told} ({quantity(energy_j.low, 'J')} to {quantity(energy_j.high, 'J')})"


def _gigabytes(value: int | None) -> str | None:
    return None if value is None else f"{value / 1e9:.2f}"


def _plain(found: Recommendation, wanted: Wanted) -> dict[str, Any]:
    judged = []
    for one in found.judged:
        row = asdict(one)
        del row["option"]["tried"], row["cost"]
        judged.append(row.pop("option") | row | {"chosen": one is found.chosen})
    return {"wanted": asdict(wanted), "said": found.said, "options": judged, "notes": found.notes}
