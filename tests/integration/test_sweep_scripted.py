"""mini-swe-agent, unmodified, in its container, against a scripted model: success, limits, faults, kill and resume."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time

import pytest

from harness.store.artefacts import read_lines
from harness.suites import load_suite

pytestmark = [pytest.mark.docker, pytest.mark.network]


def bash(command: str) -> dict[str, object]:
    return {"text": f"I do it.\n\n```mswea_bash_command\n{command}\n```\n", "chunk_words": 20}


def fix() -> dict[str, object]:
    patch = (load_suite("smoke").tasks[0].folder / "solution" / "fix.patch").read_text()
    return bash(f"patch -p1 <<'EOF'\n{patch}EOF")


SUBMIT = bash("echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT")
MINI = ["--agents", "mini-swe-agent", "--tasks", "smoke", "--limit", "1", "--json"]


@pytest.mark.parametrize("door", ["socket", "relay"])
def test_mini_resolves_a_task_in_text_and_every_figure_is_right(harness, door) -> None:
    model = harness.script(bash("ls"), fix(), SUBMIT)
    done = harness("sweep", *MINI, "--models", model, "--num-predict", "500", "--door", door)
    assert done.code == 0, done.err
    [row] = harness.rows("SELECT * FROM runs")
    assert (row["verdict"], row["ended_by"], row["claimed"]) == ("resolved", "submitted", "submitted"), done.err
    assert (row["calls"], row["protocol"], row["engine"]) == (3, "text", "scripted")
    calls = harness.rows("SELECT * FROM calls ORDER BY call_index")
    assert [c["status"] for c in calls] == ["ok", "ok", "ok"]
    for name in ("input_tokens", "output_tokens"):
        assert row[name] == sum(c[name] for c in calls)
    assert calls[0]["cached_tokens"] in (0, None)
    assert len({c["seed"] for c in calls}) == 3
    folder = harness.runs / row["sweep_id"] / row["run_id"]
    journal = [json.loads(line) for line in read_lines(folder, "calls.jsonl.gz")]
    messages = {m["sha256"]: m for m in map(json.loads, read_lines(folder, "messages.jsonl.gz"))}
    # By hand: system and issue; then each step adds the answer and what came of it.
    assert [len(call["messages"]) for call in journal] == [2, 4, 6]
    assert {sha for call in journal for sha in call["messages"]} == set(messages)
    assert (
        load_suite("smoke").tasks[0].instruction.strip()[:60]
        in messages[journal[0]["messages"][1]]["message"]["content"]
    )


def test_mini_resolves_a_task_with_tools(harness) -> None:
    def call(command: str) -> dict[str, object]:
        return {"tool_calls": [{"name": "bash", "arguments": {"command": command}}]}

    patch = (load_suite("smoke").tasks[0].folder / "solution" / "fix.patch").read_text()
    model = harness.script(
        call(f"patch -p1 <<'EOF'\n{patch}EOF"),
        call("echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"),
        capabilities=["tools"],
    )
    done = harness("sweep", *MINI, "--models", model)
    [row] = harness.rows("SELECT * FROM runs")
    assert (row["verdict"], row["protocol"], row["calls"]) == ("resolved", "tools", 2), done.err
    assert [c["tool_calls"] for c in harness.rows("SELECT * FROM calls ORDER BY call_index")] == [1, 1]


@pytest.mark.parametrize(
    ("answers", "settings", "flags", "ended_by"),
    [
        ([bash("ls")], {"when_exhausted": "repeat"}, ["--max-calls", "4"], "budget_calls"),
        ([bash("ls")], {"when_exhausted": "repeat"}, ["--max-tokens", "2000"], "budget_tokens"),
        ([{"text": "Let me think about it."}], {"when_exhausted": "repeat"}, [], "format_failure"),
        ([bash("sleep 600")], {}, ["--time-limit", "6"], "timeout"),
        ([bash("ls")], {"context_tokens": 300, "when_exhausted": "repeat"}, ["--num-ctx", "300"], "context_overflow"),
        ([{"fault": "http_500"}], {"when_exhausted": "repeat"}, ["--retries", "0"], "model_error"),
        ([{"fault": "hang"}], {}, ["--time-limit", "6"], "timeout"),
        ([{"text": "word " * 50, "fault": "endless"}], {}, ["--time-limit", "6"], "timeout"),
    ],
    ids=["calls", "tokens", "format", "slow-command", "window", "engine-500", "engine-hangs", "endless-answer"],
)
def test_a_run_ends_within_its_limits_with_its_right_name(harness, answers, settings, flags, ended_by) -> None:
    model = harness.script(*answers, **settings)
    started = time.monotonic()
    done = harness("sweep", *MINI, "--models", model, *flags)
    [row] = harness.rows("SELECT * FROM runs")
    assert row["ended_by"] == ended_by, (row["ended_detail"], done.err)
    assert time.monotonic() - started < 60
    assert done.code == (1 if ended_by == "model_error" else 0)
    if "--max-calls" in flags:
        assert row["calls"] == 4
    assert not harness.containers()


def test_a_killed_sweep_resumes_with_no_run_lost_or_doubled(harness) -> None:
    script = harness.script(bash("sleep 1"), SUBMIT, when_exhausted="loop")
    words = ["sweep", "--agents", "oracle,nop,mini-swe-agent", "--models", script, "--tasks", "smoke", "--limit", "2"]
    words += ["--order", "listed"]  # so that the slow agent is at work when the four short runs are on record
    process = harness.popen(*words)
    database = harness.runs / "harness.db"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        begun = database.exists() and harness.rows("SELECT 1 FROM sqlite_master WHERE name = 'runs'")
        if begun and harness.rows("SELECT COUNT(*) AS n FROM runs")[0]["n"] >= 4 and harness.containers():
            break
        time.sleep(0.1)
    time.sleep(1.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = harness.rows("SELECT run_id, started_at FROM runs")
    assert 4 <= len(before) < 6

    changed = harness("sweep", "--resume", "--max-calls", "7")
    assert changed.code == 2
    assert "max_calls: 50 -> 7" in changed.err

    done = harness("sweep", "--resume", "--json")
    assert done.code == 0, done.err
    rows = harness.rows("SELECT * FROM runs ORDER BY position")
    assert [row["position"] for row in rows] == list(range(6))
    after = {row["run_id"]: row["started_at"] for row in rows}
    assert all(after[row["run_id"]] == row["started_at"] for row in before)
    assert harness.rows("SELECT ended_at FROM sweeps")[0]["ended_at"] is not None
    assert not harness.containers()
    again = harness("sweep", "--resume", "--json")
    assert again.code == 0
    assert len(harness.rows("SELECT * FROM runs")) == 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_cleans_up_and_says_how_to_go_on(harness, number) -> None:
    script = harness.script(bash("sleep 600"), when_exhausted="repeat")
    words = ["sweep", "--agents", "nop,mini-swe-agent", "--models", script, "--tasks", "smoke", "--limit", "1"]
    words += ["--order", "listed"]
    process = harness.popen(*words, process_group=0)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (harness.runs / "harness.db").exists() and list(harness.runs.rglob("calls.jsonl")):
            break
        time.sleep(0.1)
    time.sleep(1)
    os.killpg(process.pid, number)  # as a terminal does: everything in the group hears it
    asked = time.monotonic()
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - asked < 10
    assert process.returncode == 130, err
    assert "harness sweep --resume" in out
    assert [row["agent"] for row in harness.rows("SELECT agent FROM runs")] == ["nop"]
    assert not harness.containers()


def test_two_sweeps_on_one_database(harness) -> None:
    script = harness.script(bash("sleep 5"), SUBMIT)
    first = harness.popen("sweep", *MINI, "--models", script)
    try:
        deadline = time.monotonic() + 60
        while not list(harness.runs.rglob("calls.jsonl")) and time.monotonic() < deadline:
            time.sleep(0.1)
        second = harness("sweep", "--agents", "nop", "--tasks", "smoke", "--limit", "1")
        assert second.code == 2
        assert f"process {first.pid}" in second.err
        assert harness("runs", "list", "--json").code == 0  # reading goes on
    finally:
        first.communicate(timeout=120)
    assert first.returncode == 0


# Loops, and what a guard does about them.

LOOPING = {"when_exhausted": "repeat"}


def test_a_guard_that_stops_ends_a_looping_run_and_its_patch_is_graded_all_the_same(harness) -> None:
    model = harness.script(fix(), bash("ls"), **LOOPING)
    done = harness("sweep", *MINI, "--models", model, "--guard", "stop", "--guard-patience", "4")
    assert done.code == 0, done.err
    [row] = harness.rows("SELECT * FROM runs")
    assert (row["ended_by"], row["verdict"]) == ("stopped_by_guard", "resolved"), done.err
    assert (row["guard"], row["guard_patience"]) == ("stop", 4)
    assert "repeated_action from call 2 on, 4 steps" in row["ended_detail"]
    assert row["calls"] == 6  # the patch, the first ls, and four more
    said = harness.rows("SELECT * FROM interventions ORDER BY number")
    assert [(done["action"], done["call_index"], done["onset"], done["steps"]) for done in said] == [
        ("observed", 4, 2, 2),
        ("stopped", 6, 2, 4),
    ]
    # What was seen live is what the journal tells.
    told = harness("loops", row["run_id"], "--json").json()
    assert [(loop["kind"], loop["onset"], loop["end"], loop["steps"]) for loop in told["loops"]] == [
        ("repeated_action", 2, 5, 4)
    ]
    assert told["class"] == "resolved"
    assert [step["changed"] for step in told["steps"]][:3] == [True, False, False]
    shown = harness("runs", "show", row["run_id"])
    assert "repeated_action to 5" in shown.out
    assert "guard (stop)" in shown.out
    report = harness("report")
    assert "guard stop, patience 4: observed 1 times in 1 runs; stopped 1 times in 1 runs" in report.out


def test_a_guard_that_nudges_tells_the_model_and_the_run_goes_on(harness) -> None:
    model = harness.script(bash("ls"), bash("ls"), bash("ls"), fix(), SUBMIT)
    done = harness("sweep", *MINI, "--models", model, "--guard", "nudge")
    assert done.code == 0, done.err
    [row] = harness.rows("SELECT * FROM runs")
    assert (row["ended_by"], row["verdict"], row["guard_patience"]) == ("submitted", "resolved", None)
    [told] = harness.rows("SELECT * FROM interventions")
    assert (told["action"], told["kind"], told["call_index"]) == ("nudged", "repeated_action", 3)
    assert "`ls` was run 3 times with the same outcome" in told["text"]
    tokens = harness.rows("SELECT input_tokens FROM calls ORDER BY call_index")
    assert tokens[3]["input_tokens"] > tokens[2]["input_tokens"] + 10
    loops = harness("loops").out
    assert "guard would have stopped none" in loops  # a run that was nudged tells nothing of what would have been


def test_a_sweep_without_a_guard_says_what_one_would_have_saved(harness) -> None:
    model = harness.script(bash("ls"), **LOOPING)
    done = harness("sweep", *MINI, "--models", model, "--max-calls", "12")
    assert done.code == 0, done.err
    assert harness.rows("SELECT * FROM interventions") == []
    told = harness("loops", "--json").json()
    [cell] = told["cells"]
    assert (cell["runs"], cell["looping"], cell["stuck"], cell["calls"]["value"]) == (1, 1, 1, 11)
    assert told["failures"][0]["classes"] == {"loop: repeated_action": 1}
    [three] = [point for point in told["guard"] if point["patience"] == 3]
    calls = harness.rows("SELECT call_index, input_tokens + output_tokens AS tokens FROM calls WHERE sent")
    assert three["saved_tokens"] == sum(call["tokens"] for call in calls if call["call_index"] >= 4)
    assert (three["lost"], three["resolved"], three["lost_share"]) == (0, 0, None)
    page = next(harness.runs.glob("*/summary.html")).read_text()
    assert "loop: repeated_action" in page
    assert "never recovered" in harness("loops").out


def test_a_journal_that_is_damaged_later_spoils_no_report(harness) -> None:
    model = harness.script(bash("ls"), SUBMIT)
    assert harness("sweep", *MINI, "--models", model).code == 0
    [row] = harness.rows("SELECT * FROM runs")
    journal = harness.runs / row["sweep_id"] / row["run_id"] / "calls.jsonl.gz"
    journal.write_bytes(journal.read_bytes()[:60])
    for words in (["loops"], ["loops", row["run_id"]], ["runs", "show", row["run_id"]], ["report"], ["energy"]):
        done = harness(*words)
        assert done.code == 0, (words, done.err)
        assert "Traceback" not in done.err
    # What was found when the run was stored is kept; a run's steps are in its journal alone.
    assert "unanalysable" not in harness("loops").out
    assert "unanalysable" in harness("loops", row["run_id"]).out
    assert "calls.jsonl, line " in harness("loops", row["run_id"]).out
    with sqlite3.connect(harness.runs / "harness.db") as db:
        db.execute("DELETE FROM histories")
    assert "unanalysable" in harness("loops").out
