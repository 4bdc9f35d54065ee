"""How long the choice for the next task takes. Exit code 1 where it is over 1 ms at the 99th percentile.

Choosers of 4, 40 and 400 options are asked with budgets, queues and memories drawn at random, from plenty to nothing.
The baseline, measured between them in the same run, is the least that could be done without preparing anything: the
options sorted by what they cost. The paper that has such a choice (GUIDE, arXiv 2512.01099) tells 7.2 ms.

    python tests/benchmarks/recommend.py [--calls 100000]
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time

from harness.analysis.figures import Figure
from harness.analysis.recommend import Chooser, Option
from harness.analysis.recommend.measured import Tried
from harness.analysis.statistics.estimates import Estimate

LIMIT_MS = 1.0
SIZES = (4, 40, 400)
TASKS = 50
BASELINE_EVERY = 20  # calls, so that both have the same machine


def estimate(value: float) -> Estimate:
    return Estimate(value, None, None, TASKS, TASKS, "made")


def option(number: int, chance: random.Random) -> Option:
    """Dearer ones resolve more, by and by, so that hulls are not short."""
    mean_j = 10 ** chance.uniform(2, 5)
    rate = 0.9 * (mean_j / 1e5) ** 0.5 * chance.uniform(0.8, 1)
    tried = tuple(
        Tried(f"t{task}", chance.random() < rate, mean_j * chance.lognormvariate(-0.125, 0.5), mean_j / 10)
        for task in range(TASKS)
    )
    resolved = sum(run.resolved for run in tried) / TASKS
    return Option(
        f"a{number}", "m", "one", "machine", True, TASKS, TASKS, estimate(resolved),
        estimate(statistics.fmean(run.energy_j or 0.0 for run in tried)), "measured", "cpu", estimate(mean_j / 10),
        estimate(1e4), round(chance.uniform(1e9, 16e9)), Figure(None, "J/resolved"), tried,
    )  # fmt: skip


def measure(size: int, calls: int) -> tuple[list[float], list[float], int]:
    """Microseconds of each pick, of each sorting, and how many picks were none."""
    chance = random.Random(size)
    choice = [option(number, chance) for number in range(size)]
    chooser = Chooser(choice)
    picks, sorts, none = [], [], 0
    for number in range(calls):
        tasks = chance.randint(1, 50)
        energy_j = tasks * 10 ** chance.uniform(1, 5.5)
        memory = chance.choice([None, chance.uniform(0, 20e9)])
        began = time.perf_counter()
        picked = chooser.pick(energy_left_j=energy_j, tasks_left=tasks, memory_bytes=memory)
        picks.append(1e6 * (time.perf_counter() - began))
        none += picked is None
        if number % BASELINE_EVERY == 0:
            began = time.perf_counter()
            sorted(choice, key=lambda one: one.energy_j.value or 0.0)
            sorts.append(1e6 * (time.perf_counter() - began))
    return sorted(picks), sorted(sorts), none


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--calls", type=int, default=100_000)
    calls = options.parse_args().calls
    good = True
    for size in SIZES:
        picks, sorts, none = measure(size, calls)
        median_us, high_us = statistics.median(picks), picks[int(0.99 * len(picks))]
        ratio = median_us / statistics.median(sorts)
        print(
            f"{size:>4} options  median {median_us:6.1f} us, p99 {high_us:6.1f} us, longest {picks[-1] / 1e3:.2f} ms "
            f"of {calls:,} ({none / calls:.0%} none)  {ratio:4.2f} x sorting them"
        )
        good = good and high_us <= LIMIT_MS * 1e3
    print(f"{'within' if good else 'OUTSIDE'} the limit of {LIMIT_MS:g} ms at p99")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
