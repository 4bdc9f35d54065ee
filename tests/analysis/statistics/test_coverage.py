"""That intervals hold their 95 %: a small cut of the study in coverage_study.py, and what the study published."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

from harness.analysis.statistics.estimates import mean, rate, rate_difference
from harness.analysis.statistics.factors import CORRELATION_RESAMPLES, pearson, spearman

FOLDER = Path(__file__).parent


def load_study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coverage_study", FOLDER / "coverage_study.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


study = load_study()
PUBLISHED = json.loads((FOLDER / "coverage.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("estimator", ["mean", "ratio"])
@pytest.mark.parametrize("name", ["lognormal 0.5", "time limit"])
def test_a_small_study_is_within_chance_of_what_is_promised(estimator: str, name: str) -> None:
    """Of 200 intervals that hold 93 to 97 %, all but one in a thousand studies find as many as this."""
    scenario = next(each for each in study.scenarios() if (each.estimator, each.name) == (estimator, name))
    found = study.simulate(scenario, 50, 1, 200)
    least, most = stats.binom.ppf(0.0005, 200, 0.93), stats.binom.ppf(0.9995, 200, 0.97)
    assert found.none == 0
    assert least <= found.covered * 200 <= most


def test_means_and_ratios_hold_what_is_owed_from_fifty_tasks_up() -> None:
    owed = [
        row
        for row in PUBLISHED["rows"]
        if row["estimator"] in ("mean", "ratio") and row["scenario"] in PUBLISHED["realistic"] and row["tasks"] >= 50
    ]
    assert len(owed) == 2 * 3 * 3 * 2
    assert [row for row in owed if row["simulations"] < 1000 or not 0.93 <= row["covered"] <= 0.97] == []


def test_the_study_published_every_scenario() -> None:
    expected = {
        (each.estimator, each.name, tasks, repeats)
        for each in study.scenarios() for tasks in study.TASKS for repeats in study.REPEATS
    }  # fmt: skip
    assert {(row["estimator"], row["scenario"], row["tasks"], row["repeats"]) for row in PUBLISHED["rows"]} == expected


def test_the_truth_of_the_simulations_is_true() -> None:
    chance = np.random.default_rng(4)
    for each in study.scenarios():
        if each.estimator in ("mean", "rate"):
            [cell] = each.draw(chance, 20_000, 1)
            told = np.concatenate(list(cell.values())).astype(float)
            assert abs(told.mean() - each.truth(1)) <= 5 * told.std() / len(told) ** 0.5


def test_few_resolved_tasks_tell_little_of_how_alike_runs_are() -> None:
    """One task of fifty resolved in one run of three: about as much is known as from fifty runs, not from 150."""
    runs = {f"t{n}": [False] * 3 for n in range(50)}
    told = rate(runs | {"t0": [True, False, False]})
    assert told.high is not None
    assert told.high > 0.05
    none = rate(runs)
    assert (none.low, round(none.high or 0, 3)) == (0.0, 0.071)


def test_a_difference_of_rates_has_an_interval_where_none_is_resolved() -> None:
    none = {f"t{n}": [False] for n in range(50)}
    told = rate_difference(none, none)
    assert (told.value, round(told.low or 0, 3), round(told.high or 0, 3)) == (0.0, -0.071, 0.071)
    assert rate_difference(none, {}).why == "there is no task that both have"
    assert rate_difference({"a": [True]}, {"a": [False]}).why == "too few tasks (n=1)"


def test_a_difference_of_rates_as_newcombe_has_it() -> None:
    """The pairs 36, 12, 2, 0 of his table II (1998), without the correction: 0.20 and its interval by hand."""
    pairs = [(True, True)] * 36 + [(True, False)] * 12 + [(False, True)] * 2
    told = rate_difference(*({f"t{n}": [pair[side]] for n, pair in enumerate(pairs)} for side in (0, 1)))
    (p, l1, u1), (q, l2, u2) = (0.96, 0.8654, 0.9890), (0.76, 0.6259, 0.8570)
    phi = (36 * 0 - 12 * 2) / np.sqrt(48 * 2 * 38 * 12)
    assert told.value == pytest.approx(0.2)
    assert told.low == pytest.approx(
        0.2 - np.sqrt((p - l1) ** 2 - 2 * phi * (p - l1) * (u2 - q) + (u2 - q) ** 2), abs=2e-4
    )
    assert told.high == pytest.approx(
        0.2 + np.sqrt((u1 - p) ** 2 - 2 * phi * (u1 - p) * (q - l2) + (q - l2) ** 2), abs=2e-4
    )


def test_correlations_of_resamples_are_those_that_scipy_finds() -> None:
    """Whole numbers, so that there are ties; tasks with one to three runs."""
    chance = np.random.default_rng(8)
    tasks = {f"t{n:02d}": [tuple(chance.integers(0, 9, 2)) for _ in range(1 + n % 3)] for n in range(20)}
    draws = np.random.default_rng(3).integers(0, 20, (CORRELATION_RESAMPLES, 20))
    rows = [np.array(tasks[name], dtype=float) for name in sorted(tasks)]
    for ours, coefficient in ((pearson, stats.pearsonr), (spearman, stats.spearmanr)):
        told = ours(tasks, seed=3)
        drawn = [coefficient(*np.concatenate([rows[number] for number in draw]).T).statistic for draw in draws]
        assert (told.low, told.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))


def test_values_below_zero_have_means_too() -> None:
    told = mean({f"t{n}": [float(n - 30)] for n in range(50)})
    assert told.method == "mean over tasks; bootstrap-t over tasks"
    assert told.low is not None
    assert told.high is not None
    assert told.low < -5.5 < told.high < 0
