"""Watching a model server's processes from outside."""

from __future__ import annotations

import time
from collections.abc import Sequence

import psutil

IDLE_CORES = 0.2
"""Below this much CPU nothing is generated: a server that decodes keeps a core busy, on a GPU too."""


def busy_cores(processes: Sequence[psutil.Process], interval_s: float = 0.1) -> float:
    """Cores' worth of CPU that these processes use together, measured over the interval."""
    before, began = _cpu_s(processes), time.monotonic()
    time.sleep(interval_s)
    return max(0.0, _cpu_s(processes) - before) / (time.monotonic() - began)


def _cpu_s(processes: Sequence[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total
