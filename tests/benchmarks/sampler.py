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


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--minutes", type=float, default=0.5)
    options.add_argument("--window-s", type=float, default=10.0)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        zones = tree(Path(folder), TWO_PACKAGES)
        began = time.monotonic()
        ended = threading.Event()

        def drive() -> None:
            while not ended.wait(UPDATE_S):
                now = energy_j(time.monotonic() - began)
                for zone in zones.values():
                    zone.set_j(now)

        threading.Thread(target=drive, daemon=True).start()
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1e6)"])
        sampler = Sampler({name: zone.energy for name, zone in zones.items()}, {}, nvml=False)
        try:
            return measure(sampler, sleeper.pid, began, given.minutes * 60, given.window_s)
        finally:
            ended.set()
            sampler.stop()
            sleeper.kill()


def measure(sampler: Sampler, sleeper: int, began: float, duration_s: float, window_s: float) -> int:
    sampler.watch(sandbox=None, own=[os.getpid()], engine=[os.getppid()], harness=[os.getpid()])
    time.sleep(1)
    sampler.take()
    sizes, errors = [], []
    start, start_cpu = time.monotonic(), cpu_s(sampler.pid)
    rows = 0
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
        rows += len(group.times_s)
        column = group.columns["intel-rapl:0"]
        values = [None if value is None else value / 1e6 for value in column]
        amount = Curve(COUNTER, Readings(group.times_s, values)).energy(begin, end)
        expected = energy_j(end - began) - energy_j(begin - began)
        if amount.joules is None or amount.low is None or amount.high is None:
            print(f"a window has no figure: {amount.gap}")
            return 1
        errors.append(amount.joules / expected - 1)
        if not amount.low <= expected <= amount.high:
            print(f"bounds miss the truth: {amount.low:.2f} <= {expected:.2f} <= {amount.high:.2f}")
            return 1
    elapsed = time.monotonic() - start
    share = (cpu_s(sampler.pid) - start_cpu) / elapsed
    quarter = max(1, len(sizes) // 4)
    first, last = max(sizes[:quarter]), max(sizes[-quarter:])
    print(f"{len(sizes)} windows of {window_s:g} s in {elapsed / 60:.1f} min, {rows / elapsed:.2f} readings a second")
    print(f"CPU         {share:.3%} of a core (limit 1 %)")
    idle_mb = resident_kb(sleeper) / 1024
    print(f"memory      {max(sizes) / 1024:.1f} MB (limit 30); a Python that sleeps: {idle_mb:.1f} MB")
    print(f"growth      {last / first - 1:+.2%} (highest of the last quarter to that of the first)")
    half = len(errors) // 2 or 1
    drift = sum(errors[half:]) / max(1, len(errors) - half) - sum(errors[:half]) / half
    worst = max(map(abs, errors))
    print(f"joules      off by at most {worst:.4%}, mean {sum(errors) / len(errors):+.5%}, drift {drift:+.5%}")
    good = share < 0.01 and max(sizes) < 30 * 1024 and worst < 0.005 and last < 1.05 * first
    print("within the limits" if good else "OUTSIDE the limits")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
