"""Counters through zeus, by objects that stand in for its own: no machine here has such chips."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

from harness.meter import zeus_counters
from harness.meter.figures import totals
from harness.meter.meter import Part
from harness.meter.zeus_counters import ZeusCounters, ZeusFound, find


class StandInGpus:
    """zeus' interface to several GPUs, in millijoules."""

    def __init__(self, *energies_mj: float, broken: bool = False) -> None:
        self.energies_mj = list(energies_mj)
        self.broken = broken

    def __len__(self) -> int:
        return len(self.energies_mj)

    def get_total_energy_consumption(self, gpu_index: int) -> float:
        if self.broken:
            raise RuntimeError("Total energy consumption is not supported on this AMD GPU.")
        return self.energies_mj[gpu_index]


@dataclass
class StandInMeasurement:
    cpu_total_mj: int | None = 4000
    gpu_mj: int | None = 3000
    dram_mj: int | None = 2000
    ane_mj: int | None = None
    efficiency_cores_mj: int = 1000


class StandInSoc:
    """zeus' interface to a chip."""

    def get_available_metrics(self) -> set[str]:
        return {"cpu_total_mj", "gpu_mj", "dram_mj", "efficiency_cores_mj"}

    def get_total_energy_consumption(self) -> StandInMeasurement:
        return StandInMeasurement()


def test_a_chips_parts_are_counted_once() -> None:
    found = ZeusFound()
    zeus_counters._add_soc(found, StandInSoc())
    assert found.components == {"soc.cpu_total": "cpu", "soc.dram": "dram", "soc.gpu": "gpu"}  # cores are in the CPU's
    assert {unit: read() for unit, read in found.readers.items()} == {
        "soc.cpu_total": 4.0, "soc.dram": 2.0, "soc.gpu": 3.0,
    }  # fmt: skip


def test_gpus_are_read_in_joules_and_a_failure_is_a_reading_that_failed() -> None:
    gpus = StandInGpus(5000, 7000)
    found = ZeusFound()
    zeus_counters._add_gpus(found, gpus)
    counters = ZeusCounters(found)
    counters.start()
    try:
        time.sleep(1.2)
        gpus.broken = True
        time.sleep(0.7)
        said = counters.take()
    finally:
        counters.stop()
        counters.stop()
    assert said["gpu0"].values[0] == 5.0
    assert said["gpu1"].values[0] == 7.0
    assert said["gpu0"].values[-1] is None
    assert counters.instrument("gpu1").component == "gpu"


def test_a_gpu_without_a_counter_is_none() -> None:
    with pytest.raises(RuntimeError, match="not supported"):
        zeus_counters._add_gpus(ZeusFound(), StandInGpus(1, broken=True))


def test_what_is_counted_already_is_only_a_cross_check() -> None:
    found = ZeusFound()
    zeus_counters._add_soc(found, StandInSoc())
    counters = ZeusCounters(found)
    from tests.meter.test_figures import GPUS, PACKAGES

    ours = [Part(counters.instrument(unit), "measured", unit) for unit in counters.parts]
    alone = {(part.instrument.source, part.unit): part for part in ours}
    beside = {(part.instrument.source, part.unit): part for part in [*PACKAGES, *GPUS, *ours]}
    assert totals(alone)["counters"].coverage == "cpu+dram+gpu"
    assert not any(key[0] == "zeus" for key in totals(beside)["counters"].keys)


def test_this_machine_has_counters_of_zeus_or_a_reason() -> None:
    found = find()
    assert bool(found.readers) != bool(found.problem)
