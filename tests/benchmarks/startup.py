"""How long `harness --help` takes over the bare interpreter. Exit code 1 when it is more than issue 2 allows.

Both are started in turns; each start of the one is compared with the start of the other beside it, and the median
of these differences decides. On failure the slowest imports are listed.

    python tests/benchmarks/startup.py [--pairs 15]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

LIMIT_S = 0.3
HELP = [sys.executable, "-m", "harness", "--help"]
BARE = [sys.executable, "-c", "pass"]
SLOWEST = 12


def timed(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def measure(pairs: int) -> tuple[list[float], list[float]]:
    """Seconds of the help and of the bare interpreter, pair by pair; each goes first in every other pair."""
    timed(HELP), timed(BARE)  # bytecode and the page cache
    helps, bares = [], []
    for number in range(pairs):
        if number % 2:
            helps.append(timed(HELP))
            bares.append(timed(BARE))
        else:
            bares.append(timed(BARE))
            helps.append(timed(HELP))
    return helps, bares


def slowest_imports() -> list[tuple[float, str]]:
    """(cumulative milliseconds, module), the slowest first."""
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", *HELP[1:]], capture_output=True, text=True, check=True
    ).stderr
    found = []
    for line in shown.splitlines():
        fields = line.removeprefix("import time:").split("|")
        if len(fields) == 3 and fields[1].strip().isdigit():
            found.append((int(fields[1]) / 1e3, fields[2].strip()))
    return sorted(found, reverse=True)[:SLOWEST]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    helps, bares = measure(parser.parse_args().pairs)
    differences = [of_help - bare for of_help, bare in zip(helps, bares, strict=True)]
    added_s = statistics.median(differences)
    print(f"{len(helps)} pairs; load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'seconds':<18}{'median':>8}{'least':>8}{'most':>8}")
    for name, seconds in (("harness --help", helps), ("python -c pass", bares), ("difference", differences)):
        print(f"{name:<18}{statistics.median(seconds):8.3f}{min(seconds):8.3f}{max(seconds):8.3f}")
    passed = added_s <= LIMIT_S
    print(f"{'PASS' if passed else 'FAIL'} startup: {added_s:.3f} s added at the median, at most {LIMIT_S} s")
    if not passed:
        print("slowest imports, cumulative:")
        for milliseconds, module in slowest_imports():
            print(f"  {milliseconds:7.1f} ms  {module}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
