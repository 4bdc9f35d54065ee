"""The factor from counters to the wall, on a stand-in powercap tree and a meter command that a test drives."""

from __future__ import annotations

import random
import sys
import threading
import time
from pathlib import Path

import pytest

from harness import calibrate
from harness.calibrate import Window, ratio
from harness.errors import MachineError
from harness.meter.external import ExternalMeter
from harness.meter.meter import Meter
from tests.meter.powercap_tree import tree


def test_the_interval_of_the_ratio_holds_the_truth_as_often_as_it_says() -> None:
    chance = random.Random(2)
    held = 0
    for _ in range(60):
        windows = []
        for busy in (0, 1, 2) * 5:
            source_w = 20 + 30 * busy
            windows.append(Window(busy, 20.0, source_w, source_w * chance.gauss(1.25, 0.05)))
        factor, low, high = ratio(windows)
        assert low <= factor <= high
        held += low <= 1.25 <= high
    assert held >= 50  # of 60; 57 are to be expected, and a bootstrap of 15 windows is a little too narrow


def test_a_machine_is_calibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "ROUNDS", 1)
    monkeypatch.setattr(calibrate, "SETTLE_S", 0.3)
    zones = tree(tmp_path, {"intel-rapl:0": "package-0"})
    ended, began = threading.Event(), time.monotonic()

    def drive() -> None:
        while not ended.wait(0.003):
            zones["intel-rapl:0"].set_j(40.0 * (time.monotonic() - began))

    thread = threading.Thread(target=drive)
    thread.start()
    command = f"command:{sys.executable} -u -c 'import time\nwhile True: print(52.0); time.sleep(0.3)'"
    meter = Meter(ExternalMeter(command), powercap_root=tmp_path, codecarbon=False)
    said: list[str] = []
    try:
        time.sleep(0.7)
        found = calibrate.calibrate(meter, 2.5, said.append, cores=2)
    finally:
        meter.stop()
        ended.set()
        thread.join()
    assert found.factor == pytest.approx(1.3, rel=0.02)
    assert found.low <= found.factor <= found.high
    assert sorted(window.busy_cores for window in found.windows) == [0, 1, 2]
    assert found.coverage == "cpu"
    assert len(said) == 3


def test_without_counters_there_is_nothing_to_calibrate(tmp_path: Path) -> None:
    meter = Meter(ExternalMeter("command:echo 5"), powercap_root=tmp_path, codecarbon=False)
    try:
        with pytest.raises(MachineError, match=r"^there are no counters to calibrate: this machine shows no RAPL"):
            calibrate.calibrate(meter, 2.5, print)
    finally:
        meter.stop()
