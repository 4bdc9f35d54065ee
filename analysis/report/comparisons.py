"""Which agents and models differ in what they cost, by how much, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.report.data import Cell, Data
from harness.analysis.report.document import Block, Note, Number, Paragraph, Section, Table, Value
from harness.analysis.report.tables import NAMES, RUNS, number, reasons, said
from harness.analysis.statistics.comparisons import Comparison, Design, compare, smallest_ratio
from harness.analysis.statistics.factors import importance
from harness.analysis.statistics.sweeps import CLOCKED, ENERGY, value_of

COMPARED = ("energy_j", "net_energy_j", "agent_s", "tokens", "calls")


BLOCKED = (
    "Blocked by task: only tasks that all cells have, one value (the mean of its runs) for each. Friedman's test over "
    "all cells, Wilcoxon's signed ranks for each pair"
)
UNBLOCKED = (
    "Not blocked, as was asked for: tasks of one cell are taken to be independent of those of another, one value (the "
    "mean of its runs) for each. Kruskal-Wallis' test over all cells, Dunn's for each pair"
)


def section(data: Data, design: Design) -> Section:
    cells = data.with_models
    if len(cells) < 2:
        return Section("comparisons", "Comparisons", [Note("There are not two agents or models to compare.")])
    blocks: list[Block] = [
        Paragraph(
            f"{BLOCKED if design == 'blocked' else UNBLOCKED}, p adjusted by Holm's method over the pairs of "
            "one table. Cliff's delta is the chance that a task of the first costs more than one of the second, less "
            "the chance of the reverse; Vargha's and Delaney's A is the same from 0 to 1. The ratio is of means over "
            "the tasks that both have, with an interval of 95 %."
            + (
                " Could be seen: the smallest ratio that a paired test over these tasks finds in four of five sweeps."
                if design == "blocked"
                else ""
            )
        )
    ]
    overall: list[list[Value]] = []
    compared: list[Block] = []
    why: list[tuple[str, str | None]] = []
    for metric in COMPARED:
        name = NAMES[metric][0]
        if reason := _not_compared(data, cells, metric):
            why.append((name, reason))
            continue
        told = [cell for cell in cells if cell.values(metric)]
        if len(told) < 2:
            why.append((name, "fewer than two cells have it"))
            continue
        found, tables = _compared(data, told, metric, design)
        compared += tables
        if test := found.overall:
            overall.append([name, test.name, test.n, len(told), test.statistic, said(test.p), test.why])
    if overall:
        blocks.append(
            Table(
                "overall",
                "Whether the cells differ at all.",
                ["of", "test", "n", "cells", "chi²", "p", "why not"],
                overall,
                RUNS,
            )
        )
    blocks += compared
    blocks += [Note(f"Not compared: {line}.") for line in reasons(why)]
    blocks += _factors(data, cells)
    return Section("comparisons", "Comparisons", blocks)


def _not_compared(data: Data, cells: Sequence[Cell], metric: str) -> str | None:
    if metric in ENERGY:
        return data.no_comparison(cells)
    return data.machines(cells) if metric in CLOCKED else None


def _compared(data: Data, cells: Sequence[Cell], metric: str, design: Design) -> tuple[Comparison, list[Block]]:
    name = NAMES[metric][0]
    values = {cell.name: cell.values(metric) for cell in cells}
    if design == "blocked":
        shared = set.intersection(*({task for task, each in of_cell.items() if each} for of_cell in values.values()))
        values = {cell: {task: of_cell[task] for task in sorted(shared)} for cell, of_cell in values.items()}
    found = compare(values, design)
    title = f"{name[0].upper()}{name[1:]}" + (f" ({data.energy_is})" if metric in ENERGY else "")
    anchor = metric.replace("_", "-")
    seen = ["could be seen"] if design == "blocked" else []
    blocks: list[Block] = [
        Table(
            f"pairs-{anchor}",
            f"{title}: pairs of agents and models, over {_tasks(found)}.",
            ["pair", "tasks", "ratio of means", *seen, "Cliff's delta", "A", "p", "p (Holm)", "why not"],
            [
                [f"{pair.one} / {pair.other}", pair.test.n, number(pair.ratio),
                 *([smallest_ratio(values[pair.one], values[pair.other]).value] if seen else []),
                 number(pair.delta), pair.superiority, said(pair.test.p), said(pair.p_adjusted),
                 pair.ratio.why or pair.test.why]
                for pair in found.pairs
            ],
            RUNS,
        )
    ]  # fmt: skip
    if metric in ("energy_j", "agent_s"):
        blocks.append(
            Table(
                f"normality-{anchor}",
                f"{title}: Shapiro-Wilk of the tasks' means; a small p says that they are not normal, which the tests "
                "above do not need.",
                ["agent × model", "tasks", "W", "p", "why not"],
                [[cell, test.n, test.statistic, said(test.p), test.why] for cell, test in found.normality.items()],
                RUNS,
            )
        )
    return found, blocks


def _tasks(found: Comparison) -> str:
    return f"the {found.tasks} tasks that all have" if found.design == "blocked" else f"{found.tasks} tasks in all"


def _factors(data: Data, cells: Sequence[Cell]) -> list[Block]:
    """How much of the variance is the framework's, the model's, the task's."""
    if len(data.sweeps) > 1:
        return [Note("Shares of variance are told of one sweep at a time.")]
    rows: list[list[Value]] = []
    names: list[str] = []
    why: list[tuple[str, str | None]] = []
    for metric in ("energy_j", "agent_s", "tokens"):
        name = NAMES[metric][0]
        if reason := _not_compared(data, cells, metric):
            why.append((name, reason))
            continue
        told = [
            (value, cell.agent, cell.model, run.run["task"])
            for cell in cells
            for run in (cell.fit if metric in CLOCKED else cell.valid)
            if (value := value_of(run.run, metric)) is not None
        ]
        columns = list(zip(*told, strict=True)) if told else [(), (), (), ()]
        found = importance(columns[0], dict(zip(("framework", "model", "task"), columns[1:], strict=True)))
        if found.shares is None:
            why.append((name, found.why))
            continue
        names += [factor for factor in found.shares if factor not in names]
        rows.append([name, found.runs, *(Number(found.shares.get(factor), percent=True) for factor in names)])
    blocks: list[Block] = []
    if rows:
        width = 2 + len(names)
        rows = [[*row, *[None] * (width - len(row))] for row in rows]
        blocks.append(
            Table(
                "factors",
                "What energy, time and tokens depend on: shares of the variance of the logarithm (sums of squares of "
                "type II). A factor with one level has no share.",
                ["of", "runs", *names],
                rows,
                RUNS,
            )
        )
    return [*blocks, *(Note(f"Shares of variance are not told of {line}.") for line in reasons(why))]
