"""Means, ratios and rates over tasks, each with its interval and the method by which it was made, or with the reason
why there is none.

Intervals of means and ratios are by the bootstrap-t of the logarithm over tasks, each draw of fewer tasks than
there are. Energies are skewed, and a sample holds too little of their tail: a draw as large as the sample is then less
skewed than the mean that it stands for, and a smaller one makes up for it. What the intervals hold is in
docs/statistics.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from statistics import quantiles

import numpy as np
from numpy.typing import NDArray

from harness.analysis.intervals import wilson

RESAMPLES = 1_999
DRAWN_OF_MEAN, DRAWN_OF_RATIO = 2 / 3, 1 / 2
"""The share of the tasks that are in a draw: with these coverage is nearest to 95 % over the scenarios of the study."""
LEAST_DRAWN = 10
"""Tasks of a draw, where there are as many."""
PRIOR_TASKS = 2
"""As many tasks whose runs all agree are taken for seen before the likeness of a task's runs is told from the runs."""
LEAST_TASKS = 5
"""Of fewer no interval is told: resampling four values says more about the four than about tasks."""
CONFIDENCE = 0.95

Values = Mapping[str, Sequence[float]]
"""By task, one value for each run that is kept."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its interval; None where there is none, for the reason in `why`. `tasks` and `runs` are
    those that it is made of."""

    value: float | None
    low: float | None
    high: float | None
    tasks: int
    runs: int
    method: str
    why: str | None = None


@dataclass(frozen=True)
class Described:
    """Of runs, whatever their task. `sd` is of the sample; None for one run."""

    n: int
    mean: float
    sd: float | None
    median: float
    lower_quartile: float
    upper_quartile: float
    least: float
    most: float


def describe(values: Sequence[float]) -> Described | None:
    """None of no values."""
    if not values:
        return None
    array = np.asarray(values, dtype=float)
    lower, _, upper = quantiles(values, n=4, method="inclusive") if len(values) > 1 else (values[0],) * 3
    return Described(
        len(values), float(array.mean()), float(array.std(ddof=1)) if len(values) > 1 else None,
        float(np.median(array)), lower, upper, float(array.min()), float(array.max()),
    )  # fmt: skip


def mean(values: Values, seed: int = 0) -> Estimate:
    """The mean over tasks of each task's mean."""
    tasks, runs = _size(values)
    if not tasks:
        return Estimate(None, None, None, 0, 0, "mean over tasks", "there is no run")
    means = task_means(values)
    blank = Estimate(float(means.mean()), None, None, tasks, runs, "mean over tasks")
    if why := _too_few(means):
        return _without(blank, why)
    centre, error = means.mean(), float(_error_of_mean(means))
    drawn = means[_small_draws(tasks, DRAWN_OF_MEAN, seed)]
    middles, errors = drawn.mean(axis=1), _error_of_mean(drawn)
    if means.min() < 0:
        low, high = _ends((middles - centre) / _safe(errors))
        return _with(blank, centre - high * error, centre - low * error, "bootstrap-t over tasks")
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw of zeros has no error either
        low, high = _ends((np.log(middles) - np.log(centre)) * middles / _safe(errors))
    low, high = centre * np.exp(-high * error / centre), centre * np.exp(-low * error / centre)
    return _with(blank, low, high, "bootstrap-t of the logarithm, over tasks")


def ratio(values: Values, baseline: Values, seed: int = 0) -> Estimate:
    """The mean of one over the mean of another, over the tasks that both have (paired)."""
    shared = sorted(set(values) & set(baseline))
    one = {task: values[task] for task in shared if values[task] and baseline[task]}
    other = {task: baseline[task] for task in one}
    tasks = len(one)
    runs = sum(len(each) for each in (*one.values(), *other.values()))
    method = "ratio of means over the tasks of both"
    if not tasks:
        return Estimate(None, None, None, 0, 0, method, "there is no task that both have")
    tops, bottoms = task_means(one), task_means(other)
    if bottoms.mean() == 0:
        return Estimate(None, None, None, tasks, runs, method, "undefined: the mean below the line is zero")
    if tops.mean() <= 0 or bottoms.mean() < 0:
        blank = Estimate(float(tops.mean() / bottoms.mean()), None, None, tasks, runs, method)
        return _without(blank, "a ratio of means that are not positive has no interval here")
    blank = Estimate(float(tops.mean() / bottoms.mean()), None, None, tasks, runs, method)
    if tasks < LEAST_TASKS:
        return _without(blank, f"too few tasks (n={tasks})")
    centre, error = _log_ratio(tops, bottoms)
    if error[0] == 0:
        return _without(blank, "all tasks have the same ratio")
    draws = _small_draws(tasks, DRAWN_OF_RATIO, seed)
    drawn, errors = _log_ratio(tops[draws], bottoms[draws])
    low, high = _ends((drawn - centre) / _safe(errors))
    return _with(
        blank, np.exp(centre[0] - high * error[0]), np.exp(centre[0] - low * error[0]), "bootstrap-t of the logarithm, "
        "over tasks, paired",
    )  # fmt: skip


def rate(resolved: Mapping[str, Sequence[bool]]) -> Estimate:
    """The share of runs that are resolved, as the mean over tasks of each task's share.

    With one run of each task they are independent, and the interval is Wilson's. With several it is Wilson's for as
    many runs as would tell as much as these if they were independent (the design effect): where runs of a task always
    agree that is the number of tasks. Few tasks that were resolved, or few that were not, tell little of how much runs
    agree, and the number stays near that of tasks.
    """
    tasks, runs = _size(resolved)
    if not tasks:
        return Estimate(None, None, None, 0, 0, "mean over tasks", "no run was graded")
    shares = task_means(resolved)
    value = float(shares.mean())
    if runs == tasks:
        return _wilson(round(value * tasks), tasks, tasks, runs, "Wilson, one run of each task")
    spread = float(shares.var(ddof=1)) / tasks if tasks > 1 else 0.0
    alone = value * (1 - value) / spread if spread > 0 else float(tasks)
    seen = min(np.count_nonzero(shares > 0), np.count_nonzero(shares < 1))
    prior = PRIOR_TASKS / (PRIOR_TASKS + seen)
    told = 1 / ((1 - prior) / min(max(alone, 1.0), float(runs)) + prior / tasks)
    return _wilson(value * told, told, tasks, runs, "Wilson, for the runs' effective number")


def rate_difference(one: Mapping[str, Sequence[bool]], other: Mapping[str, Sequence[bool]]) -> Estimate:
    """One rate less another, over the tasks that both have (paired): Newcombe's square-and-add of the two intervals,
    with the correlation of the tasks' shares (Statistics in Medicine 17, 1998, method 10 without its correction)."""
    shared = [task for task in sorted(set(one) & set(other)) if one[task] and other[task]]
    ours, theirs = ({task: each[task] for task in shared} for each in (one, other))
    first, second = rate(ours), rate(theirs)
    runs, method = first.runs + second.runs, "difference of means over the tasks of both"
    if first.value is None or second.value is None:
        return Estimate(None, None, None, 0, runs, method, "there is no task that both have")
    blank = Estimate(first.value - second.value, None, None, len(shared), runs, method)
    if len(shared) < LEAST_TASKS:
        return _without(blank, f"too few tasks (n={len(shared)})")
    columns = task_means(ours), task_means(theirs)
    varied = all(column.std() > 0 for column in columns)
    likeness = float(np.corrcoef(*columns)[0, 1]) if varied else 0.0
    (down, up), (down_other, up_other) = _reaches(first), _reaches(second)
    low = first.value - second.value - _square_and_add(down, up_other, likeness)
    high = first.value - second.value + _square_and_add(up, down_other, likeness)
    return _with(blank, low, high, "square-and-add of Wilson's, paired")


def pass_at_k(resolved: Mapping[str, Sequence[bool]], k: int) -> Estimate:
    """The chance that at least one of k runs of a task resolves it, mean over tasks: 1 - C(n-c, k)/C(n, k)."""
    return _of_k(resolved, k, "pass@k", lambda n, c: 1 - comb(n - c, k) / comb(n, k))


def pass_hat_k(resolved: Mapping[str, Sequence[bool]], k: int) -> Estimate:
    """The chance that all of k runs of a task resolve it, mean over tasks: C(c, k)/C(n, k)."""
    return _of_k(resolved, k, "pass^k", lambda n, c: comb(c, k) / comb(n, k))


def _of_k(resolved: Mapping[str, Sequence[bool]], k: int, method: str, chance: Callable[[int, int], float]) -> Estimate:
    tasks, runs = _size(resolved)
    known = [(len(each), sum(each)) for each in resolved.values() if len(each) >= k]
    if not known:
        return Estimate(None, None, None, tasks, runs, method, f"no task has {k} graded runs")
    value = sum(chance(n, c) for n, c in known) / len(known)
    why = None if len(known) == tasks else f"{tasks - len(known)} of {tasks} tasks have fewer than {k} graded runs"
    return Estimate(value, None, None, len(known), sum(n for n, _ in known), method, why)


def _wilson(hits: float, of: float, tasks: int, runs: int, method: str) -> Estimate:
    low, high = wilson(hits, of) or (None, None)
    return Estimate(hits / of, low, high, tasks, runs, method)


def _reaches(rated: Estimate) -> tuple[float, float]:
    """How far a rate's interval goes down and up."""
    value, low, high = rated.value or 0.0, rated.low or 0.0, rated.high or 0.0
    return value - low, high - value


def _square_and_add(one: float, other: float, likeness: float) -> float:
    return float(np.sqrt(max(0.0, one * one - 2 * likeness * one * other + other * other)))


def _size(values: Mapping[str, Sequence[object]]) -> tuple[int, int]:
    return sum(bool(each) for each in values.values()), sum(len(each) for each in values.values())


def task_means(values: Mapping[str, Sequence[float]]) -> Floats:
    """The mean of each task that has a run, in the order of the tasks' names."""
    return np.array([sum(each) / len(each) for _, each in sorted(values.items()) if len(each)], dtype=float)


def times_drawn(tasks: int, seed: int, resamples: int) -> Floats:
    """Resamples of so many tasks, a row each: how often it holds each task."""
    draws = np.random.default_rng(seed).integers(0, tasks, (resamples, tasks))
    draws += np.arange(resamples)[:, None] * tasks
    return np.bincount(draws.ravel(), minlength=resamples * tasks).reshape(resamples, tasks).astype(float)


def _small_draws(tasks: int, share: float, seed: int) -> NDArray[np.int64]:
    """Resamples of a share of so many tasks, a row each."""
    drawn = min(tasks, max(LEAST_DRAWN, round(tasks * share)))
    return np.random.default_rng(seed).integers(0, tasks, (RESAMPLES, drawn))


def _error_of_mean(values: Floats) -> Floats:
    """Along the last axis."""
    return np.asarray(values.std(axis=-1, ddof=1) / np.sqrt(values.shape[-1]))


def _log_ratio(tops: Floats, bottoms: Floats) -> tuple[Floats, Floats]:
    """The logarithm of the ratio of means along the last axis, and its error by the delta method."""
    tops, bottoms = np.atleast_2d(tops), np.atleast_2d(bottoms)
    above, below = tops.mean(axis=1, keepdims=True), bottoms.mean(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = tops / above - bottoms / below
        centre = np.log(above / below)[:, 0]
    return centre, relative.std(axis=1, ddof=1) / np.sqrt(tops.shape[1])


def _safe(errors: Floats) -> Floats:
    """A resample of equal values has no error of its own, and tells nothing."""
    return np.where(errors > 0, errors, np.nan)


def _ends(studentised: Floats) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    finite = studentised[np.isfinite(studentised)]
    low, high = np.quantile(finite, [tail, 1 - tail])
    return float(low), float(high)


def _too_few(means: Floats) -> str | None:
    if len(means) < LEAST_TASKS:
        return f"too few tasks (n={len(means)})"
    return "all tasks have the same value" if means.std() == 0 else None


def _without(blank: Estimate, why: str) -> Estimate:
    return Estimate(blank.value, None, None, blank.tasks, blank.runs, blank.method, why)


def _with(blank: Estimate, low: float, high: float, method: str) -> Estimate:
    return Estimate(blank.value, float(low), float(high), blank.tasks, blank.runs, f"{blank.method}; {method}")
