"""Counters that the package `zeus` reads: AMD's GPUs, Apple's chips and NVIDIA's Jetson boards; and on NVIDIA's GPUs a
cross-check. Zeus adds nothing where a counter is read already (see harness.meter.figures.totals)."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from harness.meter.readings import Instrument, Readings

INTERVAL_S = 0.487  # odd, as the sampler's
PERIOD_S = 0.1
OLDEST_S = 0.3
MOST_READINGS = 200_000

# Fields of zeus' measurement of a chip, in millijoules, and the component each stands for. The parts of the CPU are in
# `cpu_total_mj`; a Jetson's `total_energy_mj` holds the others and stands apart, as a board's counter does.
SOC_FIELDS = {
    "cpu_total_mj": "cpu",
    "cpu_energy_mj": "cpu",
    "gpu_mj": "gpu",
    "gpu_energy_mj": "gpu",
    "gpu_sram_mj": "gpu_sram",
    "dram_mj": "dram",
    "ane_mj": "ane",
    "total_energy_mj": "psys",
}

Reader = Callable[[], float]
"""Cumulative joules of one part; raises whatever zeus raises."""


@dataclass
class ZeusFound:
    """Readers by part, and the component of each. `problem` says why there is none."""

    readers: dict[str, Reader] = field(default_factory=dict)
    components: dict[str, str] = field(default_factory=dict)
    problem: str | None = None


def find() -> ZeusFound:
    """What zeus finds on this machine. Never raises."""
    if importlib.util.find_spec("zeus") is None:
        return ZeusFound(problem="zeus is not installed (pip install 'agent-energy-harness[zeus]')")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # libraries below it print what they miss
            from zeus.device import get_gpus, get_soc

            logging.getLogger("zeus").setLevel(logging.CRITICAL)
    except Exception as error:  # noqa: BLE001 - a foreign library; the sweep goes on and says so
        return ZeusFound(problem=f"zeus can't be used: {error}")
    found, problems = ZeusFound(), []
    for look, add in ((get_gpus, _add_gpus), (get_soc, _add_soc)):
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                add(found, look())
        except Exception as error:  # noqa: BLE001
            problems.append(str(error))
    if not found.readers:
        found.problem = "zeus: " + "; ".join(dict.fromkeys(problems))
    return found


def _add_gpus(found: ZeusFound, gpus: Any) -> None:
    def reader(number: int) -> Reader:
        return lambda: float(gpus.get_total_energy_consumption(number)) / 1000

    for number in range(len(gpus)):
        read = reader(number)
        read()  # a GPU without a counter says so now
        found.readers[f"gpu{number}"] = read
        found.components[f"gpu{number}"] = "gpu"


def _add_soc(found: ZeusFound, soc: Any) -> None:
    def reader(name: str) -> Reader:
        return lambda: float(getattr(soc.get_total_energy_consumption(), name)) / 1000

    for name in sorted(soc.get_available_metrics()):
        if name in SOC_FIELDS:
            unit = f"soc.{name.removesuffix('_mj')}"
            found.readers[unit] = reader(name)
            found.components[unit] = SOC_FIELDS[name]


class ZeusCounters:
    """Reads the counters that were found, in a thread of its own."""

    def __init__(self, found: ZeusFound) -> None:
        self._found = found
        self._lock = threading.Lock()
        self._read: dict[str, tuple[list[float], list[float | None]]] = {unit: ([], []) for unit in found.readers}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="zeus", daemon=True)

    @property
    def parts(self) -> list[str]:
        return list(self._found.readers)

    def instrument(self, part: str) -> Instrument:
        return Instrument("zeus", self._found.components[part], "counter", PERIOD_S, OLDEST_S)

    def start(self) -> None:
        self._thread.start()

    def take(self) -> dict[str, Readings]:
        """Cumulative joules of each part since the last time; None: it could not be read."""
        with self._lock:
            read, self._read = self._read, {unit: ([], []) for unit in self._found.readers}
        return {unit: Readings(times, values) for unit, (times, values) in read.items()}

    def stop(self) -> None:
        """End the reading. Safe to call twice."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def _run(self) -> None:
        while not self._ended.wait(INTERVAL_S):
            for unit, read in self._found.readers.items():
                joules: float | None
                try:
                    joules = read()
                except Exception:  # noqa: BLE001 - a reading that failed is a reading that failed
                    joules = None
                with self._lock:
                    times, values = self._read[unit]
                    if len(times) < MOST_READINGS:
                        times.append(time.monotonic())
                        values.append(joules)
