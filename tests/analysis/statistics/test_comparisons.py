"""What a comparison says where there is too little to compare, and that it cries wolf as seldom as it promises."""

from __future__ import annotations

import numpy as np
import pytest

from harness.analysis.statistics import factors
from harness.analysis.statistics.comparisons import cliffs_delta, compare, normality, smallest_ratio
from harness.analysis.statistics.estimates import Values
from harness.analysis.statistics.factors import importance, pearson
from harness.analysis.statistics.success import compare_rates


def energies(chance: np.random.Generator, factor: float = 1.0, tasks: int = 20, repeats: int = 3) -> Values:
    hard = np.random.default_rng(1).lognormal(5, 0.8, tasks)  # the same tasks in every cell
    return {
        f"t{n}": [float(hard[n] * factor * each) for each in chance.lognormal(0, 0.3, repeats)] for n in range(tasks)
    }


def test_a_difference_is_found_with_its_size() -> None:
    chance = np.random.default_rng(2)
    found = compare({"a": energies(chance), "b": energies(chance, 3.0), "c": energies(chance)})
    assert found.overall is not None
    assert (found.overall.p or 1) < 0.001
    pairs = {(pair.one, pair.other): pair for pair in found.pairs}
    ab, ac = pairs["a", "b"], pairs["a", "c"]
    assert (ab.p_adjusted or 1) < 0.001 < (ac.p_adjusted or 0)
    assert ab.ratio.low is not None
    assert ab.ratio.high is not None
    assert ab.ratio.low < 1 / 3 < ab.ratio.high
    assert (ab.delta.high or 1) < 0
    assert ab.superiority == pytest.approx(((ab.delta.value or 0) + 1) / 2)


@pytest.mark.parametrize("design", ["blocked", "unblocked"])
def test_without_a_difference_one_is_seldom_seen(design: str) -> None:
    """100 times nothing: by chance 5 % are below 0.05, and with Holm no more than that have any such pair."""
    chance = np.random.default_rng(3)
    overall = pairs = 0
    for _ in range(100):
        if design == "blocked":
            cells = {name: energies(chance, tasks=12) for name in "abc"}
        else:
            cells = {name: {f"{name}{n}": [float(chance.lognormal())] for n in range(12)} for name in "abc"}
        found = compare(cells, design)  # type: ignore[arg-type]
        assert found.overall is not None
        overall += (found.overall.p or 0) < 0.05
        pairs += any((pair.p_adjusted or 0) < 0.05 for pair in found.pairs)
    assert overall <= 12
    assert pairs <= 12


def test_too_little_is_said_and_not_computed() -> None:
    few = {name: {f"t{n}": [float(n + 1)] for n in range(3)} for name in "abc"}
    found = compare(few)
    assert found.overall is not None
    assert (found.overall.p, found.overall.why) == (None, "too few tasks (n=3)")
    assert [(pair.test.p, pair.p_adjusted, pair.test.why) for pair in found.pairs] == [
        (None, None, "too few tasks (n=3)")
    ] * 3
    assert compare({"a": few["a"]}).why == "there are not two cells"
    assert compare({}).why == "there are not two cells"
    apart = compare({"a": {"x": [1.0]}, "b": {"y": [2.0]}})
    assert apart.tasks == 0
    assert apart.pairs[0].test.why == "too few tasks (n=0)"
    assert normality({"t": [1.0]}).why == "too few tasks (n=1)"


def test_values_that_do_not_vary() -> None:
    same = {f"t{n}": [2.0] for n in range(8)}
    [pair] = compare({"a": same, "b": same}).pairs
    assert (pair.test.p, pair.test.why, pair.delta.value) == (None, "all values are the same", 0.0)
    mixed = {f"t{n}": [float(n)] for n in range(8)}
    [pair] = compare({"a": mixed, "b": mixed}).pairs
    assert (pair.test.p, pair.test.why) == (None, "no task differs")
    assert normality(same).why == "all tasks have the same value"
    assert pearson({f"t{n}": [(1.0, float(n))] for n in range(9)}).why == "one of the two does not vary"
    assert importance([2.0] * 8, {"a": ["x", "y"] * 4}).why == "all values are the same"


def test_ratios_that_can_not_be_powered() -> None:
    assert smallest_ratio({"a": [1.0]}, {"a": [2.0]}).why == "too few tasks (n=1)"
    zeros = {f"t{n}": [0.0] for n in range(8)}
    assert smallest_ratio(zeros, zeros).why == "a task has a value that is not positive"
    assert cliffs_delta({}, {}, paired=True).why == "there is no task"


def test_rates_that_differ_over_the_same_tasks() -> None:
    chance = np.random.default_rng(5)
    one = {f"t{n}": list(chance.random(3) < 0.7) for n in range(40)}
    other = {f"t{n}": list(chance.random(3) < 0.2) for n in range(40)}
    found = compare_rates(one, other)
    assert found.test.name == "sign-flip permutation"
    assert (found.test.p or 1) < 0.001
    assert found.value.low is not None
    assert found.value.high is not None
    assert found.value.low < 0.5 < found.value.high
    assert compare_rates(one, one).test.why == "no task differs"
    assert compare_rates({"a": [True]}, {"a": [False]}).test.why == "too few tasks (n=1)"


def test_the_factor_that_made_the_energy_explains_it() -> None:
    chance = np.random.default_rng(7)
    rows = [(f, m, t) for f in "abcd" for m in "xy" for t in range(10) for _ in range(3)]
    size = {"a": 1.0, "b": 2.0, "c": 4.0, "d": 9.0}
    values = [float(size[f] * (1.1 if m == "y" else 1) * chance.lognormal(0, 0.2)) for f, m, _ in rows]
    found = importance(
        values,
        {"framework": [f for f, _, _ in rows], "model": [m for _, m, _ in rows], "task": [str(t) for _, _, t in rows]},
    )
    assert found.shares is not None
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.shares["framework"] > 0.9
    assert found.shares["model"] < 0.02
    one = importance(values[:30], {"framework": ["a"] * 30, "model": ["x", "y"] * 15})
    assert one.shares is not None
    assert set(one.shares) == {"model", "rest"}
    assert importance([1.0, -1.0], {"a": ["x", "y"]}).why == "a value is not positive"
    assert importance([1.0, 2.0], {"a": ["x", "x"]}).why == "no factor has two levels"
    assert importance([1.0, 2.0], {"a": ["x", "y"]}).why == "too few runs (n=2)"


def test_shares_of_many_runs_are_made_of_their_means_and_stay_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(8)
    levels = {
        name: [str(each) for each in chance.integers(0, count, 300)]
        for name, count in (("framework", 3), ("model", 2), ("task", 5))
    }
    factor = np.array([1 + (level == "2") for level in levels["framework"]])
    values = [float(each) for each in chance.lognormal(0, 0.5, 300) * factor]
    whole = importance(values, levels)
    monkeypatch.setattr(factors, "MANY_RUNS", 10)
    grouped = importance(values, levels)
    assert whole.shares is not None
    assert grouped.shares == pytest.approx(whole.shares)


def test_factors_that_go_together_are_not_told_apart() -> None:
    levels = {"framework": ["a"] * 10 + ["b"] * 10, "model": ["m"] * 20, "task": ["1", "2"] * 5 + ["3", "4"] * 5}
    found = importance([float(n + 1) for n in range(20)], levels)
    assert (found.shares, found.why) == (None, "two factors go together, so what is whose can't be told")


def test_resamples_in_which_nothing_varies_are_no_coefficients() -> None:
    pairs = {f"t{n}": [(4096.3 if n < 6 else 5000.1, 33.3 * n + 0.7), (4096.3, 31.1 * n + 0.1)] for n in range(7)}
    found = pearson(pairs)
    assert found.low is not None
    assert found.high is not None
    assert -1 <= found.low <= (found.value or 0) <= found.high <= 1


def test_many_runs_of_one_task_have_shares_too() -> None:
    values = [float(each) for each in np.random.default_rng(4).lognormal(0, 1, 5_200)]
    found = importance(values, {"framework": ["a", "b"] * 2_600, "model": ["m"] * 5_200, "task": ["t"] * 5_200})
    assert found.shares is not None
    assert importance([], {"framework": [], "model": [], "task": []}).why == "no run has a value"
