"""Every agent with every model of a sweep: all figures of it, and how cells are ranked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlite_utils import Database

from harness.analysis.figures import NO_ENERGY, Figure, inverse, mean_of, not_comparable, scaled
from harness.analysis.loops.digest import Digest
from harness.analysis.metrics.phases import PHASES, of_phase, per_token, tokens_s
from harness.analysis.metrics.runs import MeteredRun, metered_runs
from harness.analysis.metrics.whole import (
    NO_IDLE,
    Budget,
    after_last_useful_step,
    budget_curve,
    budget_limit,
    co2e,
    failed_runs,
    net,
    peak,
    per_resolved,
    watts,
)

JOULES_PER_WH = 3600.0
LAYERS = ("gross", "idle", "net")
CPU_USERS = ("sandbox", "engine", "harness", "rest")
BETWEEN_CALLS = ("framework", "tools")
NO_SPLIT = "the energy was not split by CPU time"
NO_BANDWIDTH = "the sweep does not name the memory's bandwidth (--memory-bandwidth)"


@dataclass(frozen=True)
class Cell:
    """One agent with one model. Figures are of the runs that are kept: valid, and without a flag that leaves out."""

    agent: str
    model: str
    runs: int
    left_out: dict[str, int]
    """Runs by the flag that leaves them out; `invalid`: those that count for nothing. A run may have several flags."""
    kept: int
    graded: int
    """Of the kept runs, as `resolved`."""
    resolved: int
    agent_s: Figure
    gross_j: Figure
    net_j: Figure
    idle_w: Figure
    mean_w: Figure
    peak_w: Figure
    wh: Figure
    co2e_g: Figure
    edp: Figure
    failed_j: Figure
    failed_share: Figure
    per_resolved_j: Figure
    budget: Budget
    phases: dict[str, dict[str, Figure]]
    """By phase and layer, joules a run."""
    cpu_users: dict[str, Figure]
    """The dynamic energy of the processor by share of CPU time, joules a run."""
    between_calls: dict[str, Figure]
    """The gross energy of that phase by the framework's own process and what it started, joules a run."""
    per_input_token_j: Figure
    per_output_token_j: Figure
    input_tokens_per_j: Figure
    output_tokens_per_j: Figure
    prefill_tokens_s: Figure
    decode_tokens_s: Figure
    decode_per_bandwidth: Figure
    after_last_useful_step: Figure


@dataclass(frozen=True)
class Ranking:
    """Cells from the lowest to the highest figure; None where they can't be compared."""

    order: tuple[str, ...] | None
    why: str | None = None


def cells(
    db: Database,
    sweep_id: str,
    *,
    edp_exponent: float = 1.0,
    budget_j: float | None = None,
    analysed: Sequence[Digest] = (),
) -> list[Cell]:
    """Every agent with every model of a sweep.

    `edp_exponent` is the w of joules times seconds to the w. `budget_j` is the highest budget of the curves; None: the
    energy of the sweep's most expensive run, so that the areas of all cells are over the same range. `analysed` are the
    sweep's runs with their histories, which only the share after the last useful step needs.
    """
    runs = metered_runs(db, sweep_id)
    [(spec,)] = db.execute("SELECT spec FROM sweeps WHERE sweep_id = ?", [sweep_id]).fetchall()
    bandwidth_gb_s = json.loads(spec).get("memory_bandwidth_gb_s")
    sessions = db.execute("SELECT session, carbon_g_per_kwh FROM sessions WHERE sweep_id = ?", [sweep_id])
    carbon = dict(sessions.fetchall())
    limit = budget_limit(runs, budget_j)
    groups: dict[tuple[str, str], list[MeteredRun]] = {}
    for run in runs:
        groups.setdefault((run.agent, run.model), []).append(run)
    steps = {run.run["run_id"]: run for run in analysed}
    return [_cell(group, edp_exponent, limit, bandwidth_gb_s, carbon, steps) for group in groups.values()]


def figures_of(cell: Cell) -> Iterator[tuple[str, Figure]]:
    """Every figure of a cell with its name; those of a part as `phases.decode.net`."""

    def walk(name: str, value: Any) -> Iterator[tuple[str, Figure]]:
        if isinstance(value, Figure):
            yield name, value
        elif isinstance(value, Budget):
            yield f"{name}.limit", value.limit
            yield f"{name}.area", value.area
        elif isinstance(value, dict):
            for inner, of_it in value.items():
                yield from walk(f"{name}.{inner}", of_it)

    for one in fields(cell):
        yield from walk(one.name, getattr(cell, one.name))


def ranking(rows: Sequence[Cell], name: str = "gross_j") -> Ranking:
    """The cells by one of their figures, lowest first. A difference in it is no test of significance."""
    figures = {f"{cell.agent} × {cell.model}": getattr(cell, name) for cell in rows}
    if reason := not_comparable(list(figures.values())):
        return Ranking(None, reason)
    empty = [who for who, figure in figures.items() if figure.value is None]
    if empty:
        reasons = "; ".join(dict.fromkeys(figures[who].why for who in empty))
        return Ranking(None, f"{', '.join(empty)} without a figure: {reasons}")
    if len(figures) < 2:
        return Ranking(None, "there are not two cells")
    return Ranking(tuple(sorted(figures, key=lambda who: figures[who].value)))


def _cell(
    group: Sequence[MeteredRun],
    exponent: float,
    limit: Figure,
    bandwidth_gb_s: float | None,
    carbon: Mapping[int | None, float | None],
    steps: Mapping[str, Digest],
) -> Cell:
    kept = [run for run in group if not run.left_out]
    graded = [run for run in kept if run.graded]
    left_out: dict[str, int] = {}
    for run in group:
        for flag in run.left_out:
            left_out[flag] = left_out.get(flag, 0) + 1
    gross_j = mean_of([run.sample(run.gross_j) for run in kept], "J", unknown=NO_ENERGY)
    failed_j, failed_share = failed_runs(graded)
    input_j, output_j = per_token(kept, "prefill"), per_token(kept, "decode")
    decode_tokens_s = tokens_s(kept, "decode")
    return Cell(
        agent=group[0].agent,
        model=group[0].model,
        runs=len(group),
        left_out=left_out,
        kept=len(kept),
        graded=len(graded),
        resolved=sum(run.resolved for run in graded),
        agent_s=mean_of([run.without_energy(run.agent_s) for run in kept], "s"),
        gross_j=gross_j,
        net_j=mean_of([net(run) for run in kept], "J", beyond_seconds=True, unknown=NO_IDLE),
        idle_w=watts(kept, "idle"),
        mean_w=watts(kept, "gross"),
        peak_w=peak(kept),
        wh=scaled(gross_j, 1 / JOULES_PER_WH, "Wh"),
        co2e_g=co2e(kept, gross_j, carbon),
        edp=mean_of(
            [run.sample(None if run.gross_j is None else run.gross_j * run.agent_s**exponent) for run in kept],
            "J·s" if exponent == 1 else f"J·s^{exponent:g}",
            beyond_seconds=True,
            unknown=NO_ENERGY,
        ),
        failed_j=failed_j,
        failed_share=failed_share,
        per_resolved_j=per_resolved(graded),
        budget=budget_curve(graded, limit),
        phases={phase: {layer: of_phase(kept, phase, layer) for layer in LAYERS} for phase in PHASES},
        cpu_users={
            who: mean_of([run.sample_of(run.cpu_user(who), NO_SPLIT) for run in kept], "J", beyond_seconds=True)
            for who in CPU_USERS
        },
        between_calls={
            who: mean_of(
                [run.sample_of(run.row(who, "gross", "between_calls"), NO_SPLIT) for run in kept],
                "J",
                beyond_seconds=True,
            )
            for who in BETWEEN_CALLS
        },
        per_input_token_j=input_j,
        per_output_token_j=output_j,
        input_tokens_per_j=inverse(input_j),
        output_tokens_per_j=inverse(output_j),
        prefill_tokens_s=tokens_s(kept, "prefill"),
        decode_tokens_s=decode_tokens_s,
        decode_per_bandwidth=(
            scaled(decode_tokens_s, 1 / bandwidth_gb_s, "tokens/s per GB/s")
            if bandwidth_gb_s
            else Figure(None, "tokens/s per GB/s", why=NO_BANDWIDTH)
        ),
        after_last_useful_step=after_last_useful_step(kept, steps),
    )
