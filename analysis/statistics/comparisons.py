"""Whether cells differ in what they cost, by how much, and how sure that is. Tests are of scipy, statsmodels and
scikit-posthocs; what is theirs alone is what goes into them: one value for each task, since runs of one task are alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Literal

import numpy as np
import scikit_posthocs
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from harness.analysis.statistics.estimates import (
    CONFIDENCE,
    LEAST_TASKS,
    Estimate,
    Floats,
    Values,
    ratio,
    task_means,
    times_drawn,
)

Design = Literal["blocked", "unblocked"]
POWER = 0.8
LEAST_NORMAL = 3
MOST_NORMAL = 5_000
"""Of Shapiro's and Wilk's test."""
DELTA_RESAMPLES = 999


@dataclass(frozen=True)
class Test:
    """A test, what it takes for granted, and what it found. `p` is None where it could not be made, for `why`."""

    name: str
    assumes: str
    n: int
    statistic: float | None
    p: float | None
    why: str | None = None


@dataclass(frozen=True)
class Pair:
    """Two cells. `p_adjusted` is Holm's over all pairs. `delta` is Cliff's: the chance that a task of the one has a
    larger value than a task of the other, less the chance of the reverse, -1 to 1. `superiority` is Vargha's and
    Delaney's A, the same from 0 to 1. `ratio` is of the means."""

    one: str
    other: str
    test: Test
    p_adjusted: float | None
    delta: Estimate
    superiority: float | None
    ratio: Estimate


@dataclass(frozen=True)
class Comparison:
    design: Design
    tasks: int
    """That all cells have (blocked), or that any has."""
    normality: dict[str, Test]
    overall: Test | None
    """None for two cells: the test of the pair says it all."""
    pairs: list[Pair]
    why: str | None = None


def normality(values: Values) -> Test:
    """Shapiro-Wilk of the tasks' means."""
    means = task_means(values)
    assumes = "independent tasks"
    if not LEAST_NORMAL <= len(means) <= MOST_NORMAL:
        return Test("Shapiro-Wilk", assumes, len(means), None, None, f"too few tasks (n={len(means)})")
    if means.std() == 0:
        return Test("Shapiro-Wilk", assumes, len(means), None, None, "all tasks have the same value")
    found = stats.shapiro(means)
    return Test("Shapiro-Wilk", assumes, len(means), float(found.statistic), float(found.pvalue))


def compare(cells: Mapping[str, Values], design: Design = "blocked") -> Comparison:
    """Blocked (each task is a block: Friedman, then Wilcoxon's signed ranks) or, where cells have different tasks,
    unblocked (Kruskal-Wallis, then Dunn); Holm over the pairs in both."""
    normal = {name: normality(values) for name, values in cells.items()}
    names = sorted(cells)
    if len(names) < 2:
        return Comparison(design, 0, normal, None, [], "there are not two cells")
    if design == "unblocked":
        return _unblocked(cells, names, normal)
    shared = sorted(set.intersection(*(set(_tasks(cells[name])) for name in names)))
    blocks = {name: {task: cells[name][task] for task in shared} for name in names}
    columns = {name: task_means(blocks[name]) for name in names}
    overall = None
    if len(names) > 2:
        assumes = "tasks are independent blocks; the cells' values of a task can be ranked"
        why = _why_none(list(columns.values()))
        if why:
            overall = Test("Friedman", assumes, len(shared), None, None, why)
        else:
            found = stats.friedmanchisquare(*columns.values())
            overall = Test("Friedman", assumes, len(shared), float(found.statistic), float(found.pvalue))
    tests = [
        (one, other, _signed_ranks(columns[one], columns[other])) for one, other in combinations(names, 2)
    ]  # fmt: skip
    return Comparison("blocked", len(shared), normal, overall, _pairs(tests, blocks, paired=True))


def smallest_ratio(one: Values, other: Values) -> Estimate:
    """The smallest ratio of means that a paired test over these tasks would find in four of five sweeps, from the
    spread of the tasks' own ratios."""
    shared = sorted(set(_tasks(one)) & set(_tasks(other)))
    method = f"paired t test of logarithms, power {POWER:.0%} at 5 %"
    tops, bottoms = (task_means({task: each[task] for task in shared}) for each in (one, other))
    if len(shared) < LEAST_TASKS:
        return Estimate(None, None, None, len(shared), len(shared), method, f"too few tasks (n={len(shared)})")
    if min(tops.min(), bottoms.min()) <= 0:
        return Estimate(None, None, None, len(shared), len(shared), method, "a task has a value that is not positive")
    spread = float(np.std(np.log(tops / bottoms), ddof=1))
    return Estimate(float(np.exp(_effect(len(shared)) * spread)), None, None, len(shared), len(shared), method)


@cache
def _effect(tasks: int) -> float:
    """The smallest mean that a t test of so many differences would find, in their standard deviations."""
    return float(TTestPower().solve_power(nobs=tasks, alpha=1 - CONFIDENCE, power=POWER))


def _unblocked(cells: Mapping[str, Values], names: Sequence[str], normal: dict[str, Test]) -> Comparison:
    columns = [task_means(cells[name]) for name in names]
    tasks = len({task for name in names for task in _tasks(cells[name])})
    assumes = "the cells' tasks are independent of each other"
    why = _why_none(columns)
    if why:
        overall = Test("Kruskal-Wallis", assumes, sum(map(len, columns)), None, None, why)
        found: dict[tuple[str, str], float | None] = dict.fromkeys(combinations(names, 2))
    else:
        kruskal = stats.kruskal(*columns)
        overall = Test(
            "Kruskal-Wallis", assumes, sum(map(len, columns)), float(kruskal.statistic), float(kruskal.pvalue)
        )
        table = scikit_posthocs.posthoc_dunn(columns, p_adjust=None).to_numpy()
        found = {
            (names[one], names[other]): float(table[one, other]) for one, other in combinations(range(len(names)), 2)
        }  # fmt: skip
    tests = [
        (one, other, Test("Dunn", assumes, len(_tasks(cells[one])) + len(_tasks(cells[other])), None, p, why))
        for (one, other), p in found.items()
    ]
    return Comparison("unblocked", tasks, normal, overall, _pairs(tests, cells, paired=False))


def _signed_ranks(one: Floats, other: Floats) -> Test:
    name, assumes = "Wilcoxon signed-rank", "tasks are independent; differences are symmetric about their median"
    if why := _why_none([one, other]):
        return Test(name, assumes, len(one), None, None, why)
    if np.all(one == other):
        return Test(name, assumes, len(one), None, None, "no task differs")
    found = stats.wilcoxon(one, other)
    return Test(name, assumes, len(one), float(found.statistic), float(found.pvalue))


def _why_none(columns: Sequence[Floats]) -> str | None:
    least = min(len(column) for column in columns)
    if least < LEAST_TASKS:
        return f"too few tasks (n={least})"
    return "all values are the same" if len({value for column in columns for value in column}) == 1 else None


def _pairs(tests: Sequence[tuple[str, str, Test]], cells: Mapping[str, Values], paired: bool) -> list[Pair]:
    known = [test.p for _, _, test in tests if test.p is not None]
    adjusted = iter(multipletests(known, method="holm")[1] if known else ())
    return [
        Pair(
            one, other, test, None if test.p is None else float(next(adjusted)),
            delta := cliffs_delta(cells[one], cells[other], paired=paired),
            None if delta.value is None else (delta.value + 1) / 2,
            ratio(cells[one], cells[other]),
        )
        for one, other, test in tests
    ]  # fmt: skip


def cliffs_delta(one: Values, other: Values, *, paired: bool, seed: int = 0) -> Estimate:
    """With a percentile interval over tasks, drawn together where cells share them."""
    ours, theirs = task_means(one), task_means(other)
    method = "Cliff's delta of the tasks' means; percentile bootstrap over tasks"
    tasks, runs = min(len(ours), len(theirs)), sum(len(each) for each in (*one.values(), *other.values()))
    if not tasks:
        return Estimate(None, None, None, 0, runs, method, "there is no task")
    signs = np.sign(ours[:, None] - theirs[None, :])
    value = float(signs.mean())
    if tasks < LEAST_TASKS:
        return Estimate(value, None, None, tasks, runs, method, f"too few tasks (n={tasks})")
    mine = times_drawn(len(ours), seed, DELTA_RESAMPLES)
    yours = mine if paired else times_drawn(len(theirs), seed + 1, DELTA_RESAMPLES)
    drawn = ((mine @ signs) * yours).sum(axis=1) / signs.size
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), tasks, runs, method)


def _tasks(values: Values) -> list[str]:
    return [task for task, each in values.items() if len(each)]
