"""Docker goes away, loses a container or an image, is slow or full: the run that it hit is made again or graded again,
and nothing of it is said of the agent or its patch."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import threading
import time

import docker
import pytest
from at_work import WAIT_S, at_work, stored
from command_line import Harness
from invariant import broken
from moments import until
from own_docker import OwnDocker
from slow_docker import slow_docker
from tiny_task import words

from harness.errors import MachineError
from harness.sandbox.daemon import await_answer

pytestmark = pytest.mark.docker


def one_row(harness: Harness) -> dict[str, object]:
    [row] = harness.rows("SELECT * FROM runs")
    return row


def take_away(harness: Harness, how: str, kind: str, own: OwnDocker) -> None:
    with contextlib.closing(own.client()) as client:
        found = at_work(harness, kind, client)
        if how == "removed":
            client.api.remove_container(found, force=True)
        elif how == "killed":
            client.api.kill(found)
        else:
            own.stop(signal.SIGTERM if how == "stopped" else signal.SIGKILL)
            time.sleep(1.5)
            own.start()


@pytest.mark.parametrize("kind", ["run", "grade"])
@pytest.mark.parametrize("how", ["removed", "killed", "stopped", "crashed"])
def test_what_is_taken_away_under_a_run_is_neither_the_agents_doing_nor_the_patchs(
    harness: Harness, own: OwnDocker, thorough: bool, kind: str, how: str
) -> None:
    if not thorough and (how, kind) not in (("removed", "run"), ("killed", "grade"), ("stopped", "run")):
        pytest.skip("make faults tries each of them")
    script, before = ("sleep 4", "") if kind == "run" else ("", "sleep 4")
    process = harness.popen(*words(harness, script, "--json", before=before))
    take_away(harness, how, kind, own)
    _, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, err
    row = one_row(harness)
    assert (row["ended_by"], row["verdict"]) == ("submitted", "resolved"), (row["ended_detail"], row["verdict_detail"])
    assert row["attempt"] == (2 if kind == "run" else 1)
    spoilt = harness.rows("SELECT ended_by, detail FROM attempts")
    assert [attempt["ended_by"] for attempt in spoilt] == (["sandbox_error"] if kind == "run" else []), spoilt
    assert "Traceback" not in err
    assert broken(harness) == []


def test_a_sweep_waits_for_docker_between_two_runs(harness: Harness, own: OwnDocker) -> None:
    process = harness.popen(*words(harness, "", "--rest", "3", repeats=2))
    until(lambda: (harness.runs / "harness.db").exists() and stored(harness), WAIT_S)
    own.stop()
    time.sleep(6)
    own.start()
    out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, out + err
    assert "Docker does not answer: waiting up to 600 s for it" in out
    assert [row["attempt"] for row in harness.rows("SELECT attempt FROM runs")] == [1, 1]
    assert broken(harness) == []


def test_the_wait_for_docker_has_an_end_and_can_be_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.sandbox.daemon.AWAY_LIMIT_S", 2.0)
    client = docker.DockerClient("unix:///nonexistent/docker.sock", version="1.41")
    said: list[str] = []
    with pytest.raises(MachineError, match="Docker has not answered for 2 s"):
        await_answer(client, threading.Event(), said.append)
    assert said == ["Docker does not answer: waiting up to 2 s for it"]
    cancelled = threading.Event()
    threading.Timer(0.5, cancelled.set).start()
    monkeypatch.setattr("harness.sandbox.daemon.AWAY_LIMIT_S", 60.0)
    began = time.monotonic()
    await_answer(client, cancelled)
    assert time.monotonic() - began < 5


def test_an_image_that_is_removed_in_the_middle_is_said_and_made_again(
    harness: Harness, own: OwnDocker, thorough: bool
) -> None:
    if not thorough:
        pytest.skip("make faults tries it")
    process = harness.popen(*words(harness, repeats=2), "--rest", "4", "--retries", "0")
    until(lambda: stored(harness), WAIT_S)
    with contextlib.closing(own.client()) as client:
        [ready] = client.images.list("harness-ready")
        until(lambda: not client.containers.list(all=True), WAIT_S)
        subprocess.run(["docker", "rmi", "--force", ready.id], check=True, capture_output=True)
    out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1, out + err
    rows = harness.rows("SELECT * FROM runs ORDER BY position")
    assert [row["ended_by"] for row in rows][1:] == ["sandbox_error"]
    assert "No such image" in rows[1]["ended_detail"]
    assert "harness sweep --resume" in rows[1]["ended_detail"]
    again = harness("sweep", "--resume")
    assert again.code == 0, again.err
    assert {row["verdict"] for row in harness.rows("SELECT verdict FROM runs")} == {"resolved"}
    assert broken(harness) == []


@pytest.mark.timeout(2400)
def test_a_slow_docker_makes_a_run_slow_and_not_wrong(harness: Harness, own: OwnDocker, thorough: bool) -> None:
    # The shorter version slows down the commands in the containers alone.
    delay_s, only = (10.0, b"") if thorough else (1.2, b"/exec")
    with slow_docker(own.address, delay_s, only) as address:
        # A time limit that the agent keeps by a second, and would not if it were charged for Docker.
        slow = Harness(harness.folder, {**harness.env, "DOCKER_HOST": address}, harness.started, own_session=True)
        process = slow.popen(*words(harness, "sleep 4", "--time-limit", "5.5", "--json", before="sleep 1"))
        _, err = process.communicate(timeout=2000)
    assert process.returncode == 0, err
    row = one_row(harness)
    assert (row["ended_by"], row["verdict"], row["attempt"]) == ("submitted", "resolved", 1), row["ended_detail"]
    [flag] = [flag for flag in json.loads(str(row["flags"])) if flag.startswith("docker_slow")]
    assert float(flag.split()[1]) >= delay_s
    assert 4.0 <= row["agent_s"] <= 5.5 + float(flag.split()[1])
    assert broken(harness) == []
