"""Estimates by hand where a hand can make them, and against simulated data whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from harness.analysis.statistics.estimates import (
    LEAST_TASKS,
    describe,
    mean,
    pass_at_k,
    pass_hat_k,
    rate,
    ratio,
)


def tasks(*values: list[float]) -> dict[str, list[float]]:
    return {f"t{number}": list(each) for number, each in enumerate(values)}


def test_a_description_by_hand() -> None:
    told = describe([1.0, 2.0, 3.0, 4.0, 10.0])
    assert told is not None
    assert (told.n, told.mean, told.median, told.least, told.most) == (5, 4.0, 3.0, 1.0, 10.0)
    assert (told.lower_quartile, told.upper_quartile) == (2.0, 4.0)
    assert told.sd == pytest.approx(12.5**0.5)
    assert describe([]) is None
    one = describe([7.0])
    assert one is not None
    assert (one.sd, one.median, one.lower_quartile) == (None, 7.0, 7.0)


def test_tasks_weigh_alike_however_many_runs_they_have() -> None:
    told = mean(tasks([1.0], [3.0, 3.0, 3.0, 3.0], [5.0], [1.0], [5.0]))
    assert (told.value, told.tasks, told.runs) == (3.0, 5, 8)
    assert told.low is not None
    assert told.high is not None
    assert told.low < 3.0 < told.high


@pytest.mark.parametrize(
    ("values", "value", "why"),
    [
        ({}, None, "there is no run"),
        ({"a": []}, None, "there is no run"),
        ({"a": [1.0], "b": [3.0], "c": [5.0]}, 3.0, "too few tasks (n=3)"),
        ({f"t{n}": [2.0] for n in range(9)}, 2.0, "all tasks have the same value"),
    ],
)
def test_where_there_is_no_interval_the_reason_is_said(
    values: dict[str, list[float]], value: float | None, why: str
) -> None:
    told = mean(values)
    assert (told.value, told.low, told.high, told.why) == (value, None, None, why)


def test_a_ratio_is_over_the_tasks_of_both() -> None:
    one = {f"t{n}": [10.0 + n, 12.0 + n] for n in range(8)} | {"only here": [1000.0]}
    other = {f"t{n}": [1.0 + n / 7] for n in range(8)} | {"only there": [1000.0], "t0": []}
    told = ratio(one, other)
    assert told.tasks == 7
    assert told.value == pytest.approx(
        np.mean([11.0 + n for n in range(1, 8)]) / np.mean([1 + n / 7 for n in range(1, 8)])
    )
    assert told.low is not None
    assert told.high is not None
    assert told.low < (told.value or 0) < told.high
    back = ratio(other, one)
    assert back.value == pytest.approx(1 / (told.value or 1))
    assert back.low == pytest.approx(1 / told.high)


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        ({"a": [1.0]}, {"b": [1.0]}, "there is no task that both have"),
        ({"a": [1.0]}, {"a": [0.0]}, "undefined: the mean below the line is zero"),
        ({"a": [0.0]}, {"a": [1.0]}, "not positive"),
        ({"a": [2.0], "b": [4.0]}, {"a": [1.0], "b": [2.0]}, "too few tasks (n=2)"),
        ({f"t{n}": [2.0 * n] for n in range(1, 9)}, {f"t{n}": [1.0 * n] for n in range(1, 9)}, "the same ratio"),
    ],
)
def test_ratios_that_have_no_interval_or_no_value(
    one: dict[str, list[float]], other: dict[str, list[float]], why: str
) -> None:
    told = ratio(one, other)
    assert (told.low, told.high) == (None, None)
    assert why in (told.why or "")


def test_one_run_of_each_task_is_wilson() -> None:
    told = rate({f"t{n}": [n < 5] for n in range(10)})
    assert told.value == 0.5
    assert (round(told.low or 0, 3), round(told.high or 0, 3)) == (0.237, 0.763)


def test_runs_of_one_task_are_not_independent() -> None:
    """Three runs that always agree tell no more than one of each."""
    once = rate({f"t{n}": [n < 5] for n in range(10)})
    thrice = rate({f"t{n}": [n < 5] * 3 for n in range(10)})
    assert thrice.value == once.value
    assert (thrice.high or 0) - (thrice.low or 0) >= 0.9 * ((once.high or 0) - (once.low or 0))
    mixed = rate({f"t{n}": [True, False, n < 5] for n in range(10)})
    assert (mixed.high or 0) - (mixed.low or 0) < (once.high or 0) - (once.low or 0)


def test_none_resolved_is_a_zero_with_an_upper_end() -> None:
    told = rate({f"t{n}": [False] * 3 for n in range(50)})
    assert (told.value, told.low) == (0.0, 0.0)
    assert 0.05 < (told.high or 0) < 0.1
    assert rate({}).why == "no run was graded"


def test_k_runs_by_hand() -> None:
    runs = {"a": [True, False, False], "b": [True, True, True], "c": [False, False, False]}
    assert pass_at_k(runs, 2).value == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert pass_hat_k(runs, 2).value == pytest.approx((0 + 1 + 0) / 3)
    assert pass_at_k(runs, 1).value == pytest.approx(4 / 9)
    assert rate(runs).value == pytest.approx(4 / 9)
    assert pass_at_k(runs, 4).why == "no task has 4 graded runs"
    assert pass_at_k(runs | {"d": [True]}, 2).why == "1 of 4 tasks have fewer than 2 graded runs"


def test_the_same_seed_gives_the_same_interval() -> None:
    values = {f"t{n}": [float(n), float(n * n)] for n in range(LEAST_TASKS + 3)}
    assert mean(values, 4) == mean(values, 4)
    assert mean(values, 4).low != mean(values, 5).low


def test_intervals_hold_what_they_promise_on_skewed_energies() -> None:
    """300 simulated sweeps of 60 tasks and 3 repeats; with 95 % true, 91 to 99 % are within chance."""
    chance = np.random.default_rng(11)
    hits = {"mean": 0, "ratio": 0}
    for number in range(300):
        task = chance.lognormal(0, 0.6, 60)
        one = {f"t{n}": list(task[n] * chance.lognormal(0, 0.4, 3)) for n in range(60)}
        other = {f"t{n}": list(2 * task[n] * chance.lognormal(0, 0.4, 3)) for n in range(60)}
        told = mean(one, number)
        hits["mean"] += (told.low or 0) <= np.exp((0.6**2 + 0.4**2) / 2) <= (told.high or 0)
        told = ratio(other, one, number)
        hits["ratio"] += (told.low or 0) <= 2 <= (told.high or 0)
    assert 273 <= hits["mean"] <= 297
    assert 273 <= hits["ratio"] <= 297
