"""What energy depends on: how much of its variance is the framework's, the model's, the task's; what it goes with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from statsmodels.formula.api import wls
from statsmodels.stats.anova import anova_lm

from harness.analysis.statistics.estimates import CONFIDENCE, LEAST_TASKS, Estimate, Floats, times_drawn

CORRELATION_RESAMPLES = 999
FEWER_RESAMPLES = 299
MANY_RUNS = 5_000
LEAST_DRAWN = 200  # resamples of which an interval is told
NOTHING = 1e-9  # of a whole sample's sum of squares


@dataclass(frozen=True)
class Importance:
    """Shares of the sum of squares of the logarithm; they add up to 1. None where they can't be told, for `why`."""

    shares: dict[str, float] | None
    runs: int
    method: str
    why: str | None = None


def importance(values: Sequence[float], factors: Mapping[str, Sequence[str]]) -> Importance:
    """How much of the variance of the logarithm each factor explains, the first two together, and nothing (rest).

    `factors` are names to one level for each value, the two of interest first. Those with one level explain nothing
    and are left out. Sums of squares of type II.
    """
    method = "analysis of variance of the logarithm, sums of squares of type II"
    table = pd.DataFrame({f"factor{number}": list(levels) for number, levels in enumerate(factors.values())})
    names = dict(zip(table.columns, factors, strict=True))
    if not len(values):
        return Importance(None, 0, method, "no run has a value")
    if min(values) <= 0:
        return Importance(None, len(values), method, "a value is not positive")
    varying = [column for column in table.columns if table[column].nunique() > 1]
    if not varying:
        return Importance(None, len(values), method, "no factor has two levels")
    terms = [f"C({column})" for column in varying]
    # What two do together can be told only where each was tried with each.
    if {"factor0", "factor1"} <= set(varying) and len(table[["factor0", "factor1"]].drop_duplicates()) == (
        table["factor0"].nunique() * table["factor1"].nunique()
    ):
        terms.append("C(factor0):C(factor1)")
    table["value"] = np.log(np.asarray(values, dtype=float))
    if table["value"].nunique() < 2:
        return Importance(None, len(values), method, "all values are the same")
    within, formula = 0.0, f"value ~ {' + '.join(terms)}"
    table["runs"] = 1
    model = None
    if len(values) > MANY_RUNS:
        # Means of runs that share all levels, each weighing as many as there are, give the same sums of squares but
        # for what lies within them, from far fewer rows.
        groups = table.groupby(varying, sort=True)["value"]
        means = groups.agg(value="mean", runs="size").reset_index()
        model = wls(formula, data=means, weights=means["runs"])
        within = float(((table["value"] - groups.transform("mean")) ** 2).sum())
    if model is None or model.exog.shape[0] <= model.exog.shape[1]:  # of so few means nothing would be left over
        within, model = 0.0, wls(formula, data=table, weights=table["runs"])
    try:
        fit = model.fit(method="qr")
        is_told_apart = model.rank == model.exog.shape[1]
    except np.linalg.LinAlgError:
        is_told_apart = False
    if len(values) <= model.exog.shape[1]:
        return Importance(None, len(values), method, f"too few runs (n={len(values)})")
    if not is_told_apart:
        return Importance(None, len(values), method, "two factors go together, so what is whose can't be told")
    squares = anova_lm(fit, typ=2)["sum_sq"]
    squares["Residual"] += within
    total = float(squares.sum())
    shares = {}
    for term, square in squares.items():
        inner = [names[part[2:-1]] for part in str(term).split(":")] if term != "Residual" else ["rest"]
        shares[" × ".join(inner)] = float(square) / total
    return Importance(shares, len(values), method)


Pairs = Mapping[str, Sequence[tuple[float, float]]]
"""By task, one for each run."""


def pearson(pairs: Pairs, seed: int = 0) -> Estimate:
    return _correlation("Pearson", stats.pearsonr, _plain, pairs, seed)


def spearman(pairs: Pairs, seed: int = 0) -> Estimate:
    return _correlation("Spearman", stats.spearmanr, _ranked, pairs, seed)


def _correlation(
    name: str,
    coefficient: Callable[[Floats, Floats], Any],
    resampled: Callable[[Floats, NDArray[np.int64], int], Floats],
    pairs: Pairs,
    seed: int,
) -> Estimate:
    """With a percentile interval over tasks."""
    tasks = [each for _, each in sorted(pairs.items()) if len(each)]
    whole = np.array([pair for each in tasks for pair in each], dtype=float).reshape(-1, 2)
    runs, method = len(whole), f"{name}; percentile bootstrap over tasks"
    if runs < LEAST_TASKS:
        return Estimate(None, None, None, len(tasks), runs, method, f"too few runs (n={runs})")
    if (whole.std(axis=0) == 0).any():
        return Estimate(None, None, None, len(tasks), runs, method, "one of the two does not vary")
    value = float(coefficient(whole[:, 0], whole[:, 1]).statistic)
    if len(tasks) < LEAST_TASKS:
        return Estimate(value, None, None, len(tasks), runs, method, f"too few tasks (n={len(tasks)})")
    drawn = resampled(whole, np.repeat(np.arange(len(tasks)), [len(each) for each in tasks]), seed)
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) < LEAST_DRAWN:
        why = "in hardly any resample do both vary"
        return Estimate(value, None, None, len(tasks), runs, method, why)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), len(tasks), runs, method)


def _plain(pairs: Floats, of_task: NDArray[np.int64], seed: int) -> Floats:
    """Pearson's coefficients of resamples of tasks, from each task's own sums."""
    one, other = (pairs - pairs.mean(axis=0)).T
    sums = [
        np.bincount(of_task, weights=each) for each in (np.ones_like(one), one, other, one**2, other**2, one * other)
    ]
    n, x, y, xx, yy, xy = (times_drawn(len(sums[0]), seed, CORRELATION_RESAMPLES) @ np.column_stack(sums)).T
    spreads = xx - x**2 / n, yy - y**2 / n
    # Of a resample in which one of the two does not vary, the sums leave what their rounding left.
    varies = (spreads[0] > NOTHING * (one**2).sum()) & (spreads[1] > NOTHING * (other**2).sum())
    below = np.sqrt(np.where(varies, spreads[0] * spreads[1], np.nan))
    return np.asarray(np.clip((xy - x * y / n) / below, -1.0, 1.0))


def _ranked(pairs: Floats, of_task: NDArray[np.int64], seed: int) -> Floats:
    """Spearman's, by how often each pair is in a resample: copying them would be most of the work."""
    groups = [np.unique(column, return_inverse=True)[1] for column in pairs.T]
    resamples = CORRELATION_RESAMPLES if len(pairs) <= MANY_RUNS else FEWER_RESAMPLES
    drawn = []
    for times in times_drawn(int(of_task[-1]) + 1, seed, resamples):
        weights = times[of_task]
        one, other = (_ranks(group, weights) - (weights.sum() + 1) / 2 for group in groups)
        below = np.sqrt((weights @ one**2) * (weights @ other**2))
        drawn.append(float((weights * one) @ other / below) if below > 0 else float("nan"))
    return np.array(drawn)


def _ranks(group: NDArray[np.int64], times: Floats) -> Floats:
    """Of equal values all have the mean of their places."""
    sizes = np.bincount(group, weights=times)
    return np.asarray((np.cumsum(sizes) - (sizes - 1) / 2)[group])
