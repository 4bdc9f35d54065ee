"""The smallest sweep: oracle and nop, real containers, no model. What is stored, and what is left behind."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from harness.suites import load_suite

pytestmark = pytest.mark.docker


def test_oracle_resolves_nop_does_not_and_everything_is_on_record(harness) -> None:
    done = harness("sweep", "--agents", "oracle,nop", "--tasks", "smoke", "--limit", "2", "--json")
    assert done.code == 0, done.err
    rows = harness.rows("SELECT * FROM runs_summary ORDER BY run_id")
    assert len(rows) == 4
    assert {(r["agent"], r["outcome"], r["ended_by"], r["verdict"]) for r in rows} == {
        ("oracle", "resolved", "submitted", "resolved"),
        ("nop", "no_patch", "gave_up", "empty_patch"),
    }
    for row in harness.rows("SELECT * FROM runs"):
        assert (row["engine"], row["model"], row["calls"], row["input_tokens"]) == ("none", "none", None, None)
        assert row["setup_s"] + row["agent_s"] + row["grading_s"] <= row["duration_s"]
        assert row["sandbox_peak_anon_bytes"] > 0
        assert row["sandbox_peak_cgroup_bytes"] >= row["sandbox_peak_anon_bytes"] or row["cpu_s"] is None
        assert row["image_digest"].startswith("sha256:")
    artefacts = harness.rows("SELECT * FROM artefacts")
    assert {a["name"] for a in artefacts} >= {"patch.diff", "tests.log", "agent.log", "out.tar"}
    for artefact in artefacts:
        content = (harness.runs / artefact["path"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == artefact["sha256"]
        gzip.decompress(content)
    assert all(row["energy_kind"] for row in rows)
    for energy in harness.rows("SELECT * FROM energy"):
        assert energy["joules"] is not None or energy["detail"], energy
        assert energy["kind"] != "unavailable" or energy["joules"] is None
    assert (harness.runs / rows[0]["sweep_id"] / "summary.html").is_file()
    assert not harness.containers()


def test_an_only_agent_cannot_be_the_oracle_by_its_manifest(harness) -> None:
    """Another folder with the oracle's files is not given the solution."""
    from harness import paths

    runner = (paths.builtin("agents") / "oracle" / "run.sh").read_text()
    path = harness.agent("impostor", "find /opt/harness /solution -name '*sol*'; " + runner)
    done = harness("sweep", "--agents", path, "--tasks", "smoke", "--limit", "1", "--json")
    [row] = harness.rows("SELECT * FROM runs_summary")
    assert row["outcome"] == "no_patch", done.err
    log = gzip.decompress(next(harness.runs.rglob("agent.log.gz")).read_bytes()).decode()
    assert log.splitlines()[0] == "find: '/solution': No such file or directory".replace("'", log[6])
    assert "\n/" not in log


@pytest.mark.parametrize(
    ("script", "ended_by", "claimed", "exit_code"),
    [
        ('echo \'{"status": "submitted"}\' > "$HARNESS_RESULT_FILE"', "submitted", "submitted", 0),
        ("exit 0", "gave_up", None, 0),
        ("exit 7", "crashed", None, 7),
        ('echo "{]" > "$HARNESS_RESULT_FILE"', "gave_up", "unreadable", 0),
        ("trap '' TERM; while :; do sleep 1; done", "timeout", None, None),
        ("while :; do sleep 1; done", "timeout", None, 143),
        ("(trap '' TERM HUP; setsid sleep 600 &) ; exit 0", "gave_up", None, 0),
        ("kill -9 $$", "crashed", None, 137),
        ("kill -9 -1; sleep 600", "crashed", None, None),
        ('head -c 200000 /dev/zero | tr "\\0" "[" > "$HARNESS_RESULT_FILE"', "gave_up", "unreadable", 0),
        (
            'cd "$HARNESS_OUT_DIR"; head -c 70m /dev/zero > a; printf x > "$(printf "\\377")"; '
            'echo \'{"status": "gave_up"}\' > result.json',
            "gave_up",
            "gave_up",
            0,
        ),
    ],
    ids=[
        "claims",
        "no-result",
        "crash",
        "bad-result",
        "ignores-sigterm",
        "hangs",
        "leaves-a-daemon",
        "kills-itself",
        "kills-all",
        "deep-result",
        "odd-out-folder",
    ],
)
def test_exit_crash_timeout_and_missing_result_are_told_apart(harness, script, ended_by, claimed, exit_code) -> None:
    path = harness.agent("odd", script)
    words = ["--agents", path, "--tasks", "smoke", "--limit", "1", "--time-limit", "2", "--json"]
    done = harness("sweep", *words, timeout_s=60)
    [row] = harness.rows("SELECT * FROM runs")
    assert (row["ended_by"], row["claimed"], row["exit_code"]) == (ended_by, claimed, exit_code), done.err
    assert row["verdict"] == "empty_patch"
    assert not harness.containers()


def test_an_agent_that_removes_its_work_directory_is_graded_and_the_sweep_goes_on(harness) -> None:
    path = harness.agent("wiper", 'cd /; rm -rf "$HARNESS_WORKDIR"')
    done = harness("sweep", "--agents", f"{path},nop", "--tasks", "smoke", "--limit", "1", "--json")
    assert done.code == 0, done.err
    verdicts = {row["agent"]: row["verdict"] for row in harness.rows("SELECT * FROM runs")}
    assert verdicts == {"wiper": "unresolved", "nop": "empty_patch"}


def test_work_done_before_a_timeout_is_graded(harness) -> None:
    """The oracle's own work, then a hang: the patch is taken on every way out."""
    from harness.suites import load_suite

    task = load_suite("smoke").tasks[0]
    solution = (task.folder / "solution" / "fix.patch").read_text()
    path = harness.agent("slow", f"patch -p1 <<'EOF'\n{solution}\nEOF\nsleep 600")
    harness("sweep", "--agents", path, "--tasks", "smoke", "--limit", "1", "--time-limit", "2", "--json")
    [row] = harness.rows("SELECT * FROM runs_summary")
    assert (row["outcome"], row["ended_by"]) == ("resolved", "timeout")


def test_the_sandbox_has_no_network_few_rights_and_one_commit(harness) -> None:
    script = """
    {
      cat /proc/net/dev | tail -n +3 | cut -d: -f1 | tr -d ' '
      grep CapEff /proc/self/status
      grep NoNewPrivs /proc/self/status
      git log --all --format=one-commit; echo "remotes [$(git remote)] reflog [$(git reflog | wc -l)]"
      (exec 3<>/dev/tcp/1.1.1.1/80) 2>&1 && echo reached
      find / -xdev -name 'test_*.py' -path '/tests/*'
      echo "solutions [$(ls / /opt/harness | grep -c '^solution$')]"
    } > "$HARNESS_OUT_DIR/seen" 2>&1
    """
    path = harness.agent("spy", "#!/bin/bash\n" + script, runner="spy")
    (Path(path) / "spy").chmod(0o755)
    harness("sweep", "--agents", path, "--tasks", "smoke", "--limit", "1", "--json")
    seen = harness.left("seen")
    assert "CapEff:\t0000000000000000" in seen
    assert "NoNewPrivs:\t1" in seen
    assert seen.count("one-commit") == 1
    assert "reached" not in seen
    assert "unreachable" in seen or "Network" in seen
    assert seen.splitlines()[0] == "lo"
    assert "/tests/" not in seen
    assert "remotes [] reflog [0]" in seen
    assert "solutions [0]" in seen


@pytest.mark.parametrize(
    ("script", "ended_by"),
    [
        ("head -c 1500m /dev/zero | tail; exit 5", "oom"),
        ("head -c 200m /dev/zero > big; sleep 600", "disk_full"),
        ("for i in $(seq 3000); do sleep 600 & done 2>/dev/null; exit 3", "crashed"),
    ],
    ids=["memory", "disk", "processes"],
)
def test_limits_hold_and_give_the_run_its_name(harness, script, ended_by) -> None:
    path = harness.agent("greedy", script)
    words = ["--tasks", "smoke", "--limit", "1", "--memory-mb", "1024", "--disk-mb", "100", "--time-limit", "60"]
    done = harness("sweep", "--agents", path, *words, "--json", timeout_s=60)
    [row] = harness.rows("SELECT * FROM runs")
    assert row["ended_by"] == ended_by, done.err
    assert not harness.containers()


def test_a_resolved_verdict_comes_from_the_hidden_tests_alone(harness) -> None:
    """Planting a reward, or tests that lie, in the sandbox does nothing in the container that grades."""
    script = "mkdir -p /logs/verifier /tests; echo 1 > /logs/verifier/reward.txt; echo 'exit 0' > /tests/test.sh\n"
    path = harness.agent("cheat", script + "echo '# a change' >> README.md")
    harness("sweep", "--agents", path, "--tasks", "smoke", "--limit", "1", "--json")
    [row] = harness.rows("SELECT * FROM runs_summary")
    assert row["verdict"] == "unresolved"


def test_verify_proves_a_suite_and_unmasks_bad_tasks(harness, tmp_path: Path) -> None:
    from harness.suites import load_suite

    suite = tmp_path / "mine"
    suite.mkdir()
    good, wrong, always = load_suite("smoke").tasks[:3]
    for task in (good, wrong, always):
        subprocess.run(["cp", "-r", str(task.folder), str(suite)], check=True)
    (suite / wrong.name / "solution" / "solve.sh").write_text("#!/bin/sh\necho nothing\n")
    (suite / always.name / "tests" / "test.sh").write_text("echo 1 > /logs/verifier/reward.txt\n")
    done = harness("tasks", "verify", str(suite), "--json")
    assert done.code == 1
    rows = {row["task"]: row for row in json.loads(done.out)["tasks"]}
    assert [rows[task.name]["good"] for task in (good, wrong, always)] == [True, False, False]
    assert "the solution does not resolve it" in rows[wrong.name]["why"]
    assert rows[always.name]["why"] == "its tests pass without any change"


def stored(harness) -> int:
    try:
        return harness.rows("SELECT COUNT(*) AS n FROM runs")[0]["n"]
    except sqlite3.OperationalError:  # there is no database yet
        return 0


@pytest.mark.parametrize("what", ["the folder of agent editor", "task basket-shared-default"])
def test_an_agent_or_a_task_that_is_edited_in_a_sweep_ends_it_before_it_runs(harness, what) -> None:
    suite = harness.folder / "mine"
    shutil.copytree(load_suite("smoke").tasks[0].folder, suite / "basket-shared-default")
    agent = harness.agent("editor", "sleep 3\n")
    edited = Path(agent, "run.sh") if "agent" in what else suite / "basket-shared-default" / "tests" / "test.sh"
    before = edited.read_text()
    words = ["--agents", agent, "--tasks", str(suite), "--repeats", "3"]
    process = harness.popen("sweep", *words)
    deadline = time.monotonic() + 120
    while not stored(harness) and time.monotonic() < deadline:
        time.sleep(0.1)
    edited.write_text(before + "true\n")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    said = " ".join(err.split())
    assert what in said
    assert "was changed while the sweep was under way" in said
    assert stored(harness) < 3
    assert harness("sweep", "--resume").code == 2
    edited.write_text(before)
    assert harness("sweep", "--resume").code == 0
    assert stored(harness) == 3
    assert not harness.containers()
