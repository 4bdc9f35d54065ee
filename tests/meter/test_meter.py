"""All instruments together: a stand-in powercap tree, a real meter command, the real sampler and CodeCarbon."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import MachineError
from harness.experiment import check_required, describe
from harness.meter.external import ExternalMeter
from harness.meter.figures import Accounts
from harness.meter.meter import Meter
from tests.meter.powercap_tree import TWO_PACKAGES, StandInZone, tree

WATTS = {"intel-rapl:0": 30.0, "intel-rapl:0:0": 20.0, "intel-rapl:0:2": 4.0, "intel-rapl:1": 10.0,
         "intel-rapl:1:1": 2.0, "intel-rapl:2": 60.0, "intel-rapl-mmio:0": 30.0}  # fmt: skip


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[Path]:
    """A tree whose zones draw constant power."""
    zones = tree(tmp_path / "powercap", TWO_PACKAGES)
    ended = threading.Event()
    began = time.monotonic()

    def drive() -> None:
        while not ended.wait(0.002):
            for name, watts in WATTS.items():
                zones[name].set_j(watts * (time.monotonic() - began))

    thread = threading.Thread(target=drive)
    thread.start()
    yield tmp_path / "powercap"
    ended.set()
    thread.join()


def watch(meter: Meter, seconds: float) -> tuple[Accounts, float, float]:
    meter.mark()
    begin = time.monotonic()
    time.sleep(seconds)
    end = time.monotonic()
    meter.mark()
    time.sleep(1.2)
    return Accounts(meter.cut()), begin, end


def test_the_counters_of_a_machine_with_two_packages(counting: Path) -> None:
    meter = Meter(powercap_root=counting, codecarbon=False)
    try:
        time.sleep(0.3)
        accounts, begin, end = watch(meter, 3.0)
        total = accounts.total("counters", begin, end)
        assert (accounts.headline, total.kind, total.coverage) == ("counters", "measured", "cpu+dram")
        assert total.joules == pytest.approx(46 * (end - begin), rel=0.02)
        assert accounts.totals["counters"].keys == (
            ("rapl", "package-0"), ("rapl", "package-0/dram"), ("rapl", "package-1"), ("rapl", "package-1/dram"),
        )  # fmt: skip
        # A second cut goes on where the first ended, and the session's total has both.
        accounts, begin, end = watch(meter, 2.5)
        assert accounts.total("counters", begin, end).joules == pytest.approx(46 * (end - begin), rel=0.02)
        whole = meter.whole()["rapl", "package-0"].joules
        assert whole is not None
        assert whole > 30 * (3.0 + 1.2 + 2.5)
        check_required(meter)
        assert describe(meter)[0] == "energy: counters, covers cpu+dram: cpu measured, dram measured"
    finally:
        meter.stop()
        meter.stop()


def test_an_external_meter_is_the_widest(counting: Path) -> None:
    external = ExternalMeter(f"command:{sys.executable} -u -c 'import time\nwhile True: print(75.5); time.sleep(0.5)'")
    meter = Meter(external, powercap_root=counting, codecarbon=False)
    try:
        time.sleep(1.0)
        accounts, begin, end = watch(meter, 3.0)
        assert accounts.headline == "meter"
        total = accounts.total("meter", begin, end)
        assert (total.joules, total.coverage) == (pytest.approx(75.5 * (end - begin), rel=0.01), "wall")
        check_required(meter)
    finally:
        meter.stop()


def test_without_anything_that_measures_it_says_what_is_missing_and_refuses(tmp_path: Path) -> None:
    meter = Meter(powercap_root=tmp_path / "nothing")
    try:
        time.sleep(3)
        accounts, begin, end = watch(meter, 2.0)
        assert accounts.headline == "codecarbon"
        assert accounts.total("codecarbon", begin, end).kind in ("estimated", "estimated_constant")
        assert "rapl" in meter.sources()["problems"]
        assert any("no counters: this machine shows no RAPL counters" in line for line in describe(meter))
        with pytest.raises(MachineError, match=r"^--require measured: this machine shows no RAPL .*--meter"):
            check_required(meter)
    finally:
        meter.stop()


def test_counters_that_only_root_may_read_come_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    StandInZone(tmp_path / "intel-rapl:0", "package-0")
    monkeypatch.setattr("harness.meter.powercap.os.access", lambda *_: False)  # root may read whatever the mode says
    meter = Meter(powercap_root=tmp_path, codecarbon=False)
    try:
        with pytest.raises(
            MachineError, match=r"only root may read them .*; grant it .*sudo chmod a\+r /sys/class/powe"
        ):
            check_required(meter)
        assert any("grant: sudo chmod" in line for line in describe(meter)) or describe(meter)[0].startswith(
            "energy: unavailable"
        )
    finally:
        meter.stop()


def test_a_sampler_that_is_killed_takes_its_figures_with_it_and_nothing_else(counting: Path) -> None:
    meter = Meter(powercap_root=counting, codecarbon=False)
    try:
        assert meter._sampler is not None
        time.sleep(0.5)
        meter._sampler._process.kill()
        meter._sampler._process.wait()
        accounts, begin, end = watch(meter, 0.2)
        total = accounts.total("counters", begin, end)
        assert (total.joules, total.kind, total.detail) == (None, "unavailable", accounts.recording.lost)
        # Another one has begun: the next window is measured again.
        time.sleep(0.5)
        accounts, begin, end = watch(meter, 2.5)
        total = accounts.total("counters", begin, end)
        assert total.joules == pytest.approx(46 * (end - begin), rel=0.02)
    finally:
        meter.stop()
