"""Energy through a whole sweep: what this machine has, and a stand-in powercap tree that the test drives."""

from __future__ import annotations

import gzip
import json
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from harness.cli.sweep import sweep
from harness.meter import powercap
from tests.meter.powercap_tree import tree

pytestmark = [pytest.mark.docker]

PACKAGE_W = 50.0
DRAM_W = 6.0


@pytest.fixture
def counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    names = {"intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:0:1": "dram"}
    zones = tree(tmp_path / "powercap", names)
    ended = threading.Event()
    began = time.monotonic()

    def drive() -> None:
        while not ended.wait(0.003):
            seconds = time.monotonic() - began
            zones["intel-rapl:0"].set_j(PACKAGE_W * seconds)
            zones["intel-rapl:0:0"].set_j(40.0 * seconds)
            zones["intel-rapl:0:1"].set_j(DRAM_W * seconds)

    thread = threading.Thread(target=drive)
    thread.start()
    monkeypatch.setattr(powercap, "ROOT", tmp_path / "powercap")
    yield
    ended.set()
    thread.join()


def rows(runs: Path, sql: str) -> list[dict[str, Any]]:
    with sqlite3.connect(runs / "harness.db") as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(sql)]


def run(runs: Path, **flags: Any) -> None:
    settings: dict[str, Any] = {"tasks": "smoke", "limit": 1, "runs_dir": runs, "as_json": True} | flags
    sweep(**settings)


SLOW = 'sleep 4; echo \'{"status": "gave_up"}\' > "$HARNESS_RESULT_FILE"'


def test_a_measured_run(harness: Any, tmp_path: Path, counters: None, capsys: pytest.CaptureFixture[str]) -> None:
    agent = harness.agent("slow", SLOW)
    run(tmp_path / "r", agents=agent, idle_s=3.0, require="measured", country="NOR", repeats=2, idle_every=1)
    found = rows(tmp_path / "r", "SELECT * FROM runs_summary ORDER BY run_id")
    assert [row["energy_source"] for row in found] == ["counters", "counters"]
    for row in found:
        assert (row["energy_kind"], row["energy_coverage"]) == ("measured", "cpu+dram")
        assert row["energy_j"] == pytest.approx((PACKAGE_W + DRAM_W) * row["agent_s"], rel=0.02)
        assert row["peak_w"] == pytest.approx(PACKAGE_W + DRAM_W, rel=0.1)
        # The stand-in draws the same whatever happens, so nothing is left when idle is taken off.
        assert abs(row["net_energy_j"]) < 0.03 * row["energy_j"]
        assert not json.loads(row["flags"]) or row["left_out"] in (None, "neighbour_busy", "harness_busy")
    phases = rows(tmp_path / "r", "SELECT * FROM energy WHERE source = 'counters' AND component = 'total'")
    first = [row for row in phases if row["run_id"].endswith("0000") and row["layer"] == "gross"]
    by_phase = {row["phase"]: row["joules"] for row in first}
    assert by_phase["between_calls"] == pytest.approx(by_phase["agent"])
    assert by_phase["grading"] is not None or "shorter" in next(r["detail"] for r in first if r["phase"] == "grading")
    assert {row["component"] for row in rows(tmp_path / "r", "SELECT * FROM energy")} >= {"cpu", "dram", "framework"}
    idle = rows(tmp_path / "r", "SELECT * FROM idle WHERE source = 'counters'")
    assert [row["before_position"] for row in idle] == [0, 1]
    assert all(row["watts"] == pytest.approx(PACKAGE_W + DRAM_W, rel=0.02) for row in idle)
    [session] = rows(tmp_path / "r", "SELECT * FROM sessions")
    assert session["country"] == "NOR"
    assert session["carbon_g_per_kwh"] > 0
    assert json.loads(session["sources"])["parts"]["rapl"]
    [whole] = rows(tmp_path / "r", "SELECT * FROM session_energy WHERE source = 'counters'")
    assert whole["joules"] == pytest.approx((PACKAGE_W + DRAM_W) * session["duration_s"], rel=0.05)
    files = list((tmp_path / "r").rglob("power.json.gz"))
    assert len(files) == 2
    kept = json.loads(gzip.decompress(files[0].read_bytes()))
    assert {series["source"] for series in kept["series"]} >= {"rapl"}
    assert all(len(series["t_s"]) > 30 for series in kept["series"] if series["source"] == "rapl")


def test_a_run_that_uses_up_its_energy_is_ended(harness: Any, tmp_path: Path, counters: None) -> None:
    agent = harness.agent("slow", "sleep 60")
    run(tmp_path / "r", agents=agent, idle_s=0.0, max_energy="200J")
    [row] = rows(tmp_path / "r", "SELECT * FROM runs")
    assert row["ended_by"] == "budget_energy"
    assert row["ended_detail"].startswith("the limit of 200 J was reached: ")
    assert 200 / (PACKAGE_W + DRAM_W) < row["agent_s"] < 30


@pytest.mark.network
def test_the_phases_of_a_run_with_calls(harness: Any, tmp_path: Path, counters: None) -> None:
    answer = {"text": "I look.\n\n```mswea_bash_command\nsleep 0.5\n```\n", "first_token_delay_s": 2.5,
              "chunk_words": 1, "delay_s": 0.1}  # fmt: skip
    submit = {"text": "Done.\n\n```mswea_bash_command\necho COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT\n```\n"}
    run(tmp_path / "r", agents="mini-swe-agent", models=harness.script(answer, answer, submit), idle_s=2.5)
    [found] = rows(tmp_path / "r", "SELECT * FROM runs_summary")
    assert (found["ended_by"], found["calls"], found["engine_location"]) == ("submitted", 3, "local")
    total_w = PACKAGE_W + DRAM_W
    energy = rows(
        tmp_path / "r",
        "SELECT * FROM energy WHERE source = 'counters' AND component = 'total' AND layer = 'gross'",
    )
    by_phase = {row["phase"]: row["joules"] for row in energy}
    assert by_phase["prefill"] + by_phase["decode"] + by_phase["between_calls"] + by_phase["tail"] == pytest.approx(
        by_phase["agent"]
    )
    calls = rows(tmp_path / "r", "SELECT * FROM calls ORDER BY call_index")
    assert by_phase["prefill"] == pytest.approx(total_w * sum(call["first_token_s"] for call in calls), rel=0.05)
    of_calls = {(row["call_index"], row["phase"]): row for row in rows(tmp_path / "r", "SELECT * FROM call_energy")}
    long, short = of_calls[0, "prefill"], of_calls[0, "decode"]
    assert long["joules"] == pytest.approx(total_w * calls[0]["first_token_s"], rel=0.05)
    assert short["joules"] is None
    assert short["low_j"] <= total_w * short["duration_s"] <= short["high_j"]
    assert short["tokens"] == calls[0]["output_tokens"]
    split = rows(tmp_path / "r", "SELECT * FROM energy WHERE phase = 'between_calls' AND component != 'total'")
    assert sum(row["joules"] for row in split) == pytest.approx(by_phase["between_calls"])
    assert {row["kind"] for row in split} == {"estimated"}


def test_several_at_a_time_have_no_energy_of_their_own(harness: Any, tmp_path: Path, counters: None) -> None:
    agent = harness.agent("slow", SLOW)
    run(tmp_path / "r", agents=agent, idle_s=0.0, slots=3, repeats=3)
    found = rows(tmp_path / "r", "SELECT * FROM runs_summary ORDER BY run_id")
    assert len(found) == 3
    for row in found:
        assert (row["energy_j"], row["energy_kind"]) == (None, "unavailable")
        assert "shared_machine" in json.loads(row["flags"])
    [whole] = rows(tmp_path / "r", "SELECT * FROM session_energy WHERE source = 'counters'")
    [session] = rows(tmp_path / "r", "SELECT * FROM sessions")
    assert whole["joules"] == pytest.approx((PACKAGE_W + DRAM_W) * session["duration_s"], rel=0.05)
    # They did go on together: three of four seconds each.
    assert session["duration_s"] < 12


def test_what_this_machine_really_has(harness: Any) -> None:
    agent = harness.agent("slow", SLOW)
    done = harness("sweep", "--agents", agent, "--tasks", "smoke", "--limit", "1", "--idle", "3", "--warmup", "1",
                   "--control-every", "1")  # fmt: skip
    assert done.code == 0, done.err
    assert "energy: " in done.out
    [row] = harness.rows("SELECT * FROM runs_summary")
    assert row["energy_kind"] in ("measured", "estimated", "estimated_constant")
    if row["energy_kind"] == "estimated_constant":
        assert "energy_is_a_clock" in row["flags"]
        assert harness.rows("SELECT * FROM energy WHERE phase IN ('prefill', 'decode', 'between_calls')") == []
    jobs = harness.rows("SELECT * FROM jobs ORDER BY number")
    assert [(job["job"], job["before_position"]) for job in jobs] == [("warmup", 0), ("control", 0)]
    assert all(job["duration_s"] > 0 for job in jobs)
    assert len(harness.rows("SELECT * FROM runs")) == 1  # a warm-up is none
    assert all(row["joules"] > 0 for row in harness.rows("SELECT * FROM session_energy"))
    assert not harness.containers()
    shown = harness("energy")
    assert shown.code == 0, shown.err


def test_a_sweep_that_needs_measured_energy_refuses_before_anything_is_built(harness: Any) -> None:
    if powercap.find().zones:
        pytest.skip("this machine has counters that can be read")
    done = harness("sweep", "--agents", "nop", "--tasks", "smoke", "--limit", "1", "--require", "measured")
    assert done.code == 1
    assert done.err.startswith("harness: --require measured: ")
    assert not harness.rows("SELECT * FROM sweeps")


def test_a_meter_that_says_no_number_is_refused_with_its_words(harness: Any) -> None:
    done = harness("sweep", "--agents", "nop", "--tasks", "smoke", "--limit", "1", "--meter", "command:echo warm")
    assert done.code == 1
    assert "a number of watts is expected" in done.err
    assert "'warm'" in done.err


def test_a_meter_that_stops_half_way(harness: Any) -> None:
    agent = harness.agent("slow", SLOW.replace("sleep 4", "sleep 9"))
    script = harness.folder / "meter.sh"
    script.write_text("test -e gone && exit 1\nfor n in 1 2 3 4 5; do echo 40; sleep 1; done\ntouch gone\n")
    done = harness("sweep", "--agents", agent, "--tasks", "smoke", "--limit", "1", "--meter", f"command:sh {script}")
    assert done.code == 0, done.err
    [row] = harness.rows("SELECT * FROM runs_summary")
    assert (row["energy_source"], row["energy_j"], row["energy_kind"]) == ("meter", None, "unavailable")
    assert "source_missing" in row["flags"]
    [session] = harness.rows("SELECT * FROM sessions")
    assert "the command ended with code 1" in session["sources"]


def test_a_machine_that_is_not_quiet_is_refused_or_waited_for(harness: Any) -> None:
    command = ["sweep", "--agents", "nop", "--tasks", "smoke", "--limit", "1"]
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        refused = harness(*command, "--when-busy", "refuse")
        assert refused.code == 1
        assert re.match(
            r"harness: the machine is not quiet before run 0: other programs use \d\.\d\d cores", refused.err
        )
        assert not harness.rows("SELECT * FROM runs")
        waiting = harness.popen(*command, "--when-busy", "wait")
        assert waiting.stdout is not None
        assert any("waiting for a quiet machine" in line for line in waiting.stdout)
    finally:
        busy.kill()
        busy.wait()
    out, err = waiting.communicate(timeout=120)
    assert waiting.returncode == 0, out + err
    assert len(harness.rows("SELECT * FROM runs")) == 1


def test_the_next_run_waits_until_the_machine_is_cool(
    harness: Any, tmp_path: Path, counters: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a file that stands in for a sensor: 40 °C, hot after the first run, cool again some seconds later."""
    sensor = tmp_path / "temperature"
    sensor.write_text("40000\n")
    monkeypatch.setattr("harness.meter.conditions.slow_paths", lambda: {"temperature_mc.0": sensor})
    heated = harness.folder / "heated"

    def heat() -> None:
        while not list((tmp_path / "r").rglob("power.json.gz")):
            time.sleep(0.05)
        sensor.write_text("63000\n")
        time.sleep(7)
        sensor.write_text("42000\n")
        heated.write_text(str(time.time()))

    thread = threading.Thread(target=heat)
    thread.start()
    agent = harness.agent("slow", SLOW)
    run(tmp_path / "r", agents=agent, idle_s=2.5, repeats=2, rest_band_c=3.0)
    thread.join()
    first, second = rows(tmp_path / "r", "SELECT * FROM runs ORDER BY position")
    began = datetime.fromisoformat(second["started_at"]).timestamp()
    assert began >= float(heated.read_text()) - 0.5
    assert "not_cooled" not in second["flags"]
    assert "resting until within 3 °C of idle (40 °C)" in capsys.readouterr().err
    assert json.loads(first["conditions"])["temperature_c.0"]["start"] == 40.0


def test_rest_by_temperature_needs_a_sensor(harness: Any) -> None:
    from harness.meter.conditions import slow_paths

    if any(name.startswith("temperature") for name in slow_paths()):
        pytest.skip("this machine has a sensor")
    done = harness("sweep", "--agents", "nop", "--tasks", "smoke", "--limit", "1", "--rest-band", "3")
    assert done.code == 1
    assert "--rest-band: this machine shows no temperature of its processor" in done.err


def test_a_meter_that_stands_at_no_remote_engine(harness: Any) -> None:
    nop = ["sweep", "--agents", "nop", "--tasks", "smoke", "--limit", "1"]
    done = harness(*nop, "--meter", "command:echo 5", "--meter-at", "engine")
    assert done.code == 2
    assert "--meter-at engine: no engine of this sweep is on another machine (no model is called)" in done.err
