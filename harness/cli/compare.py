"""`harness compare`: two sweeps beside each other."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import Db, Json, RunsDir, places, print_json, print_table

if TYPE_CHECKING:
    from harness.analysis.statistics.estimates import Estimate
    from harness.analysis.statistics.sweeps import Sweep, SweepChange

NAMES = {
    "calls": "calls",
    "tokens": "tokens",
    "input_tokens": "tokens in",
    "output_tokens": "tokens out",
    "agent_s": "seconds",
    "energy_j": "gross J",
    "net_energy_j": "net J",
    "sandbox_peak_anon_bytes": "sandbox MB",
    "engine_peak_bytes": "engine MB",
}


def compare(
    one: Annotated[str, typer.Argument(help="A sweep's id.")],
    other: Annotated[str, typer.Argument(help="Another's.")],
    db: Db = None,
    other_db: Annotated[Path | None, typer.Option(help="The other's database. Default: the same.")] = None,
    runs_dir: RunsDir = None,
    as_json: Json = False,
) -> None:
    """Print what changed from one sweep to another, paired by task, and what differs in their records."""
    from harness.analysis.statistics.sweeps import compare_sweeps

    database, _ = places(db, runs_dir)
    first, second = _read(database, one), _read(other_db or database, other)
    found = compare_sweeps(first, second)
    if as_json:
        print_json({"one": first.sweep_id, "other": second.sweep_id} | asdict(found))
        return
    _print(first, second, found)


def _read(database: Path, sweep: str) -> Sweep:
    from harness.analysis.statistics.sweeps import read_sweep
    from harness.store.db import read_store
    from harness.store.records import find_sweep

    with contextlib.closing(read_store(database)) as store:
        return read_sweep(store, find_sweep(store, sweep)["sweep_id"])


def _print(first: Sweep, second: Sweep, found: SweepChange) -> None:
    rows = []
    for cell in found.cells:
        for change in cell.changes:
            scale = 1e6 if change.unit == "bytes" else 1.0
            p = change.test.p if change.test else None
            rows.append(
                [cell.agent, cell.model, NAMES[change.metric], _value(change.one, scale), _value(change.other, scale),
                 _interval(change.ratio), change.ratio.tasks, None if p is None else f"{p:.3g}",
                 change.ratio.why or (change.test.why if change.test else None) or ""]
            )  # fmt: skip
    heads = [
        "agent",
        "model",
        "mean over tasks",
        first.sweep_id,
        second.sweep_id,
        "ratio (95 %)",
        "tasks",
        "p",
        "why not",
    ]
    print_table(f"from {first.sweep_id} to {second.sweep_id}", heads, rows)
    rates = [
        [cell.agent, cell.model, cell.runs[0], cell.runs[1], _interval(cell.rate.value, percent=True),
         None if cell.rate.test.p is None else f"{cell.rate.test.p:.3g}",
         cell.rate.value.why or cell.rate.test.why or ""]
        for cell in found.cells
    ]  # fmt: skip
    print_table("resolved, change of the rate", ["agent", "model", "runs", "runs", "change", "p", "why not"], rates)
    print("p: Wilcoxon signed-rank over tasks; of rates McNemar or sign flips; none is adjusted for their number")
    for sweep_id, cells in found.only.items():
        for agent, model in cells:
            print(f"only in {sweep_id}: {agent} × {model}")
    for cell in found.cells:
        if any(cell.left_out):
            print(f"left out of seconds and joules: {cell.left_out[0]} and {cell.left_out[1]} runs of {cell.agent}")
    print("what differs in their records" if found.differences else "their records are the same")
    for line in found.differences:
        print(f"  {line}")


def _value(estimate: Estimate, scale: float) -> str | None:
    return None if estimate.value is None else f"{estimate.value / scale:,.1f}"


def _interval(estimate: Estimate, percent: bool = False) -> str | None:
    if estimate.value is None:
        return None
    form = ".1%" if percent else ".3g"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:{form}}"
    return f"{estimate.value:{form}} ({estimate.low:{form}} to {estimate.high:{form}})"
