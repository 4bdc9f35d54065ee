"""A budget of energy on a stand-in powercap tree that draws constant power."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.meter.budget import EnergyBudget, check_budget, joules_of
from harness.meter.meter import Meter
from tests.meter.powercap_tree import tree

WATTS = 50.0


@pytest.fixture
def meter(tmp_path: Path) -> Iterator[Meter]:
    zones = tree(tmp_path / "powercap", {"intel-rapl:0": "package-0"})
    ended = threading.Event()
    began = time.monotonic()

    def drive() -> None:
        while not ended.wait(0.003):
            zones["intel-rapl:0"].set_j(WATTS * (time.monotonic() - began))

    thread = threading.Thread(target=drive)
    thread.start()
    instruments = Meter(powercap_root=tmp_path / "powercap", codecarbon=False)
    time.sleep(0.5)
    yield instruments
    instruments.stop()
    ended.set()
    thread.join()


def test_a_budget_is_used_up_when_the_counters_say_so(meter: Meter) -> None:
    check_budget(meter, 1)
    budget = EnergyBudget(meter, 150.0)
    began = time.monotonic()
    said = None
    while said is None and time.monotonic() - began < 20:
        said = budget.exceeded()
        time.sleep(0.02)
    took_s = time.monotonic() - began
    assert said is not None
    assert said.startswith("the limit of 150 J was reached: ")
    assert "an estimate" not in said
    assert 2.5 < took_s < 150 / WATTS + 3


def test_looking_takes_nothing_from_what_a_cut_finds(meter: Meter) -> None:
    meter.cut()
    before = meter.whole()["rapl", "package-0"].joules
    begin_s = time.monotonic()
    for _ in range(8):
        time.sleep(0.3)
        meter.look()
    end_s = time.monotonic()
    time.sleep(0.3)
    recording = meter.cut()
    found = recording.curves["rapl", "package-0"].energy(begin_s, end_s).joules
    assert found == pytest.approx(WATTS * (end_s - begin_s), rel=0.03)
    whole = meter.whole()["rapl", "package-0"].joules
    assert before is not None
    assert whole is not None
    assert whole - before == pytest.approx(WATTS * (time.monotonic() - begin_s), rel=0.15)
    times = recording.raw["rapl", "package-0"].times_s
    assert len(times) == len(set(times))


@pytest.mark.parametrize(
    ("text", "joules"), [("500J", 500.0), ("50kJ", 5e4), ("1.5 MJ", 1.5e6), ("2Wh", 7200.0), ("0.5kWh", 1.8e6)]
)
def test_energies_as_people_write_them(text: str, joules: float) -> None:
    assert joules_of(text) == joules


@pytest.mark.parametrize("text", ["", "50", "0J", "-3J", "50 kj", "kJ", "1e3J", "5W"])
def test_what_is_no_energy(text: str) -> None:
    with pytest.raises(UserError, match="as 50kJ"):
        joules_of(text)


def test_an_energy_that_is_a_clock_is_no_budget(tmp_path: Path) -> None:
    instruments = Meter(powercap_root=tmp_path)
    try:
        with pytest.raises(UserError, match="would be a time limit"):
            check_budget(instruments, 1)
    finally:
        instruments.stop()


def test_without_any_source_and_with_slots_there_is_no_budget(tmp_path: Path) -> None:
    instruments = Meter(powercap_root=tmp_path, codecarbon=False)
    try:
        with pytest.raises(UserError, match="nothing here tells energy"):
            check_budget(instruments, 1)
        with pytest.raises(UserError, match="--slots"):
            check_budget(instruments, 2)
    finally:
        instruments.stop()
