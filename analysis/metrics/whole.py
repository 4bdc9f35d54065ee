"""Figures of whole runs: joules, watts, CO2, what failures cost, what a budget would have resolved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.analysis.figures import NO_ENERGY, NO_RUN, Figure, Sample, pool
from harness.analysis.loops.digest import Digest
from harness.analysis.metrics.runs import MeteredRun

JOULES_PER_KWH = 3.6e6
NONE_GRADED = "no run that is left was graded"
NO_IDLE = "idle power was not measured"
NO_STEPS = "no run has calls by which its last useful step could be told"
NO_COUNTRY = "no country was given (--country), so the grid's CO2 is unknown"


@dataclass(frozen=True)
class Budget:
    """The share of runs that were resolved with at most so many joules, as steps (joules, share) from 0 to `limit`.

    `area` is the area under the steps divided by the limit: the mean share over all budgets up to it.
    """

    limit: Figure
    points: tuple[tuple[float, float], ...] | None
    area: Figure


def net(run: MeteredRun) -> Sample:
    """Its joules above idle power."""
    return run.sample_of(run.row("total", "net"), NO_ENERGY if run.gross_j is None else NO_IDLE)


def watts(kept: Sequence[MeteredRun], layer: str) -> Figure:
    """Joules of all runs over seconds of all runs: the mean power, in which a longer run weighs more."""
    missing = NO_IDLE if layer == "idle" else NO_ENERGY
    samples = [run.sample_of(run.row("total", layer), missing) for run in kept]
    values, figure = pool(samples, "W", unknown=missing)
    seconds = sum(run.agent_s for run, sample in zip(kept, samples, strict=True) if sample.value is not None)
    return replace(figure, value=sum(values) / seconds) if values and seconds > 0 else figure


def peak(kept: Sequence[MeteredRun]) -> Figure:
    """The highest power of any second of any run."""
    missing = "no run has a second of it whose power is known"
    samples = [run.sample(run.peak_w, missing) for run in kept]
    values, figure = pool(samples, "W", beyond_seconds=True)
    return replace(figure, value=max(values)) if values else figure


def co2e(kept: Sequence[MeteredRun], gross_j: Figure, carbon: Mapping[int | None, float | None]) -> Figure:
    """Grams of a run. `carbon` is by session, in grams for each kWh of the grid."""
    figure = replace(gross_j, unit="g CO2e")
    if figure.value is None:
        return figure
    grids = {carbon.get(run.session) for run in kept if run.gross_j is not None}
    if len(grids - {None}) > 1:
        return replace(figure, value=None, why="the sweep's sessions name grids of different CO2")
    grams_per_kwh = grids.pop() if len(grids) == 1 else None
    if grams_per_kwh is None:
        return replace(figure, value=None, why=NO_COUNTRY)
    # A grid's yearly mean is no measurement, whatever it is multiplied with.
    kind = "estimated" if figure.kind == "measured" else figure.kind
    return replace(figure, value=figure.value / JOULES_PER_KWH * grams_per_kwh, kind=kind)


def failed_runs(graded: Sequence[MeteredRun]) -> tuple[Figure, Figure]:
    """Joules of the runs that were graded and not resolved, and their share of the joules of all that were graded."""
    values, figure = pool([run.sample(run.gross_j) for run in graded], "J", all_known=True, nobody=NONE_GRADED)
    share = replace(figure, unit="1")
    if not values:
        return figure, share
    failed_j = sum(value for run, value in zip(graded, values, strict=True) if not run.resolved)
    failed = replace(figure, value=failed_j, n=sum(not run.resolved for run in graded))
    if sum(values) <= 0:
        return failed, replace(share, why="no energy was spent")
    return failed, replace(share, value=failed_j / sum(values))


def per_resolved(graded: Sequence[MeteredRun]) -> Figure:
    """Joules of all graded runs for each that was resolved; undefined where none was."""
    unit = "J/resolved"
    resolved = sum(run.resolved for run in graded)
    values, figure = pool([run.sample(run.gross_j) for run in graded], unit, all_known=True, nobody=NONE_GRADED)
    if values and resolved:
        return replace(figure, value=sum(values) / resolved)
    if values:
        return replace(figure, why=f"undefined: 0 resolved, {sum(values):,.0f} J spent")
    return replace(figure, why=f"undefined: 0 resolved; {figure.why}") if graded and not resolved else figure


def budget_limit(runs: Sequence[MeteredRun], budget_j: float | None) -> Figure:
    """The highest budget of all curves of a sweep, in joules."""
    graded = [run for run in runs if not run.left_out and run.graded]
    values, figure = pool([run.sample(run.gross_j) for run in graded], "J", beyond_seconds=True, nobody=NONE_GRADED)
    if not values:
        return figure
    limit_j = max(values) if budget_j is None else budget_j
    said = "the energy of the sweep's most expensive run" if budget_j is None else "as it was asked for"
    return replace(figure, value=limit_j, why=said) if limit_j > 0 else replace(figure, why="no energy was spent")


def budget_curve(graded: Sequence[MeteredRun], limit: Figure) -> Budget:
    """See Budget."""
    # A run that was not resolved is below the curve at every budget, whatever it used.
    told = [run for run in graded if run.resolved or run.gross_j is not None]
    values, area = pool(
        [run.sample(run.gross_j) for run in told],
        "1",
        beyond_seconds=True,
        all_known=True,
        nobody=NO_ENERGY if graded else NONE_GRADED,
    )
    if not values:
        return Budget(limit, None, area)
    if limit.value is None:
        return Budget(limit, None, replace(area, why=limit.why))
    most = limit.value
    used = sorted(value for run, value in zip(told, values, strict=True) if run.resolved and value <= most)
    points = [(0.0, 0.0), *((joules, number / len(graded)) for number, joules in enumerate(used, 1))]
    points.append((most, len(used) / len(graded)))
    mean = sum(1 - joules / most for joules in used) / len(graded)
    said = f"budgets from 0 to {most:,.0f} J, {limit.why}"
    return Budget(limit, tuple(dict.fromkeys(points)), replace(area, value=mean, n=len(graded), why=said))


def after_last_useful_step(kept: Sequence[MeteredRun], steps: Mapping[str, Digest]) -> Figure:
    """Joules after the last step that got a run any further, over all its joules, both summed over the runs."""
    told = [(run, steps[run.run_id]) for run in kept if run.run_id in steps and steps[run.run_id].told]
    if not told:
        return Figure(None, "1", why=NO_STEPS if kept else NO_RUN)
    samples, whole_j = [], 0.0
    for run, analysed in told:
        after = analysed.after_useful
        samples.append(Sample(after.joules, after.kind, after.coverage, run.machine, after.why))
        if after.joules is not None:
            whole_j += run.gross_j or 0.0
    values, figure = pool(samples, "1", beyond_seconds=True)
    if not values:
        return figure
    return replace(figure, value=sum(values) / whole_j) if whole_j > 0 else replace(figure, why="no energy was spent")
