"""Agents that use something up. The machine stays usable, and the harness ends the run within its limits and by its
right name."""

from __future__ import annotations

import ctypes
import os
import shutil
import statistics
import subprocess
import tarfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest
from command_line import Harness
from places import INSIDE, RUNTIME

from harness.run import GRACE_S
from harness.sandbox.container import PENDING_SIGNALS

pytestmark = [pytest.mark.docker, pytest.mark.network]

TIME_LIMIT_S = 6
MEMORY_MB, DISK_MB = 256, 300
PATIENCE_S = 20  # for a container that is full of processes to die, on a machine with two cores

# What each ends by; `make faults` has the second half too.
# A thousand processes may be too many for the memory, too.
BOMBS = {"memory": {"oom"}, "processes": {"timeout", "oom"}, "time_itself": {"timeout"}, "signals": {"submitted"}}
if os.environ.get("HARNESS_FAULTS") == "all":
    BOMBS |= {
        "memory_of_many": {"timeout", "oom"},
        "memory_as_files": {"oom"},
        "files": {"timeout", "oom"},
        "disk": {"disk_full"},
        "watches": {"submitted"},
    }


@dataclass
class Pulse:
    """What the host still does while something goes on: start a program, write a file, ask Docker, watch a file."""

    folder: Path
    client: docker.DockerClient
    took_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    inotify: list[bool] = field(default_factory=list)
    files: list[int] = field(default_factory=list)  # open on the whole machine
    ended: threading.Event = field(default_factory=threading.Event)

    def beat(self) -> None:
        while not self.ended.wait(0.2):
            began = time.monotonic()
            try:
                subprocess.run(["true"], check=True)
                (self.folder / "pulse").write_bytes(os.urandom(4096))
                self.client.ping()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
                self.failures.append(repr(error))
            self.took_s.append(time.monotonic() - began)
            self.files.append(int(Path("/proc/sys/fs/file-nr").read_text().split()[0]))
            descriptor = ctypes.CDLL(None).inotify_init1(os.O_CLOEXEC)
            self.inotify.append(descriptor >= 0)
            if descriptor >= 0:
                os.close(descriptor)


@dataclass(frozen=True)
class Blown:
    rows: dict[str, dict[str, Any]]
    reports: dict[str, int]
    pulse: Pulse
    wall_s: float


@pytest.fixture(scope="module")
def blown(client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Blown:
    """All of them one after another, in one sweep."""
    harness = Harness(tmp_path_factory.mktemp("bombs"))
    agents = []
    for name in BOMBS:
        path = harness.agent(name.replace("_", "-"), f"exec python3 -B $(dirname $0)/bombs.py {name}\n")
        shutil.copy(INSIDE / "bombs.py", path)
        agents.append(path)
    pulse = Pulse(harness.folder, client)
    thread = threading.Thread(target=pulse.beat)
    thread.start()
    began = time.monotonic()
    try:
        done = harness(
            "sweep", "--agents", ",".join(agents), "--tasks", "smoke", "--limit", "1", "--retries", "0",
            "--time-limit", str(TIME_LIMIT_S), "--memory-mb", str(MEMORY_MB), "--disk-mb", str(DISK_MB),
            *(["--runtime", RUNTIME] if RUNTIME else []),
        )  # fmt: skip
    finally:
        pulse.ended.set()
        thread.join()
    assert done.code == 0, done.err
    rows = {row["agent"].replace("-", "_"): row for row in harness.rows("SELECT * FROM runs")}
    reports = {}
    for name, row in rows.items():
        archive = harness.runs / row["sweep_id"] / row["run_id"] / "out.tar.gz"
        if archive.exists():
            with tarfile.open(archive) as out:
                if "out/report" in out.getnames():
                    reports[name] = int(out.extractfile("out/report").read())
    return Blown(rows, reports, pulse, time.monotonic() - began)


def test_each_ends_by_its_right_name_and_none_is_tried_again(blown: Blown) -> None:
    assert blown.rows.keys() == BOMBS.keys()
    for name, row in blown.rows.items():
        assert row["ended_by"] in BOMBS[name], (name, row["ended_by"], row["ended_detail"])
        assert (row["attempt"], row["verdict"]) == (1, "empty_patch"), name


def test_none_outlives_its_time(blown: Blown) -> None:
    for name, row in blown.rows.items():
        assert row["agent_s"] < TIME_LIMIT_S + 2 * GRACE_S + PATIENCE_S, name


def test_the_host_goes_on(blown: Blown) -> None:
    assert blown.pulse.failures == []
    assert statistics.quantiles(blown.pulse.took_s, n=20)[-1] < 1.0
    assert len(blown.pulse.took_s) > blown.wall_s / 10


def test_what_the_kernel_counts_by_user_is_not_used_up(blown: Blown) -> None:
    assert 0 < blown.reports["signals"] <= PENDING_SIGNALS
    assert max(blown.pulse.files) < 0.9 * int(Path("/proc/sys/fs/file-max").read_text())


def test_what_inotify_has_for_a_user_is_there_again_after_the_run(blown: Blown) -> None:
    """A sandbox's root is the host's root to inotify, which has no other limit: docs/security.md says so. What is shown
    is that it ends with the run."""
    assert blown.reports.get("watches", 1) > 0
    assert blown.pulse.inotify[-1]
