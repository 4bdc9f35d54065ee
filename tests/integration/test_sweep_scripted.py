"""mini-swe-agent, unmodified, in its container, against a scripted model: success, limits, faults, kill and resume."""

from __future__ import annotations

import json
import os
import signal
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


def test_mini_resolves_a_task_in_text_and_every_figure_is_right(harness) -> None:
    model = harness.script(bash("ls"), fix(), SUBMIT)
    done = harness("sweep", *MINI, "--models", model, "--num-predict", "500")
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
