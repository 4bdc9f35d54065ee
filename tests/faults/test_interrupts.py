"""Ctrl-C, SIGTERM and a closed terminal: what is quick is finished, the rest given up; it says how to go on, cleans up
itself and takes no longer than ten seconds. A second one ends it at once, and it cleans up all the same."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Harness
from invariant import broken, left, record
from moments import agents_at_work, commands, until, watched
from small_sweep import words

from harness.cli import interrupts
from harness.owned import process_start
from harness.sandbox.daemon import connect

pytestmark = [pytest.mark.docker, pytest.mark.network]

LIMIT_S = 10.0
TASK = Path(__file__).parents[2] / "tasks" / "smoke" / "basket-shared-default"


def suite(harness: Harness, *, build: str = "", test: str = "") -> str:
    """A suite of one task, whose image takes another step to build, or whose tests begin with something else."""
    folder = harness.folder / "suite"
    shutil.copytree(TASK, folder / "task")
    for path, line in ((folder / "task/environment/Dockerfile", build), (folder / "task/tests/test.sh", test)):
        path.write_text(path.read_text() + f"{line}\n" if path.name == "Dockerfile" else
                        path.read_text().replace("set -u\n", f"set -u\n{line}\n"))  # fmt: skip
    return str(folder)


def stored(harness: Harness, table: str) -> int:
    database = harness.runs / "harness.db"
    if not database.exists() or not harness.rows("SELECT 1 FROM sqlite_master WHERE name = ?", table):
        return 0
    return int(harness.rows(f"SELECT COUNT(*) AS n FROM {table}")[0]["n"])


def resting(harness: Harness) -> tuple[list[str], Callable[[], object]]:
    return words(harness, "--rest", "60"), lambda: stored(harness, "runs") == 1


def measuring_idle(harness: Harness) -> tuple[list[str], Callable[[], object]]:
    return words(harness, "--idle", "60"), lambda: stored(harness, "sessions") == 1


def in_the_agent(harness: Harness) -> tuple[list[str], Callable[[], object]]:
    return words(harness, "--order", "listed", fault="hang"), lambda: agents_at_work(harness)


def in_two_agents(harness: Harness) -> tuple[list[str], Callable[[], object]]:
    command = words(harness, "--slots", "2", "--limit", "2", fault="hang")
    return command, lambda: len(agents_at_work(harness)) == 2


def grading(harness: Harness) -> tuple[list[str], Callable[[], object]]:
    command = ["sweep", "--agents", "oracle", "--tasks", suite(harness, test="sleep 50")]
    return command, lambda: commands(harness, "grade")


LONG = [pytest.param(each, marks=pytest.mark.at_length) for each in (resting, in_the_agent, in_two_agents, grading)]
MOMENTS = [measuring_idle, *LONG]


def check_ended(harness: Harness, process: subprocess.Popen[str], begun: bool = True) -> None:
    """How it ends from now on."""
    asked = time.monotonic()
    out, err = process.communicate(timeout=60)
    took_s = time.monotonic() - asked
    # One that comes when all is said and done ends Python, and nothing else.
    assert process.returncode == 130 or (process.returncode == -signal.SIGINT and "next  " in out), (out, err)
    assert "Traceback" not in err, err
    assert took_s < LIMIT_S, (took_s, out, err)
    assert "--resume" in out + err
    assert left(harness) == []
    if begun:
        assert record(harness.runs, finished=False) == []


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.__name__)
def test_an_interrupt_ends_a_sweep_within_seconds_and_it_cleans_up(harness, moment) -> None:
    command, there = moment(harness)
    process = harness.popen(*command)
    until(there)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    check_ended(harness, process)


@pytest.mark.at_length
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_requests_to_end_are_heard_as_well(harness, number) -> None:
    command, there = in_the_agent(harness)
    process = harness.popen(*command)
    until(there)
    process.send_signal(number)
    check_ended(harness, process)


@pytest.mark.parametrize("moment", [resting, in_the_agent, in_two_agents, grading], ids=lambda moment: moment.__name__)
@pytest.mark.parametrize("pause_s", [0.0, 0.3])
def test_a_second_interrupt_ends_it_at_once_and_it_cleans_up_all_the_same(harness, thorough, moment, pause_s) -> None:
    if not thorough and (moment, pause_s) != (in_the_agent, 0.3):
        pytest.skip("made by `make faults`")
    command, there = moment(harness)
    process = harness.popen(*command)
    until(there)
    process.send_signal(signal.SIGINT)
    time.sleep(pause_s)
    process.send_signal(signal.SIGINT)
    check_ended(harness, process)


def test_an_interrupt_while_an_image_is_built_leaves_nothing_of_it(harness) -> None:
    command = ["sweep", "--agents", "oracle", "--tasks", suite(harness, build=f"RUN sleep 5{os.getpid()}")]
    client = connect()

    def building() -> list[str]:
        found = client.api.containers(all=True)
        return [each["Id"] for each in found if f"sleep 5{os.getpid()}" in each["Command"]]

    process = harness.popen(*command)
    until(building)
    process.send_signal(signal.SIGINT)
    check_ended(harness, process, begun=False)
    until(lambda: not building(), 10)


@pytest.mark.at_length
@pytest.mark.model
def test_an_interrupt_while_a_model_is_loaded_leaves_no_server(harness) -> None:
    agent = harness.agent("idler", "#!/bin/sh\n", calls_model=True)
    command = ["sweep", "--agents", agent, "--models", "llamacpp/smollm2:135m", "--tasks", "smoke", "--limit", "1"]
    done = watched(harness, FAULTS_AT="harness.engines.llamacpp_server", FAULTS_SIGNAL="SIGINT")(*command)
    assert done.code == 130, done.err
    assert "Traceback" not in done.err
    assert left(harness) == []


@pytest.mark.at_length
def test_an_interrupt_while_a_run_is_stored_loses_none(harness) -> None:
    for moment in ('INSERT INTO "runs"', "DELETE FROM histories"):
        done = watched(harness, FAULTS_AT=moment, FAULTS_SIGNAL="SIGINT")(*words(harness))
        assert done.code == 130, done.err
        assert stored(harness, "runs") in (1, 4)
        assert left(harness) == []
        done = harness("sweep", "--resume")
        assert done.code == 0, done.err
        assert broken(harness) == []


def test_a_request_waits_for_no_lock_of_what_it_interrupts() -> None:
    lock, given_up = threading.Lock(), threading.Event()

    def give_up() -> None:
        with lock:
            given_up.set()

    with interrupts.first_asking(give_up, lambda: True):
        with lock:  # as whoever prints has one
            signal.raise_signal(signal.SIGINT)
        assert given_up.wait(LIMIT_S)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_terminal_that_is_closed_is_a_request_to_end(harness) -> None:
    command, there = in_the_agent(harness)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
         "os.execv(sys.executable, [sys.executable, '-m', 'harness', *sys.argv[1:]])", *command, "--idle", "0"],
        cwd=harness.folder, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={**os.environ, **harness.env},
    )  # fmt: skip
    os.close(theirs)
    harness.started.append(f"{process.pid}/{process_start(process.pid)}")
    until(there)
    os.close(ours)  # its terminal is gone: the kernel sends SIGHUP, and whoever writes fails
    asked = time.monotonic()
    assert process.wait(30) == 130
    assert time.monotonic() - asked < LIMIT_S
    assert left(harness) == []
    assert record(harness.runs, finished=False) == []


@pytest.mark.at_length
def test_under_nohup_a_sweep_goes_on(harness) -> None:
    process = harness.popen(*words(harness), preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    until(lambda: stored(harness, "runs") == 1)
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert broken(harness) == []
