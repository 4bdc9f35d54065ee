"""What energy depends on: how much of its variance is the framework's, the model's, the task's; what it goes with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from harness.analysis.statistics.estimates import CONFIDENCE, LEAST_TASKS, Estimate, draws_of

CORRELATION_RESAMPLES = 999


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
    if len(values) and min(values) <= 0:
        return Importance(None, len(values), method, "a value is not positive")
    varying = [column for column in table.columns if table[column].nunique() > 1]
    if not varying:
        return Importance(None, len(values), method, "no factor has two levels")
    terms = [f"C({column})" for column in varying]
    if {"factor0", "factor1"} <= set(varying):
        terms.append("C(factor0):C(factor1)")
    table["value"] = np.log(np.asarray(values, dtype=float))
    if table["value"].nunique() < 2:
        return Importance(None, len(values), method, "all values are the same")
    fit = ols(f"value ~ {' + '.join(terms)}", data=table).fit()
    if fit.df_resid < 1:
        return Importance(None, len(values), method, f"too few runs (n={len(values)})")
    squares = anova_lm(fit, typ=2)["sum_sq"]
    total = float(squares.sum())
    shares = {}
    for term, square in squares.items():
        inner = [names[part[2:-1]] for part in str(term).split(":")] if term != "Residual" else ["rest"]
        shares[" × ".join(inner)] = float(square) / total
    return Importance(shares, len(values), method)


@dataclass(frozen=True)
class Correlation:
    """Pearson's and Spearman's coefficients, each with a percentile interval over tasks."""

    pearson: Estimate
    spearman: Estimate


def correlation(pairs: Mapping[str, Sequence[tuple[float, float]]], seed: int = 0) -> Correlation:
    """Of pairs by task, one for each run."""
    tasks = [np.asarray(each, dtype=float) for _, each in sorted(pairs.items()) if len(each)]
    runs = sum(len(each) for each in tasks)
    found = []
    for name, coefficient in (("Pearson", stats.pearsonr), ("Spearman", stats.spearmanr)):
        method = f"{name}; percentile bootstrap over tasks"
        whole = np.concatenate(tasks) if tasks else np.empty((0, 2))
        if runs < LEAST_TASKS:
            found.append(Estimate(None, None, None, len(tasks), runs, method, f"too few runs (n={runs})"))
            continue
        if (whole.std(axis=0) == 0).any():
            found.append(Estimate(None, None, None, len(tasks), runs, method, "one of the two does not vary"))
            continue
        value = float(coefficient(whole[:, 0], whole[:, 1]).statistic)
        if len(tasks) < LEAST_TASKS:
            found.append(Estimate(value, None, None, len(tasks), runs, method, f"too few tasks (n={len(tasks)})"))
            continue
        drawn = []
        for draw in draws_of(len(tasks), seed, CORRELATION_RESAMPLES):
            some = np.concatenate([tasks[number] for number in draw])
            if (some.std(axis=0) > 0).all():
                drawn.append(float(coefficient(some[:, 0], some[:, 1]).statistic))
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(drawn, [tail, 1 - tail])
        found.append(Estimate(value, float(low), float(high), len(tasks), runs, method))
    return Correlation(found[0], found[1])
