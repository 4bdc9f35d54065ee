"""CodeCarbon: the fallback where a machine has no counters, the cross-check where it has, and the grid's CO2.

One tracker in machine mode watches a sweep. Its running totals are taken once a second through its own output
interface, so that any window can be cut out of them, and what it really used to know the CPU's power is kept.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import threading
import time
from typing import Any

from harness.errors import MachineError, UserError
from harness.meter.energy import JOULES_PER_KWH, Kind
from harness.meter.readings import Instrument, Readings

PERIOD_S = 1.0

# CodeCarbon's names of the way it knows the CPU's power.
CPU_KINDS: dict[str, Kind] = {
    "intel_rapl": "measured",
    "intel_power_gadget": "measured",
    "apple_powermetrics": "measured",
    "windows_emi": "measured",
    "cpu_load": "estimated",  # a curve from load to a share of the processor's rated power
    "constant": "estimated_constant",
}

MISSING = "codecarbon is not installed (pip install 'agent-energy-harness[energy]')"


def import_quietly() -> None:
    """Import it with what the libraries below it print thrown away. For the main thread: all output goes there."""
    logging.getLogger("codecarbon").disabled = True
    with contextlib.suppress(ImportError), contextlib.redirect_stdout(io.StringIO()):
        importlib.import_module("codecarbon")


class CodeCarbon:
    """A tracker. Its parts are cpu, ram (always a constant number of watts) and, where there are any, gpu."""

    def __init__(self) -> None:
        self.backend: str | None = None
        self.version: str | None = None
        self._kinds: dict[str, Kind] = {}
        self._tracker: Any = None
        self._problem: str | None = None
        self._lock = threading.Lock()
        self._times: list[float] = []
        self._totals: dict[str, list[float]] = {}
        # It takes seconds, and the engine needs them as well.
        self._starter = threading.Thread(target=self._start, name="codecarbon", daemon=True)
        self._starter.start()

    def _start(self) -> None:
        logging.getLogger("codecarbon").disabled = True  # it speaks before it reads its log level
        try:
            import codecarbon
            from codecarbon import OfflineEmissionsTracker
            from codecarbon.output_methods.base_output import BaseOutput
        except ImportError:
            self._problem = MISSING
            return
        note = self._note

        class Totals(BaseOutput):  # type: ignore[misc]
            def live_out(self, total: Any, delta: Any) -> None:
                note(total)

        try:
            # The country only decides grams of CO2, which are taken from its tables elsewhere; without one it asks the
            # internet.
            tracker = OfflineEmissionsTracker(
                country_iso_code="USA",
                tracking_mode="machine",
                measure_power_secs=PERIOD_S,
                api_call_interval=1,
                output_handlers=[Totals()],
                save_to_file=False,
                log_level="critical",
                allow_multiple_runs=True,
            )
            tracker.start()
            modes = [str(part._mode) for part in tracker._hardware if type(part).__name__ == "CPU"]
            gpus = int(tracker.get_detected_hardware().get("gpu_count") or 0)
        except Exception as error:  # noqa: BLE001 - a foreign library; the sweep goes on and says so
            self._problem = f"codecarbon could not start: {error}"
            return
        self.backend = modes[0] if modes else None  # it has no public word for this
        self.version = str(codecarbon.__version__)
        self._kinds = {"cpu": CPU_KINDS.get(self.backend or "", "estimated"), "ram": "estimated_constant"}
        if gpus:
            self._kinds["gpu"] = "measured"
        self._tracker = tracker

    @property
    def problem(self) -> str | None:
        """Why there are no figures, or None."""
        self._starter.join()
        return self._problem

    @property
    def kinds(self) -> dict[str, Kind]:
        """The kind of each part."""
        self._starter.join()
        return self._kinds

    def instrument(self, part: str) -> Instrument:
        return Instrument("codecarbon", part, "model", PERIOD_S)

    def take(self) -> dict[str, Readings]:
        """The running totals since the last time, in joules."""
        with self._lock:
            times, totals = self._times, self._totals
            self._times, self._totals = [], {}
        return {part: Readings(times, totals.get(part, [])) for part in self.kinds} if times else {}

    def stop(self) -> None:
        """End the tracker. Safe to call twice."""
        self._starter.join()
        tracker, self._tracker = self._tracker, None
        if tracker is not None:
            tracker.stop()

    def _note(self, total: Any) -> None:
        with self._lock:
            self._times.append(time.monotonic())
            for part in ("cpu", "ram", "gpu"):
                joules = float(getattr(total, f"{part}_energy")) * JOULES_PER_KWH
                self._totals.setdefault(part, []).append(joules)


def carbon_intensity(country: str) -> tuple[float, str]:
    """Grams of CO2 equivalent for each kWh of a country's grid, and where the number is from; offline.

    Raises UserError for a country that CodeCarbon's table does not have.
    """
    try:
        import codecarbon
        from codecarbon.input import DataSource
    except ImportError:
        raise MachineError(f"--country: {MISSING}") from None
    table = DataSource().get_global_energy_mix_data()
    row = table.get(country)
    if row is None or not row.get("carbon_intensity"):
        raise UserError(f"--country {country}: no such country is known: give its ISO 3166 code of three letters (DEU)")
    source = f"CodeCarbon {codecarbon.__version__}, energy mix of {row['country_name']}, {row['year']}"
    return float(row["carbon_intensity"]), source
