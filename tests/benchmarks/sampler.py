"""What the sampler costs (under 1 % of a core, under 30 MB) and that it neither grows nor drifts.

    python tests/benchmarks/sampler.py [--minutes 0.5] [--window-s 10]

It reads a stand-in powercap tree whose watts this script sets, so its joules are known, and the machine's own CPU
times. The same Python that only sleeps is the baseline of its memory. Every window is taken as a run's would be.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from harness.meter.accounting import Curve
from harness.meter.readings import Instrument, Readings
from harness.meter.sampler import Sampler
from tests.meter.powercap_tree import TWO_PACKAGES, tree

UPDATE_S = 0.02
COUNTER = Instrument("rapl", "cpu", "counter", period_s=UPDATE_S, oldest_s=0.2, wraps_at_j=262_143.328850, most_w=1e4)


def energy_j(moment_s: float) -> float:
    """60 W that swing by 20 W, as an integral."""
    return 60 * moment_s + 20 * (1 - math.cos(moment_s))


def resident_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return 0


def cpu_s(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Soak:
    """What was seen. Sizes in kB at the end of each window, errors of its joules as shares."""

    sizes: list[int]
    errors: list[float]
    cpu_share: float  # of one core
    elapsed_s: float
    readings: int
    idle_kb: int  # of a Python that sleeps

    @property
    def growth(self) -> float:
        """The highest of the last quarter to that of the first."""
        quarter = max(1, len(self.sizes) // 4)
        return max(self.sizes[-quarter:]) / max(self.sizes[:quarter]) - 1

    @property
    def worst(self) -> float:
        return max(map(abs, self.errors))

    @property
    def drift(self) -> float:
        """The mean error of the later half less that of the earlier one."""
        half = len(self.errors) // 2 or 1
        return sum(self.errors[half:]) / max(1, len(self.errors) - half) - sum(self.errors[:half]) / half


def soak(duration_s: float, window_s: float) -> Soak:
    """Sample for so long. Raises AssertionError for a window without a figure, or with bounds that miss the truth."""
    with tempfile.TemporaryDirectory() as folder:
        zones = tree(Path(folder), TWO_PACKAGES)
        began = time.monotonic()
        ended = threading.Event()

        def drive() -> None:
            while not ended.wait(UPDATE_S):
                now = energy_j(time.monotonic() - began)
                for zone in zones.values():
                    zone.set_j(now)

        driver = threading.Thread(target=drive)
        driver.start()
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1e6)"])
        sampler = Sampler({name: zone.energy for name, zone in zones.items()}, {}, nvml=False)
        try:
            return measure(sampler, sleeper.pid, began, duration_s, window_s)
        finally:
            ended.set()
            driver.join()
            sampler.stop()
            sleeper.kill()
            sleeper.wait()


def measure(sampler: Sampler, sleeper: int, began: float, duration_s: float, window_s: float) -> Soak:
    sampler.watch(sandbox=None, own=[os.getpid()], engine=[os.getppid()], harness=[os.getpid()])
    time.sleep(1)
    sampler.take()
    sizes, errors = [], []
    start, start_cpu = time.monotonic(), cpu_s(sampler.pid)
    readings = 0
    while time.monotonic() - start < duration_s:
        time.sleep(0.6)
        begin = time.monotonic()
        sampler.mark()
        time.sleep(window_s)
        end = time.monotonic()
        sampler.mark()
        time.sleep(0.6)
        sizes.append(resident_kb(sampler.pid))
        group = sampler.take().groups["rapl"]
        readings += len(group.times_s)
        values = [None if value is None else value / 1e6 for value in group.columns["intel-rapl:0"]]
        amount = Curve(COUNTER, Readings(group.times_s, values)).energy(begin, end)
        expected = energy_j(end - began) - energy_j(begin - began)
        assert amount.joules is not None, amount.gap
        assert (amount.low or 0) <= expected <= (amount.high or 0), amount
        errors.append(amount.joules / expected - 1)
    elapsed = time.monotonic() - start
    share = (cpu_s(sampler.pid) - start_cpu) / elapsed
    return Soak(sizes, errors, share, elapsed, readings, resident_kb(sleeper))


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--minutes", type=float, default=0.5)
    options.add_argument("--window-s", type=float, default=10.0)
    given = options.parse_args()
    seen = soak(given.minutes * 60, given.window_s)
    windows = f"{len(seen.sizes)} windows of {given.window_s:g} s in {seen.elapsed_s / 60:.1f} min"
    print(f"{windows}, {seen.readings / seen.elapsed_s:.2f} readings a second")
    print(f"CPU         {seen.cpu_share:.3%} of a core (limit 1 %)")
    idle_mb = seen.idle_kb / 1024
    print(f"memory      {max(seen.sizes) / 1024:.1f} MB (limit 30); a Python that sleeps: {idle_mb:.1f} MB")
    print(f"growth      {seen.growth:+.2%} (highest of the last quarter to that of the first)")
    mean = sum(seen.errors) / len(seen.errors)
    print(f"joules      off by at most {seen.worst:.4%}, mean {mean:+.5%}, drift {seen.drift:+.5%}")
    good = seen.cpu_share < 0.01 and max(seen.sizes) < 30 * 1024 and seen.worst < 0.005 and seen.growth < 0.05
    print("within the limits" if good else "OUTSIDE the limits")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
