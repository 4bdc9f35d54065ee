"""Whether one cell resolves more than another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from harness.analysis.statistics.comparisons import Test
from harness.analysis.statistics.estimates import LEAST_TASKS, Estimate, rate_difference, task_means

FLIPS = 4_999
Resolved = Mapping[str, Sequence[bool]]
"""By task, one answer for each graded run."""


@dataclass(frozen=True)
class Difference:
    """The one's rate less the other's, over the tasks of both."""

    value: Estimate
    test: Test


def compare_rates(one: Resolved, other: Resolved, seed: int = 0) -> Difference:
    """Paired by task: signs of the tasks' differences are flipped at random; McNemar's exact test where each task has
    one run of each."""
    shared = [task for task in sorted(set(one) & set(other)) if one[task] and other[task]]
    differences = {task: [float(np.mean(one[task]) - np.mean(other[task]))] for task in shared}
    once = all(len(one[task]) == len(other[task]) == 1 for task in shared)
    name = "McNemar, exact" if once else "sign-flip permutation"
    assumes = "tasks are independent"
    value = rate_difference(one, other)
    if len(shared) < LEAST_TASKS:
        return Difference(value, Test(name, assumes, len(shared), None, None, f"too few tasks (n={len(shared)})"))
    values = task_means(differences)
    if not values.any():
        return Difference(value, Test(name, assumes, len(shared), None, None, "no task differs"))
    if once:
        ours, theirs = int((values > 0).sum()), int((values < 0).sum())
        found = mcnemar([[0, ours], [theirs, 0]], exact=True)
        return Difference(value, Test(name, assumes, len(shared), float(found.statistic), float(found.pvalue)))
    flipped = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", vectorized=True, n_resamples=FLIPS,
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    return Difference(value, Test(name, assumes, len(shared), float(flipped.statistic), float(flipped.pvalue)))
