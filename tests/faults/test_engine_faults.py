"""Whole sweeps against an engine that breaks: each run gets its right name within its limits, the machine is blamed
where it was the machine, and `--resume` completes the sweep once the engine is well."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from invariant import broken
from ollama_stand_in import MODEL, RETRY_AFTER_S, StandIn
from small_sweep import caller

pytestmark = [pytest.mark.docker]


at_length = pytest.mark.usefixtures("_at_length")


@pytest.fixture
def _at_length(thorough) -> None:
    if not thorough:
        pytest.skip("a minute of it is enough here; `make faults` has it")


@pytest.fixture
def engine(harness) -> Iterator[StandIn]:
    with StandIn() as stand_in:
        harness.env["OLLAMA_HOST"] = stand_in.address
        yield stand_in


def words(harness, *more: str, runs: int, calls: int = 2) -> list[str]:
    fixed = ["--tasks", "smoke", "--limit", "1", "--order", "listed", "--repeats", str(runs), "--retries", "0"]
    return ["sweep", "--agents", caller(harness, calls), "--models", MODEL, *fixed, *more]


def endings(harness) -> list[dict[str, Any]]:
    return harness.rows("SELECT ended_by, ended_detail, flags, duration_s, calls FROM runs ORDER BY position")


def resumed(harness, engine: StandIn) -> None:
    """The engine is well again: what it had spoilt is made anew, the rest stays."""
    engine.faults, engine.mute = (), False
    kept = harness.rows("SELECT run_id, started_at FROM runs WHERE ended_by <> 'model_error'")
    done = harness("sweep", "--resume", "--json")
    assert done.code == 0, done.err
    after = {row["run_id"]: row for row in harness.rows("SELECT * FROM runs")}
    assert {row["ended_by"] for row in after.values()} <= {"submitted", "crashed"}
    assert all(after[row["run_id"]]["started_at"] == row["started_at"] for row in kept)
    assert broken(harness) == []


def until(came: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not came():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def peak_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return max((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM")), default=0)


def test_each_fault_of_the_engine_has_its_name_and_none_reaches_the_next_run(
    harness, engine: StandIn, thorough
) -> None:
    expected: dict[str, tuple[str, str | None]] = {
        # the fault of each run, how that ends, and what is said of it
        "busy": ("submitted", None),
        "refuse": ("model_error", "broke off"),
        "half_json": ("model_error", "no answer"),
        "well 1": ("submitted", None),
        "wrong_model": ("model_error", "answers with another:70b, not stand-in:1b"),
        "no_answer": ("model_error", "no answer"),
        "http_400": ("crashed", None),  # of what the framework sent
        "http_500": ("model_error", "a fault"),
        "long_line": ("model_error", "a line of more than"),
        "well 2": ("submitted", None),
        "endless": ("model_error", "an answer of more than"),
        "smaller_window": ("model_error", "a window of 4096 tokens, not 16384"),
        "well 3": ("submitted", None),
    }
    if not thorough:  # each failure is tried three times, with pauses
        expected = {name: expected[name] for name in ("busy", "half_json", "well 1", "long_line", "smaller_window")}
    engine.faults = [None if name.startswith("well") else name for name in expected]
    process = harness.popen(*words(harness, "--time-limit", "60", runs=len(expected)))
    out, peak = [], 0
    reader = threading.Thread(target=lambda: out.extend(process.communicate()))
    reader.start()
    while reader.is_alive():
        peak = max(peak, peak_bytes(process.pid))
        reader.join(0.02)
    assert process.returncode == 1, out[1]
    assert "Traceback" not in out[1]
    rows = endings(harness)
    found = {name: (row["ended_by"], row["ended_detail"]) for name, row in zip(expected, rows, strict=True)}
    for name, (ended_by, said) in expected.items():
        assert found[name][0] == ended_by, (name, found[name])
        assert said is None or said in found[name][1], (name, found[name])
    assert engine.overlaps == 0
    assert peak < 600 << 20
    assert "engine_retried" in rows[0]["flags"]
    assert engine.calls[1][0] - engine.calls[0][0] > RETRY_AFTER_S
    resumed(harness, engine)


@pytest.mark.parametrize("fault", ["hang", "nothing", "mute"])
def test_an_engine_that_says_nothing_is_not_the_agents_timeout(harness, engine: StandIn, fault, thorough) -> None:
    if fault != "hang" and not thorough:
        pytest.skip("one of the silences is enough here; `make faults` has all")
    engine.faults = [fault]
    began = time.monotonic()
    process = harness.popen(*words(harness, "--time-limit", "4", runs=1))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    [row] = endings(harness)
    assert (row["ended_by"], "single token" in row["ended_detail"]) == ("model_error", True)
    assert time.monotonic() - began < 60
    resumed(harness, engine)


@at_length
def test_a_slow_answer_that_the_time_limit_cuts_is_a_timeout(harness, engine: StandIn) -> None:
    """The single token comes: the engine is well, the run had its time."""
    engine.faults = ["slow"]
    done = harness(*words(harness, "--time-limit", "3", runs=1))
    assert done.code == 0, done.err
    [row] = endings(harness)
    assert row["ended_by"] == "timeout", row


@pytest.mark.parametrize("slots", [1, 2])
def test_an_engine_that_is_away_between_two_runs_is_waited_for(harness, engine: StandIn, slots, thorough) -> None:
    """Of several at a time some are spoilt in a call, and wait when they are tried again."""
    if slots > 1 and not thorough:
        pytest.skip("one at a time is enough here; `make faults` has both")
    process = harness.popen(*words(harness, "--slots", str(slots), "--retries", str(slots - 1), runs=4))
    until(lambda: len(engine.calls) >= 4 and not engine.decoding)
    engine.stop()
    time.sleep(8)
    engine.start()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    rows = endings(harness)
    assert [row["ended_by"] for row in rows] == ["submitted"] * 4
    assert slots > 1 or any("the engine was away" in row["flags"] for row in rows)
    assert broken(harness) == []


@at_length
def test_an_engine_that_dies_in_a_run_and_comes_back_costs_nothing_but_the_wait(harness, engine: StandIn) -> None:
    engine.faults = ["slow"]
    process = harness.popen(*words(harness, runs=2))
    until(lambda: engine.decoding == 1)
    engine.stop()
    time.sleep(2)
    engine.faults = ()
    engine.start()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert [row["ended_by"] for row in endings(harness)] == ["submitted"] * 2
    assert broken(harness) == []


@at_length
def test_another_model_of_the_same_name_is_seen_before_a_run(harness, engine: StandIn) -> None:
    process = harness.popen(*words(harness, runs=4))
    until(lambda: engine.runs == 1)
    engine.digest = "b" * 64
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert [row["ended_by"] for row in endings(harness)] == ["submitted", *["model_error"] * 3]
    refused = harness("sweep", "--resume")
    assert refused.code == 2
    assert "digest" in refused.err
    engine.digest = "a" * 64
    resumed(harness, engine)


def test_an_interrupt_while_the_engine_hangs_is_heard(harness, engine: StandIn) -> None:
    process = harness.popen(*words(harness, runs=3))
    until(lambda: len(engine.calls) == 2 and not engine.decoding)
    engine.mute = True
    until(lambda: len(harness.rows("SELECT 1 FROM runs")) == 1)
    time.sleep(1)
    asked = time.monotonic()
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - asked < 10
    assert process.returncode == 130, err


def test_a_server_that_loads_less_than_was_asked_for_is_said_by_the_doctor_and_spoils_no_run(harness, engine) -> None:
    engine.largest = 4096
    told = harness("doctor", "--json").json()
    [found] = [each for each in told if each["check"] == "window"]
    assert found["state"] == "look"
    assert "a window of 4096 tokens where 16384 were asked for" in found["found"]
    assert engine.loaded is None
    done = harness(*words(harness, runs=1))
    assert done.code == 1, done.err
    [row] = endings(harness)
    assert (row["ended_by"], row["calls"]) == ("model_error", None)
    engine.largest = 16384
    resumed(harness, engine)
