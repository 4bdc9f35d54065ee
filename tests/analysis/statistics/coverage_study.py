"""How often the 95 % intervals hold the truth, on simulated sweeps whose truth is known, for docs/statistics.md.

    python tests/analysis/statistics/coverage_study.py [--simulations 1000] [--only mean ratio] [--dry-run]

It calls the functions that users get, with the values by task that they take, and writes coverage.json beside itself,
which docs/generate.py makes a table of. The seeds are fixed: the same versions of numpy and scipy give the same file.
With --only the rows of the other estimators stay as they are.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.stats import norm

from harness.analysis.statistics.comparisons import cliffs_delta
from harness.analysis.statistics.estimates import CONFIDENCE, Estimate, mean, rate, rate_difference, ratio
from harness.analysis.statistics.factors import pearson, spearman

FILE = Path(__file__).with_name("coverage.json")
SEED = 2_026
TASKS = (20, 50, 100, 200)
REPEATS = (1, 3)
WITHIN = 0.3
"""The standard deviation of the logarithm from run to run of one task."""
ALIKE = 0.8
"""The correlation of two cells' logarithms over the tasks."""
LIMIT = 2.5
"""Of the mixture: where a run is ended. Its median is 1, and about one run in seven gets there."""
REALISTIC = ("lognormal 0.5", "lognormal 1.0", "time limit")
RATES = (0.0, 0.01, 0.02, 0.05, 0.2, 0.5)
PAIRS_OF_RATES = ((0.0, 0.0), (0.02, 0.01), (0.05, 0.05), (0.2, 0.1), (0.5, 0.3))

Drawn = tuple[Mapping[str, Sequence[Any]], ...]
Truth = float


@dataclass(frozen=True)
class Scenario:
    """What an estimator is tried on. `draw` makes one sweep of so many tasks and repeats; `truth` is of the repeats."""

    estimator: str
    name: str
    estimate: Callable[..., Estimate]
    draw: Callable[[Generator, int, int], Drawn]
    truth: Callable[[int], Truth]


@dataclass(frozen=True)
class Covered:
    """Shares of the simulations: truth in the interval, below it, above it. `none` had no interval, which counts as
    missed on neither side and not as covered. `width` is the median, in the estimate's own unit."""

    estimator: str
    scenario: str
    tasks: int
    repeats: int
    simulations: int
    covered: float
    below: float
    above: float
    none: float
    width: float


def by_task(values: NDArray[Any]) -> dict[str, list[Any]]:
    return {f"t{number:03d}": row for number, row in enumerate(values.tolist())}


def energies(
    chance: Generator, tasks: int, repeats: int, sigma: float, limit: float, scales: Sequence[float] = (1.0,)
) -> Drawn:
    """A cell for each scale; lognormal over tasks and again from run to run, ended at the limit."""
    shared = chance.normal(size=tasks)
    cells = []
    for scale in scales:
        task = sigma * (ALIKE**0.5 * shared + (1 - ALIKE) ** 0.5 * chance.normal(size=tasks))
        runs = chance.normal(0, WITHIN, (tasks, repeats))
        cells.append(by_task(np.minimum(scale * np.exp(task[:, None] + runs), limit)))
    return tuple(cells)


def mean_energy(sigma: float, limit: float, scale: float = 1.0) -> float:
    """Of such a cell: the mean of a lognormal that is cut at the limit."""
    spread = float(np.hypot(sigma, WITHIN))
    if np.isinf(limit):
        return float(scale * np.exp(spread**2 / 2))
    reach = float(np.log(limit / scale) / spread)
    return float(scale * np.exp(spread**2 / 2) * norm.cdf(reach - spread) + limit * norm.sf(reach))


def answers(chance: Generator, tasks: int, repeats: int, shares: Sequence[float]) -> Drawn:
    """Whether runs are resolved, for the rates of one or two cells. Of the first a task's chance is from a beta
    distribution whose shapes add up to 1: most tasks are nearly always or nearly never resolved. The second's is that
    times the ratio of the rates."""
    most = shares[0]
    task = chance.beta(most, 1 - most, tasks) if 0 < most < 1 else np.full(tasks, most)
    cells = []
    for share in shares:
        likely = task * (share / most if most else 0.0)
        cells.append(by_task(chance.random((tasks, repeats)) < likely[:, None]))
    return tuple(cells)


def two_measures(chance: Generator, tasks: int, repeats: int) -> Drawn:
    """Pairs by task whose logarithms correlate with ALIKE, from task to task and in a task."""
    covariance = np.array([[1, ALIKE], [ALIKE, 1]])
    task = chance.multivariate_normal([0, 0], 0.5**2 * covariance, tasks)[:, None, :]
    pairs = task + chance.multivariate_normal([0, 0], WITHIN**2 * covariance, (tasks, repeats))
    return (by_task(np.exp(pairs)),)


def pearson_of_lognormals() -> float:
    variance = 0.5**2 + WITHIN**2
    return float(np.expm1(ALIKE * variance) / np.expm1(variance))


@cache
def delta_of_energies(repeats: int, sigma: float, limit: float, scale: float) -> float:
    """By a million tasks of each cell."""
    chance = np.random.default_rng(SEED)
    one, other = (
        np.minimum(
            size * np.exp(sigma * chance.normal(size=(10**6, 1)) + chance.normal(0, WITHIN, (10**6, repeats))), limit
        ).mean(axis=1)
        for size in (scale, 1.0)
    )
    other.sort()
    below, upto = (np.searchsorted(other, one, side=side).mean() for side in ("left", "right"))
    return float((below + upto) / len(other) - 1)


def unseeded(estimate: Callable[..., Estimate], *cells: Any, seed: int) -> Estimate:
    return estimate(*cells)


def scenarios() -> Iterator[Scenario]:
    shapes = {"lognormal 0.5": (0.5, np.inf), "lognormal 1.0": (1.0, np.inf), "time limit": (0.8, LIMIT),
              "lognormal 1.5": (1.5, np.inf)}  # fmt: skip
    for name, (sigma, limit) in shapes.items():
        one = partial(energies, sigma=sigma, limit=limit)
        yield Scenario("mean", name, mean, one, lambda _, s=sigma, at=limit: mean_energy(s, at))  # type: ignore[misc]
    for name, (sigma, limit) in shapes.items():
        two = partial(energies, sigma=sigma, limit=limit, scales=(1.0, 0.5))
        yield Scenario(
            "ratio", name, ratio, two, lambda _, s=sigma, at=limit: mean_energy(s, at) / mean_energy(s, at, 0.5)
        )  # type: ignore[misc]
    for share in RATES:
        drawn = partial(answers, shares=(share,))
        yield Scenario("rate", f"{share:.0%}", partial(unseeded, rate), drawn, lambda _, s=share: s)  # type: ignore[misc]
    for first, second in PAIRS_OF_RATES:
        drawn = partial(answers, shares=(first, second))
        yield Scenario(
            "difference of rates", f"{first:.0%} and {second:.0%}", partial(unseeded, rate_difference), drawn,
            lambda _, gap=first - second: gap,
        )  # type: ignore[misc]  # fmt: skip
    for name in ("lognormal 0.5", "time limit"):
        sigma, limit = shapes[name]
        two = partial(energies, sigma=sigma, limit=limit, scales=(1.5, 1.0))
        yield Scenario(
            "Cliff's delta", name, partial(cliffs_delta, paired=True), two,
            partial(delta_of_energies, sigma=sigma, limit=limit, scale=1.5),
        )  # fmt: skip
    yield Scenario("Pearson", "lognormal", pearson, two_measures, lambda _: pearson_of_lognormals())
    yield Scenario("Spearman", "lognormal", spearman, two_measures, lambda _: float(6 / np.pi * np.arcsin(ALIKE / 2)))


def simulate(scenario: Scenario, tasks: int, repeats: int, simulations: int) -> Covered:
    """Seeds are of the scenario's name and sizes, so that one can be made again without the others."""
    name = f"{scenario.estimator} {scenario.name} {tasks} {repeats}"
    chance = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    truth = scenario.truth(repeats)
    below = above = none = 0
    widths = []
    for number in range(simulations):
        told = scenario.estimate(*scenario.draw(chance, tasks, repeats), seed=number)
        if told.low is None or told.high is None:
            none += 1
            continue
        below += truth < told.low - 1e-12  # an end that is exact may be off by a float's last place
        above += truth > told.high + 1e-12
        widths.append(told.high - told.low)
    return Covered(
        scenario.estimator, scenario.name, tasks, repeats, simulations,
        *(round(count / simulations, 4) for count in (simulations - below - above - none, below, above, none)),
        width=round(float(np.median(widths)), 4) if widths else 0.0,
    )  # fmt: skip


def published() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def write(rows: Sequence[Covered]) -> None:
    """In the place of the rows of the same estimators."""
    tried = {row.estimator for row in rows}
    kept = [row for row in published()["rows"] if row["estimator"] not in tried] if FILE.is_file() else []
    order = list(dict.fromkeys(scenario.estimator for scenario in scenarios()))
    every = sorted([*kept, *map(asdict, rows)], key=lambda row: order.index(row["estimator"]))
    head = {
        "seed": SEED, "confidence": CONFIDENCE, "realistic": REALISTIC,
        "numpy": np.__version__, "scipy": scipy.__version__,
    }  # fmt: skip
    lines = ",\n".join("  " + json.dumps(row) for row in every)
    start = json.dumps(head, indent=1).removesuffix("\n}")
    FILE.write_text(f'{start},\n "rows": [\n{lines}\n ]\n}}\n', encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1_000)
    parser.add_argument("--only", nargs="+", help="estimators to try")
    parser.add_argument("--dry-run", action="store_true", help="print and write nothing")
    told = parser.parse_args()
    began = time.monotonic()
    rows = []
    for scenario in scenarios():
        if told.only and scenario.estimator not in told.only:
            continue
        for tasks, repeats in product(TASKS, REPEATS):
            row = simulate(scenario, tasks, repeats, told.simulations)
            rows.append(row)
            sides = f"{row.covered:.3f} ({row.below:.3f}, {row.above:.3f}, {row.none:.3f}) {row.width:.3f}"
            name = f"{row.estimator:20} {row.scenario:15} {row.tasks:4} tasks x {row.repeats}"
            print(f"{time.monotonic() - began:6.0f} s  {name}  {sides}", flush=True)
    if not told.dry_run:
        write(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
