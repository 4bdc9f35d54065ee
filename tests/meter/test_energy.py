"""The kind of an energy figure is part of it."""

from __future__ import annotations

import time

import pytest

from harness.meter.energy import Energy, EnergyMeter, figures


def total(rows: list[Energy]) -> Energy:
    return next(row for row in rows if row.component == "total")


def test_a_total_that_is_mostly_a_constant_is_called_one() -> None:
    row = total(figures(cpu_j=10, ram_j=20, gpu_j=None, cpu_kind="estimated"))
    assert (row.joules, row.kind, row.coverage) == (30, "estimated_constant", "cpu+ram")


def test_a_measured_processor_beside_constant_memory_is_an_estimate() -> None:
    assert total(figures(cpu_j=60, ram_j=20, gpu_j=None, cpu_kind="measured")).kind == "estimated"
    assert total(figures(cpu_j=60, ram_j=20, gpu_j=100, cpu_kind="measured")).coverage == "cpu+ram+gpu"


def test_a_constant_processor_counts_as_a_constant() -> None:
    assert total(figures(cpu_j=30, ram_j=5, gpu_j=20, cpu_kind="estimated_constant")).kind == "estimated_constant"


def test_without_a_gpu_its_energy_is_unknown_and_not_zero() -> None:
    gpu = next(r for r in figures(cpu_j=1, ram_j=1, gpu_j=None, cpu_kind="estimated") if r.component == "gpu")
    assert (gpu.joules, gpu.kind) == (None, "unavailable")


def test_a_real_window_grows_with_its_length() -> None:
    pytest.importorskip("codecarbon", reason="codecarbon is not installed")
    meter = EnergyMeter()
    try:
        assert meter.problem is None
        joules = []
        for seconds in (0.3, 1.5):
            meter.open(f"w{seconds}")
            time.sleep(seconds)
            joules.append(total(meter.close(f"w{seconds}")).joules)
    finally:
        meter.stop()
    assert joules[0] is not None
    assert joules[1] is not None
    assert 0 < joules[0] < joules[1]
