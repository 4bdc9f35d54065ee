"""Energy of a run's agent stage, in a first honest version: CodeCarbon for the whole machine, one tracker a sweep.

CodeCarbon measures where the machine has counters and estimates where it has none. Which of the two a figure
is, and whether a constant makes up most of it, is stored with the figure.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Any, Literal

JOULES_PER_KWH = 3.6e6

Kind = Literal["measured", "estimated", "estimated_constant", "unavailable"]

# CodeCarbon's names of the way it knows the CPU's power.
CPU_KINDS: dict[str, Kind] = {
    "intel_rapl": "measured",
    "intel_power_gadget": "measured",
    "apple_powermetrics": "measured",
    "windows_emi": "measured",
    "cpu_load": "estimated",  # a curve from load to a share of the processor's rated power
    "constant": "estimated_constant",
}


@dataclass(frozen=True)
class Energy:
    """One figure. `joules` is None exactly when the kind is unavailable."""

    source: str
    component: str  # cpu, ram, gpu or total
    joules: float | None
    kind: Kind
    coverage: str
    layer: str = "gross"
    phase: str = "agent"


def unavailable() -> list[Energy]:
    """What is stored where nothing can tell: that it is unknown."""
    return [Energy("codecarbon", "total", None, "unavailable", "none")]


class EnergyMeter:
    """A tracker for a sweep, with a window for each run. Only one window is open at a time."""

    def __init__(self) -> None:
        self._tracker: Any = None
        self._cpu_kind: Kind = "estimated"
        self._gpus = 0
        self._starter = threading.Thread(target=self._start, name="energy")
        self._error: str | None = None
        self._starter.start()  # it takes seconds, and the engine needs them as well

    def _start(self) -> None:
        try:
            from codecarbon import OfflineEmissionsTracker
        except ImportError:
            self._error = "codecarbon is not installed (pip install 'agent-energy-harness[energy]')"
            return
        logging.getLogger("codecarbon").disabled = True  # it speaks before it reads its log level
        try:
            # The country only decides grams of CO2, which are not used here; without one it asks the internet.
            self._tracker = OfflineEmissionsTracker(
                country_iso_code="USA",
                tracking_mode="machine",
                measure_power_secs=1,
                save_to_file=False,
                log_level="critical",
                allow_multiple_runs=True,
            )
            self._tracker.start()
            self._cpu_kind = "estimated"
            for part in self._tracker._hardware:  # it has no public word for the way it knows the CPU's power
                if type(part).__name__ == "CPU":
                    self._cpu_kind = CPU_KINDS.get(str(part._mode), "estimated")
            self._gpus = int(self._tracker.get_detected_hardware().get("gpu_count") or 0)
        except Exception as error:  # noqa: BLE001 - a foreign library; the sweep goes on and says so
            self._tracker, self._error = None, f"codecarbon could not start: {error}"

    @property
    def problem(self) -> str | None:
        """Why there are no figures, or None."""
        self._starter.join()
        return self._error

    def open(self, name: str) -> None:
        """Begin the window of a run."""
        self._starter.join()
        if self._tracker is not None:
            try:
                self._tracker.start_task(name)
            except Exception as error:  # noqa: BLE001 - a foreign library; the run goes on and says so
                self._tracker, self._error = None, f"codecarbon failed: {error}"

    def close(self, name: str) -> list[Energy]:
        """End the window and return its figures."""
        if self._tracker is None:
            return unavailable()
        try:
            data = self._tracker.stop_task(name)
        except Exception as error:  # noqa: BLE001
            self._error = f"codecarbon failed: {error}"
            return unavailable()
        if data is None:
            return unavailable()
        return figures(
            cpu_j=data.cpu_energy * JOULES_PER_KWH,
            ram_j=data.ram_energy * JOULES_PER_KWH,
            gpu_j=data.gpu_energy * JOULES_PER_KWH if self._gpus else None,
            cpu_kind=self._cpu_kind,
        )

    def stop(self) -> None:
        """End the tracker. Safe to call twice."""
        self._starter.join()
        if self._tracker is not None:
            self._tracker.stop()
            self._tracker = None


def figures(*, cpu_j: float, ram_j: float, gpu_j: float | None, cpu_kind: Kind) -> list[Energy]:
    """A window's components and their total, each with its kind.

    CodeCarbon's memory is a constant number of watts. Where constants supply over half of the total, the total
    is a clock and says so.
    """
    parts: list[tuple[str, float, Kind]] = [("cpu", cpu_j, cpu_kind), ("ram", ram_j, "estimated_constant")]
    rows = []
    if gpu_j is not None:
        parts.append(("gpu", gpu_j, "measured"))
    else:
        rows.append(Energy("codecarbon", "gpu", None, "unavailable", "gpu"))
    total = sum(joules for _, joules, _ in parts)
    constant = sum(joules for _, joules, kind in parts if kind == "estimated_constant")
    kinds = {kind for _, _, kind in parts}
    total_kind: Kind = "estimated"
    if constant > total / 2:
        total_kind = "estimated_constant"
    elif kinds == {"measured"}:
        total_kind = "measured"
    rows += [Energy("codecarbon", name, joules, kind, name) for name, joules, kind in parts]
    rows.append(Energy("codecarbon", "total", total, total_kind, "+".join(name for name, _, _ in parts)))
    return rows
