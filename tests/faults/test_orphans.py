"""Children die with their parent, however it dies; what else a killed command leaves goes with the next one, and what
a living one owns never does."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Harness
from docker.errors import APIError, NotFound
from invariant import broken, left, orphans, processes
from moments import agents_at_work, commands, until, watched
from small_sweep import words

from harness.sandbox.daemon import connect

pytestmark = [pytest.mark.docker, pytest.mark.network]

MEDDLING = "trap '' TERM; echo 5; while :; do sleep 1; done"


def alive(harness: Harness, words: str) -> bool:
    return any(words in line for _, line in processes(harness))


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


@pytest.mark.parametrize(
    ("meter", "its"),
    [
        ("command:echo 5; exec sleep 1001", "sleep 1001"),  # silent ever after
        pytest.param("command:while :; do echo 5; sleep 0.2; done", "while", marks=pytest.mark.at_length),
        pytest.param(f"command:{MEDDLING}", "trap", marks=pytest.mark.at_length),
        pytest.param("command:(echo 5; sleep 1002) | cat", "sleep 1002", marks=pytest.mark.at_length),
        pytest.param("command:sleep 1003 & echo 5; wait", "sleep 1003", marks=pytest.mark.at_length),
    ],
    ids=["silent", "printing", "stubborn", "pipeline", "background"],
)
def test_a_meters_command_dies_with_the_harness(harness, meter, its) -> None:
    process = harness.popen(*words(harness, "--meter", meter, fault="hang"))
    until(lambda: alive(harness, its) and agents_at_work(harness))
    kill(process)
    assert not orphans(harness)


@pytest.mark.model
@pytest.mark.parametrize("loading", [True, pytest.param(False, marks=pytest.mark.at_length)])
def test_a_model_server_and_the_sampler_die_with_the_harness(harness, loading) -> None:
    command = words(harness)
    command[command.index("--models") + 1] = "llamacpp/smollm2:135m"
    process = harness.popen(*command, "--order", "listed")
    if loading:
        until(lambda: alive(harness, "llamacpp_server"))
    else:
        until(lambda: agents_at_work(harness))
        assert alive(harness, "llamacpp_server")
        assert alive(harness, "sampler_process")
    kill(process)
    assert not orphans(harness)


def test_a_sandbox_without_its_harness_ends_at_its_deadline(harness) -> None:
    script = (
        "import sys, time\n"
        "from harness.sandbox.container import Limits, running, tar_of\n"
        "from harness.sandbox.daemon import connect\n"
        "limits = Limits(cpus=1, memory_bytes=256 << 20, disk_bytes=1 << 30, deadline_s=4)\n"
        "with running(connect(), 'debian:bookworm-slim', kind='run', limits=limits, files=tar_of({})) as container:\n"
        "    print(container.id, flush=True)\n"
        "    container.exec(['sh', '-c', 'trap : TERM; while :; do sleep 1; done'])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    container = process.stdout.readline().strip()
    kill(process)
    client = connect()
    try:
        assert client.api.inspect_container(container)["State"]["Running"]
        until(lambda: not client.api.inspect_container(container)["State"]["Running"], 20)
    except NotFound:
        pytest.skip("a sweep of somebody else's has cleaned up here")
    finally:
        with contextlib.suppress(APIError):
            client.api.remove_container(container, force=True)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["agents", "check", "shell-script"], marks=pytest.mark.at_length),
        ["tasks", "verify", "smoke", "--limit", "1"],
    ],
    ids=["check", "verify"],
)
def test_what_a_killed_command_left_goes_with_the_next(harness, command) -> None:
    process = harness.popen(*command)
    until(lambda: commands(harness))
    kill(process)
    assert not orphans(harness)
    assert any(line.startswith("temporary: hg-") for line in left(harness))
    [found] = [each for each in harness("doctor", "--json").json() if each["check"] == "leftovers"]
    assert found["state"] == "look"
    assert found["mend"] == "harness clean"
    cleaned = harness("clean", "--json")
    assert cleaned.code == 0, cleaned.err
    assert cleaned.json()["files"] >= 1
    assert left(harness) == []


@pytest.mark.at_length
@pytest.mark.parametrize("name", ["export", "backup"])
def test_half_a_copy_goes_with_the_next_command(harness, name) -> None:
    assert harness(*words(harness)).code == 0
    command = ["export", "--format", "bundle"] if name == "export" else ["db", "backup", "runs/copy.db"]
    killed = watched(harness, FAULTS_AT="os.rename")(*command)
    assert killed.code == -signal.SIGKILL, killed.err
    assert list(harness.runs.rglob("hg-*-*"))
    assert harness("clean", "--json").json()["files"] == 2  # and its temporary folder
    assert broken(harness) == []


@pytest.mark.at_length
def test_what_a_living_sweep_owns_is_not_touched(harness) -> None:
    process = harness.popen(*words(harness, "--order", "listed", first_token_delay_s=2.0))
    until(lambda: agents_at_work(harness))
    cleaned = harness("clean", "--json")
    assert cleaned.code == 0, cleaned.err
    assert json.loads(cleaned.out)["containers"] == 0
    assert process.poll() is None
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, (out, err)
    assert [row["ended_by"] for row in harness.rows("SELECT ended_by FROM runs WHERE calls = 3")] == ["submitted"]
    assert broken(harness) == []


def test_the_dead_of_other_places_are_left_alone(harness) -> None:
    """Containers that share a temporary folder number their processes each for itself."""
    theirs = Path(harness.env["TMPDIR"], "hg-999999999-1-zzzz-elsewhere")
    theirs.mkdir()
    assert harness("clean").code == 0
    assert theirs.exists()
    theirs.rmdir()
