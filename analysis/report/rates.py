"""What was resolved, and what that cost."""

from __future__ import annotations

from itertools import combinations

from harness.analysis.recommend.decision import pareto
from harness.analysis.report import plots
from harness.analysis.report.data import Cell, Data
from harness.analysis.report.document import Block, Note, Paragraph, Plot, Section, Table, Value
from harness.analysis.report.tables import RUNS, number, said
from harness.analysis.statistics import estimates
from harness.analysis.statistics.estimates import Estimate
from harness.analysis.statistics.success import compare_rates

BUDGET_STEPS = 120
"""Of a curve that are drawn."""


def section(data: Data) -> Section:
    cells = data.with_models
    blocks: list[Block] = [_table(data)]
    if any(any(task) for cell in cells for task in cell.runs.resolved.values()):
        blocks += _differences(data)
    elif any(cell.runs.resolved for cell in cells):
        blocks.append(Note("No agent with a model resolved any task: rates can't be told apart from nothing."))
    else:
        blocks.append(Note("No run of an agent with a model was graded, so what was resolved is unknown."))
    if not cells:
        return Section("rates", "What was resolved", blocks)
    if reason := data.no_comparison(cells):
        blocks.append(Note(f"Rate against energy, its Pareto front and the curve over budgets are left out: {reason}."))
    else:
        blocks += _against_energy(data, cells)
    return Section("rates", "What was resolved", blocks)


def _table(data: Data) -> Table:
    repeats = max((len(runs) for cell in data.cells for runs in cell.runs.resolved.values()), default=1)
    ks = [k for k in (2, 3, 5, 10) if k <= repeats]
    rows: list[list[Value]] = []
    for cell in data.cells:
        resolved = cell.runs.resolved
        graded = sum(map(len, resolved.values()))
        hits = sum(map(sum, resolved.values()))
        rows.append(
            [cell.name, len(resolved), graded, hits, number(estimates.rate(resolved), 1, True),
             *(number(estimates.pass_at_k(resolved, k), 1, True) for k in ks),
             *(number(estimates.pass_hat_k(resolved, k), 1, True) for k in ks)]
        )  # fmt: skip
    return Table(
        "rates",
        "Resolved runs by agent and model: the rate is the mean over tasks, with an interval of 95 %. pass@k: at least "
        "one of k runs of a task resolves it; pass^k: all k do.",
        ["agent × model", "tasks", "graded runs", "resolved", "rate", *(f"pass@{k}" for k in ks),
         *(f"pass^{k}" for k in ks)],
        rows,
        RUNS,
    )  # fmt: skip


def _differences(data: Data) -> list[Block]:
    rows: list[list[Value]] = []
    found = [
        (one, other, compare_rates(one.runs.resolved, other.runs.resolved))
        for one, other in combinations(data.with_models, 2)
    ]
    for one, other, difference in found:
        rows.append(
            [f"{one.name} − {other.name}", difference.value.tasks, number(difference.value, 1, True),
             difference.test.name, said(difference.test.p), difference.value.why or difference.test.why]
        )  # fmt: skip
    if not rows:
        return []
    return [
        Table(
            "rate-differences",
            "Differences of rates, paired by task, with intervals of 95 %. McNemar's exact test where each task has "
            "one run, flips of signs at random otherwise; p is not adjusted for the number of pairs.",
            ["pair", "tasks", "difference", "test", "p", "why not"],
            rows,
            RUNS,
        )
    ]


def _against_energy(data: Data, cells: list[Cell]) -> list[Block]:
    told: dict[str, tuple[Estimate, Estimate]] = {}
    for cell in cells:
        pair = (estimates.mean(cell.values("energy_j")), estimates.rate(cell.runs.resolved))
        if all(each.value is not None for each in pair):
            told[cell.name] = pair
    if not told:
        return [Note("No cell has both an energy and a rate.")]
    worth = {name: pair for name, pair in told.items() if pair[1].value}  # no agent resolves nothing for nothing
    points = [(rate.value or 0.0, energy.value or 0.0) for energy, rate in worth.values()]
    front = [name for name, is_in in zip(worth, pareto(points), strict=True) if is_in]
    blocks: list[Block] = [
        Plot(
            "rate-against-energy",
            f"Rate against the mean energy of a run ({data.energy_is}), with intervals of 95 %. Dashed: the Pareto "
            "front, of which no other agent and model resolves as much for less. Overlapping intervals say that an "
            "order is not sure.",
            "A point for each agent and model, joules across and the share resolved up",
            lambda: plots.crosses(
                {name: (_ends(energy), _ends(rate)) for name, (energy, rate) in told.items()},
                f"mean energy of a run, J ({data.energy_is})", "resolved", front,
            ),
            RUNS,
        )
    ]  # fmt: skip
    if front:
        blocks.append(Paragraph(f"On the front: {', '.join(front)}."))
    most = max((run.run["energy_j"] or 0.0 for cell in cells for run in cell.fit), default=0.0)
    curves = {cell.name: budget_curve(cell, most) for cell in cells}
    if any(points and points[-1][1] > 0 for points in curves.values()):
        blocks.append(
            Plot(
                "rate-by-budget",
                f"Share of graded runs that are resolved with at most so much energy ({data.energy_is}): what a budget "
                "of a run would have left, had it ended the others.",
                "Rising steps, one line for each agent and model",
                lambda: plots.lines(curves, "budget of a run, J", "resolved within it", steps=True, percent="y"),
                RUNS,
            )
        )
    else:
        blocks.append(Note("The curve over budgets is left out: nothing was resolved, so it is zero everywhere."))
    return blocks


def _ends(estimate: Estimate) -> tuple[float, float, float]:
    value = estimate.value or 0.0
    low, high = estimate.low, estimate.high
    return value, value if low is None else min(low, value), value if high is None else max(high, value)


def budget_curve(cell: Cell, most: float) -> list[tuple[float, float]]:
    """(joules, share of the graded runs that were resolved with at most so many), rising, up to `most`; empty where no
    graded run has an energy."""
    graded = [run for run in cell.fit if run.run["outcome"] != "ungraded" and run.run["energy_j"] is not None]
    if not graded:
        return []
    used = sorted(run.run["energy_j"] for run in graded if run.run["outcome"] == "resolved")
    steps = [(joules, number / len(graded)) for number, joules in enumerate(used, 1)]
    return [(0.0, 0.0), *plots.some(steps, BUDGET_STEPS), (most, len(used) / len(graded))]
