"""How much a machine draws at the wall for each watt that its counters tell, measured with a meter at the wall.

The machine is kept at several levels of load in a random order, a window each. The factor is the ratio of the two sums,
its interval comes from resampling the windows. A power supply is not equally good at every load, so the factor holds
for loads like those of the windows, which are kept with it.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from harness.errors import MachineError
from harness.meter.figures import Accounts
from harness.meter.meter import Meter

ROUNDS = 5
SETTLE_S = 5.0  # after a change of load, which the window leaves out
RESAMPLES = 5000
SEED = 0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Window:
    """One level of load. Mean watts of the source and at the wall."""

    busy_cores: int
    duration_s: float
    source_w: float
    wall_w: float


@dataclass(frozen=True)
class Calibration:
    """Watts at the wall for each watt of the source, with its 95 % interval."""

    factor: float
    low: float
    high: float
    coverage: str
    windows: tuple[Window, ...]


def calibrate(meter: Meter, window_s: float, say: Say, cores: int | None = None) -> Calibration:
    """Raises MachineError when the machine has no counters, or either side told nothing."""
    first = Accounts(meter.cut())
    if "counters" not in first.totals or first.headline != "meter":
        reason = meter.rapl.problem or "nothing here has a counter of energy"
        grant = f"; grant it with: {meter.rapl.grant}" if meter.rapl.grant else ""
        raise MachineError(
            f"there are no counters to calibrate: {reason}{grant} (an energy that is estimated can't be: it would "
            "only be scaled)"
        )
    cores = cores or os.cpu_count() or 1
    levels = sorted({0, (cores + 1) // 2, cores})
    chance = random.Random(SEED)
    windows: list[Window] = []
    for number in range(ROUNDS):
        chance.shuffle(levels)
        for busy in levels:
            say(f"round {number + 1} of {ROUNDS}: {busy} of {cores} cores busy, {SETTLE_S + window_s:g} s")
            with _busy(busy):
                time.sleep(SETTLE_S)
                windows.append(_window(meter, busy, window_s))
    factor, low, high = ratio(windows)
    return Calibration(factor, low, high, first.totals["counters"].coverage, tuple(windows))


def ratio(windows: Sequence[Window]) -> tuple[float, float, float]:
    """The ratio of the sums, and the 95 % interval of the percentile bootstrap over the windows."""

    def of(some: Sequence[Window]) -> float:
        return sum(w.wall_w * w.duration_s for w in some) / sum(w.source_w * w.duration_s for w in some)

    chance = random.Random(SEED)
    drawn = sorted(of(chance.choices(windows, k=len(windows))) for _ in range(RESAMPLES))
    return of(windows), drawn[int(0.025 * RESAMPLES)], drawn[int(0.975 * RESAMPLES)]


def _window(meter: Meter, busy: int, window_s: float) -> Window:
    meter.cut()
    meter.mark()
    begin_s = time.monotonic()
    time.sleep(window_s)
    end_s = time.monotonic()
    meter.mark()
    time.sleep(1.5)  # for a reading of the meter after the window's end
    accounts = Accounts(meter.cut())
    source, wall = (accounts.total(name, begin_s, end_s) for name in ("counters", "meter"))
    for name, energy in (("the counters", source), ("the meter", wall)):
        if energy.joules is None:
            raise MachineError(f"{name} told nothing for a window of {window_s:g} s: {energy.detail}")
    assert source.joules is not None
    assert wall.joules is not None
    duration_s = end_s - begin_s
    if source.joules <= 0:
        raise MachineError("the counters stood still: they don't count on this machine")
    return Window(busy, duration_s, source.joules / duration_s, wall.joules / duration_s)


@contextmanager
def _busy(cores: int) -> Iterator[None]:
    """Keep this many cores at work."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_spin, args=(os.getpid(),), daemon=True) for _ in range(cores)]
    try:
        for process in processes:
            process.start()
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def _spin(parent: int) -> None:
    number = 1.0
    while os.getppid() == parent:
        for _ in range(100_000):
            number = (number * 1.000001) % 1e9
