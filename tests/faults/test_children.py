"""Parts of a sweep that are killed while it goes on: the sampler, the engine in the middle of an answer, the forwarder
in the sandbox; and whole sweeps beside others. (The gateway is a thread of the harness, and dies with it.)"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from command_line import Harness
from invariant import broken, processes
from moments import agents_at_work, commands, until
from small_sweep import caller, words

pytestmark = [pytest.mark.docker, pytest.mark.network]


def pids(harness: Harness, words: str) -> list[int]:
    return [pid for pid, line in processes(harness) if words in line]


def test_a_sampler_that_is_killed_in_a_run_is_started_again(harness) -> None:
    process = harness.popen(*words(harness, "--order", "listed", repeats=2, first_token_delay_s=1.5))
    until(lambda: agents_at_work(harness))
    [sampler] = pids(harness, "sampler_process")
    os.kill(sampler, signal.SIGKILL)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, (out, err)
    rows = harness.rows("SELECT position, framework_cpu_s, harness_cpu_s FROM runs ORDER BY started_at")
    assert len(rows) == 6
    assert rows[-1]["harness_cpu_s"] is not None, rows
    assert broken(harness) == []


@pytest.mark.at_length
@pytest.mark.model
def test_a_model_server_that_is_killed_in_the_middle_of_an_answer(harness) -> None:
    command = ["sweep", "--agents", caller(harness, calls=1), "--models", "llamacpp/smollm2:135m", "--tasks", "smoke"]
    process = harness.popen(*command, "--limit", "1", "--num-predict", "400")
    until(lambda: agents_at_work(harness))
    [server] = pids(harness, "llamacpp_server")
    until(lambda: cpu_s(server) > 1.0)  # it generates
    os.kill(server, signal.SIGKILL)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, (out, err)
    rows = harness.rows("SELECT ended_by, attempt FROM runs ORDER BY position")
    assert [row["ended_by"] for row in rows] == ["submitted"], rows
    # Whether the gateway asked once more or the whole run was made again, it is on record.
    flags = [flag for row in harness.rows("SELECT flags FROM runs") for flag in json.loads(row["flags"])]
    assert "engine_retried" in flags or harness.rows("SELECT * FROM attempts WHERE ended_by = 'model_error'")
    assert broken(harness) == []


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.at_length
def test_a_forwarder_that_is_killed_is_on_record_and_ends_no_sweep(harness) -> None:
    process = harness.popen(*words(harness, "--order", "listed", first_token_delay_s=3.0))
    until(lambda: agents_at_work(harness))
    [forwarder] = [pid for pid, line in commands(harness).items() if "forward.py" in line]
    os.kill(forwarder, signal.SIGKILL)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, (out, err)
    [row] = harness.rows("SELECT ended_by, flags FROM runs WHERE agent = 'caller'")
    assert row["ended_by"] == "crashed"
    assert "way_ended: its forwarder was ended" in json.loads(row["flags"])
    assert broken(harness) == []


@pytest.mark.at_length
def test_two_sweeps_on_one_store_one_at_a_time_and_a_dead_holder_blocks_nobody(harness) -> None:
    command = words(harness, "--order", "listed", first_token_delay_s=2.0)
    first = harness.popen(*command)
    until(lambda: agents_at_work(harness))
    second = harness("sweep", "--agents", "nop", "--tasks", "smoke", "--limit", "1")
    assert second.code == 2
    assert f"process {first.pid}" in second.err
    first.kill()
    first.communicate()
    resumed = harness("sweep", "--resume")
    assert resumed.code == 0, resumed.err
    assert broken(harness) == []


@pytest.mark.at_length
def test_two_sweeps_on_two_stores_of_one_docker_and_one_is_killed(harness, tmp_path) -> None:
    other = Harness(tmp_path / "other", harness.env, own_session=True)
    other.folder.mkdir()
    going_on = other.popen(*words(other, "--order", "listed", repeats=2, first_token_delay_s=1.0))
    command = words(harness)
    for _ in range(2):
        killed = harness.popen(*command)
        until(lambda: list(harness.runs.rglob("agent.log")))
        time.sleep(0.5)
        killed.kill()
        killed.communicate()
        command = ["sweep", "--resume"]
    resumed = harness(*command)
    assert resumed.code == 0, resumed.err
    out, err = going_on.communicate(timeout=300)
    assert going_on.returncode == 0, (out, err)
    assert [row["attempt"] for row in other.rows("SELECT attempt FROM runs")] == [1] * 6
    assert other.rows("SELECT * FROM attempts") == []
    assert broken(other) == []
    assert broken(harness) == []
