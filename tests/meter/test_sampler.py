"""The real sampler process on counters that the test drives: a stand-in powercap tree, a stand-in NVML library."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness.meter import powercap
from harness.meter.figures import Accounts
from harness.meter.meter import Meter
from harness.meter.sampler import Sampler, SamplerLost
from tests.benchmarks.sampler import soak
from tests.meter.powercap_tree import StandInZone


@pytest.fixture
def zone(tmp_path: Path) -> StandInZone:
    return StandInZone(tmp_path / "intel-rapl:0", "package-0")


@pytest.fixture
def sampler(zone: StandInZone) -> Iterator[Sampler]:
    made = Sampler({"package-0": zone.energy}, {"heat": zone.energy.parent / "heat"}, nvml=False)
    yield made
    made.stop()


def test_it_reads_what_is_there_at_a_steady_pace(sampler: Sampler, zone: StandInZone) -> None:
    zone.set_j(12.5)
    sampler.take()
    began = time.monotonic()
    time.sleep(1.0)
    group = sampler.take().groups["rapl"]
    assert set(group.columns["package-0"]) == {12_500_000}
    assert 8 <= len(group.times_s) <= 12
    assert began - 0.1 <= group.times_s[0] <= group.times_s[-1] <= time.monotonic()
    assert group.times_s == sorted(group.times_s)


def test_an_edge_is_read_at_once(sampler: Sampler, zone: StandInZone) -> None:
    sampler.take()
    zone.set_j(1.0)
    before = time.monotonic()
    sampler.mark()
    group = sampler.take().groups["rapl"]
    assert (group.columns["package-0"][-1], len(group.times_s) >= 1) == (1_000_000, True)
    assert group.times_s[-1] >= before


def test_readings_are_handed_over_once(sampler: Sampler) -> None:
    time.sleep(0.3)
    first, second = sampler.take().groups["cpu"], sampler.take().groups["cpu"]
    assert first.times_s
    assert not set(first.times_s) & set(second.times_s)


def test_a_counter_that_vanishes_is_unknown_and_found_again(sampler: Sampler, zone: StandInZone) -> None:
    zone.set_j(3.0)
    sampler.take()
    zone.energy.write_text("")  # as sysfs: the open file tells nothing any more
    time.sleep(0.3)
    zone.energy.unlink()
    time.sleep(0.3)
    assert sampler.take().groups["rapl"].columns["package-0"][-1] is None
    zone.set_j(4.0)
    time.sleep(0.3)
    assert sampler.take().groups["rapl"].columns["package-0"][-1] == 4_000_000


def test_garbage_is_unknown(sampler: Sampler, zone: StandInZone) -> None:
    sampler.take()
    zone.energy.write_text("no number")
    time.sleep(0.3)
    assert None in sampler.take().groups["rapl"].columns["package-0"]


def test_what_changes_slowly_is_read_once_a_second(sampler: Sampler, zone: StandInZone) -> None:
    (zone.energy.parent / "heat").write_text("41000\n")
    sampler.take()
    time.sleep(2.3)
    said = sampler.take().groups["slow"].columns["heat"]
    assert said[-1] == 41000
    assert len(said) in (2, 3)


def test_the_cpu_time_of_a_busy_process_is_seen(sampler: Sampler, tmp_path: Path) -> None:
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        (tmp_path / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
        sampler.watch(sandbox=tmp_path / "cpu.stat", own=[busy.pid], engine=(), harness=[os.getpid()])
        sampler.take()
        time.sleep(1.5)
        busy.kill()
        busy.wait()
        time.sleep(0.2)
        columns = sampler.take().groups["cpu"].columns
    finally:
        busy.kill()
    own = [value for value in columns["own"] if value is not None]
    machine = [value for value in columns["machine"] if value is not None]
    assert 0.5e9 < own[-1] - own[0] < 2e9  # of 1.5 seconds on a machine with other work
    assert own == sorted(own)  # a process that ended keeps what it used
    assert machine[-1] - machine[0] >= 0.9 * (own[-1] - own[0])
    assert set(columns["sandbox"]) == {2_500_000_000}
    assert set(columns["engine"]) == {None}


def test_a_group_of_version_1_tells_nanoseconds(sampler: Sampler, tmp_path: Path) -> None:
    (tmp_path / "cpuacct.usage").write_text("77\n")
    sampler.watch(sandbox=tmp_path / "cpuacct.usage", own=(), engine=(), harness=())
    time.sleep(0.2)
    assert sampler.take().groups["cpu"].columns["sandbox"][-1] == 77


def test_a_sampler_that_was_killed_is_lost_and_nobody_waits_for_it(sampler: Sampler) -> None:
    os.kill(sampler.pid, signal.SIGKILL)
    time.sleep(0.2)
    began = time.monotonic()
    sampler.mark()
    sampler.watch(sandbox=None, own=(), engine=(), harness=())
    with pytest.raises(SamplerLost):
        sampler.take()
    assert time.monotonic() - began < 1


def test_it_dies_with_a_harness_that_was_killed(zone: StandInZone) -> None:
    program = (
        "import time\nfrom pathlib import Path\nfrom harness.meter.sampler import Sampler\n"
        f"s = Sampler({{'p': Path({str(zone.energy)!r})}}, {{}}, nvml=False)\nprint(s.pid, flush=True)\ntime.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"


def test_sampling_neither_grows_nor_drifts() -> None:
    """A short cut of the soak of two hours: python tests/benchmarks/sampler.py --minutes 120 --window-s 60."""
    seen = soak(duration_s=20, window_s=4)
    assert len(seen.sizes) >= 4
    assert seen.growth < 0.05
    assert seen.worst < 0.02  # on a busy machine the thread that drives the counter is late by itself
    assert abs(seen.drift) < 0.01


def test_without_nvidias_library_it_says_so() -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has an NVIDIA GPU")
    made = Sampler({}, {})
    try:
        assert made.gpus == []
        assert made.gpu_problem == "there is no NVIDIA driver here (libnvidia-ml.so.1 can't be loaded)"
    finally:
        made.stop()


class StandInGpus:
    """GPUs of the stand-in library; each file of the folder is one fact."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.env = os.environ | {"STAND_IN_NVML": str(folder), "LD_LIBRARY_PATH": str(library)}

    def set(self, gpu: int, **facts: int | str) -> None:
        for name, value in facts.items():
            new = self.folder / f"new.{name}"
            new.write_text(f"{value}\n" if value != "" else "")
            new.rename(self.folder / f"gpu{gpu}.{name}")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler (cc) for the stand-in NVML library")
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_name("nvml_stand_in.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", source], check=True)
    return folder


@pytest.fixture
def gpus(tmp_path: Path, library: Path) -> StandInGpus:
    return StandInGpus(tmp_path / "gpus", library)


def test_gpus_with_and_without_a_counter(gpus: StandInGpus) -> None:
    gpus.set(
        0, name=1, energy_mj=1000, limit_mw=250_000, temperature_c=55, throttle_reasons=4, clock_mhz=1500, pid=4711
    )
    gpus.set(1, name=1, power_mw=70_000)
    made = Sampler({}, {}, env=gpus.env)
    try:
        assert made.gpu_problem is None
        assert made.driver == "stand-in 1.0"
        assert [(gpu["counter"], gpu["power_limit_w"]) for gpu in made.gpus] == [(True, 250.0), (False, None)]
        time.sleep(1.3)
        gpus.set(0, energy_mj="")  # lost
        time.sleep(0.3)
        sample = made.take()
        assert sample.groups["gpu"].columns["gpu0"][0] == 1000
        assert sample.groups["gpu"].columns["gpu0"][-1] is None
        assert sample.groups["gpu"].columns["gpu1"][-1] == 70_000
        slow = sample.groups["slow"].columns
        assert (slow["gpu0.temperature_c"][0], slow["gpu0.throttle_reasons"][0], slow["gpu0.clock_mhz"][0]) == (
            55,
            4,
            1500,
        )
        assert slow["gpu1.temperature_c"][0] is None
        assert sample.gpu_users == [[4711], []]
    finally:
        made.stop()


def test_known_joules_of_gpus_come_back(gpus: StandInGpus, tmp_path: Path) -> None:
    """A counter that is updated ten times a second, and a GPU that only tells its power."""
    gpus.set(0, name=1, energy_mj=0)
    gpus.set(1, name=1, power_mw=30_000)
    ended, began = threading.Event(), time.monotonic()

    def drive() -> None:
        number = 0
        while not ended.wait(max(0.0, began + 0.1 * number - time.monotonic())):
            gpus.set(0, energy_mj=int(120_000 * (time.monotonic() - began)))
            number += 1

    thread = threading.Thread(target=drive)
    thread.start()
    meter = Meter(powercap_root=tmp_path / "none", codecarbon=False, env=gpus.env)
    try:
        time.sleep(0.5)
        meter.mark()
        begin = time.monotonic()
        time.sleep(5)
        end = time.monotonic()
        meter.mark()
        time.sleep(0.5)
        accounts = Accounts(meter.cut(), gpus=[0])
        total = accounts.total("counters", begin, end)
        assert (total.coverage, total.kind) == ("gpu", "measured")
        assert total.joules == pytest.approx(150 * (end - begin), rel=0.02)
        one = next(row for row in accounts.gross(begin, end, "agent") if row.component == "gpu0")
        assert one.low_j is not None
        assert one.high_j is not None
        assert one.low_j <= 120 * (end - begin) <= one.high_j + 0.5
    finally:
        meter.stop()
        ended.set()
        thread.join()


def test_this_machines_own_counters_are_read_or_the_reason_is_known() -> None:
    found = powercap.find()
    assert bool(found.zones) != bool(found.problem)
