"""A data set's instances from end to end: built, verified, swept, graded again, exported for the official command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import small_suite

pytestmark = [pytest.mark.docker, pytest.mark.network]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> small_suite.SmallSuite:
    return small_suite.write(tmp_path_factory.mktemp("suite") / "small")


@pytest.fixture(scope="module")
def built(harness_in, small: small_suite.SmallSuite, tmp_path_factory: pytest.TempPathFactory) -> Any:
    harness = harness_in(tmp_path_factory.mktemp("build"))
    done = harness("tasks", "build", str(small.folder), "--data", str(small.data), "--from", small.source, "--json")
    assert done.code == 0, done.err
    return done.json()["images"]


def words(small: small_suite.SmallSuite) -> list[str]:
    return ["--tasks", str(small.folder), "--data", str(small.data)]


def test_images_are_built_from_commits_and_found_again(harness, small, built) -> None:
    assert [(row["state"], row["source"], row["python"]) for row in built] == [("built", "commit", "3.9")] * 2
    listed = harness("tasks", "list", str(small.folder), "--data", str(small.data), "--json").json()
    assert [(row["task"], row["image"]) for row in listed] == [
        (small_suite.SHELF, "rebuilt_from_commit"),
        (small_suite.TILL, "rebuilt_from_commit"),
    ]


@pytest.mark.usefixtures("built")
def test_verify_takes_hunks_off_the_solution(harness, small) -> None:
    done = harness("tasks", "verify", str(small.folder), "--data", str(small.data), "--json")
    assert done.code == 0, done.out + done.err
    rows = done.json()["tasks"]
    assert [(row["oracle"], row["nop"], row["untouched"], row["wrong"], row["taken_off"]) for row in rows] == [
        ("resolved", "empty_patch", "unresolved", "unresolved", "1 of 2")
    ] * 2
    table = harness("tasks", "verify", str(small.folder), "--data", str(small.data), "--limit", "1")
    assert "all 1 can be trusted" in table.out


@pytest.mark.usefixtures("built")
def test_a_sweep_is_graded_again_and_exported_for_the_official_command(harness, small, tmp_path: Path) -> None:
    # An agent that edits the tests beside, and a control that is right.
    cheat = harness.agent("cheat", "find tests -name '*.py' -exec sh -c 'echo > \"$1\"' sh {} \\;\necho > CHANGES\n")
    done = harness("sweep", "--agents", f"oracle,nop,{cheat}", *words(small), "--json")
    assert done.code == 0, done.err
    rows = harness.rows("SELECT * FROM runs_summary")
    assert {(row["agent"], row["outcome"]) for row in rows} == {
        ("oracle", "resolved"),
        ("nop", "no_patch"),
        ("cheat", "unresolved"),
    }
    assert {row["image_source"] for row in rows} == {"rebuilt_from_commit"}
    for row in rows:
        flags = json.loads(row["flags"])
        assert any(flag.startswith("put_back") and "tests/" in flag for flag in flags) == (row["agent"] == "cheat")
    table = harness("report")
    assert "n = 2 tasks of small" in table.out
    assert "2 rebuilt_from_commit" in table.out
    sweep = rows[0]["sweep_id"]

    # Nothing has failed, so there is nothing to grade unless all is asked for.
    assert "no patch" in harness("grade", sweep).out
    again = harness("grade", "--again", sweep, "--json")
    assert again.code == 0, again.err
    assert {(row["agent"], row["before"], row["now"]) for row in again.json()["runs"]} == {
        ("oracle", "resolved", "resolved"),
        ("cheat", "unresolved", "unresolved"),
    }
    oracle_run = next(row["run_id"] for row in rows if row["agent"] == "oracle")
    assert "graded_at" in harness("runs", "show", oracle_run).out
    for row in harness.rows("SELECT agent, flags FROM runs"):
        assert len(json.loads(row["flags"])) == len(set(json.loads(row["flags"])))
        assert ("put_back" in row["flags"]) == (row["agent"] == "cheat")
    grades = harness.rows("SELECT run_id, COUNT(*) AS n, COUNT(log) AS logs FROM grades GROUP BY 1")
    assert sorted((row["n"], row["logs"]) for row in grades) == [(1, 0)] * 2 + [(2, 2)] * 4
    assert not harness.containers()

    files = harness("export", sweep, "--format", "swebench", "-o", str(tmp_path / "out"), "--json").json()
    assert {(file["agent"], file["predictions"], file["empty"], file["left_out"]) for file in files} == {
        ("oracle", 2, 0, 0),
        ("nop", 2, 2, 0),
        ("cheat", 2, 0, 0),
    }
    from swebench.harness.utils import get_predictions_from_file

    [oracle] = [file["file"] for file in files if file["agent"] == "oracle"]
    predictions = get_predictions_from_file(oracle, str(small.data), "test")
    gold = {task.name: task.gold_patch for task in small.load().tasks}
    assert {p["instance_id"]: p["model_patch"].splitlines()[-1] for p in predictions} == {
        name: patch.splitlines()[-1] for name, patch in gold.items()
    }


@pytest.mark.usefixtures("built")
def test_grading_that_failed_is_made_up_for_and_another_suite_is_refused(harness, small, tmp_path: Path) -> None:
    import sqlite3

    harness("sweep", "--agents", "oracle", *words(small), "--limit", "1", "--json")
    with sqlite3.connect(harness.runs / "harness.db") as db:
        db.execute("UPDATE runs SET verdict = 'grader_error'")
    done = harness("grade", "--json")
    assert [(row["before"], row["now"]) for row in done.json()["runs"]] == [("grader_error", "resolved")]
    [row] = harness.rows("SELECT verdict, verdict_detail FROM runs")
    assert (row["verdict"], row["verdict_detail"]) == ("resolved", "FAIL_TO_PASS 2 of 2, PASS_TO_PASS 3 of 3")

    text = small.data.read_text().replace("test_order_without_regard_to_case", "test_order")
    (tmp_path / "other.jsonl").write_text(text)
    refused = harness("grade", "--again", "--data", str(tmp_path / "other.jsonl"))
    assert refused.code == 2
    assert "grading by other tests would be another experiment" in refused.err
    patch = next(harness.runs.rglob("patch.diff.gz"))
    for damage in (lambda: patch.write_bytes(b"no gzip"), lambda: patch.write_bytes(b"\x1f\x8b\x08"), patch.unlink):
        damage()
        gone = harness("grade", "--again")
        assert gone.code == 2, gone.err
        assert "1 patches could not be read" in gone.err
        assert "Traceback" not in gone.err


@pytest.mark.usefixtures("built")
def test_what_is_left_out_is_said_by_plan_table_and_page(harness, small) -> None:
    suite = small.folder / "suite.toml"
    text = suite.read_text()
    try:
        suite.write_text(f'{text}\n[network]\n"{small_suite.TILL}" = ["harness.invalid"]\n')
        plan = harness("sweep", "--agents", "oracle", *words(small), "--dry-run")
        assert "n = 1 of 2 tasks of small; left out:" in plan.out
        assert f"{small_suite.TILL}: its tests reach harness.invalid, which this machine does not" in plan.out
        done = harness("sweep", "--agents", "oracle", *words(small))
        assert done.code == 0, done.err
        said = f"1 left out, which could not be graded there: {small_suite.TILL}"
        assert said in " ".join(done.out.split())
        assert said in next(harness.runs.rglob("summary.html")).read_text()
        refused = harness("sweep", "--agents", "oracle", *words(small), "--only", small_suite.TILL)
        assert (refused.code, "can't be run and graded here" in refused.err) == (2, True)
    finally:
        suite.write_text(text)
    # A sweep goes on with the tasks that it had, also where more could be graded by now.
    resumed = harness("sweep", "--resume")
    assert resumed.code == 0, resumed.err
    assert said in " ".join(resumed.out.split())


def test_what_can_not_be_built_is_said_in_one_sentence_and_the_rest_stays(harness, small, tmp_path: Path) -> None:
    build = ["tasks", "build", str(small.folder), "--data", str(small.data)]
    done = harness(*build, "--from", f"{tmp_path}/nowhere/{{repo}}", "--only", small_suite.TILL)
    if "images are built, 1 failed" not in done.out:  # it is here already, and need not be fetched
        assert done.code == 0
    released = harness(*build, "--only", small_suite.TILL)
    assert released.code == 1
    assert "can't be built from a release (there is no release): name a git server" in " ".join(released.out.split())
    assert harness(*build).out.count("is left out") == 2
    for wrong, said in {
        "--from=gitlab": "expected github, or a URL or path with {repo} in it",
        "--python=3.6": "expected VERSION=PREFIX",
        "--python=3.6=/usr": "no environment of this suite is for Python 3.6: 3.9 are",
        "--python=3.9=/nowhere": "there is no /nowhere/bin/python3.9 that can be run",
        "--only=no__such-1": "has no task 'no__such-1'",
    }.items():
        refused = harness(*build, wrong)
        assert refused.code == 2, wrong
        assert said in refused.err, refused.err
        assert refused.err.count("\n") == 1


def test_a_build_that_fails_shows_the_end_of_its_log_and_where_it_is(harness, tmp_path: Path) -> None:
    broken = small_suite.write(tmp_path / "broken")
    lock = broken.folder / "environments" / "small-py3.9.lock"
    lock.write_text(lock.read_text().replace("--hash=sha256:", "--hash=sha256:0000", 1))
    done = harness("tasks", "build", str(broken.folder), "--data", str(broken.data), "--from", broken.source, "--json")
    assert done.code == 1
    errors = {row["error"] for row in done.json()["images"]}
    assert len(errors) == 1
    [error] = errors
    assert "environment-small-py3.9 does not build (exit code" in error
    assert error.count("\n") == 0
    log = Path(error.rpartition("all of it: ")[2].rstrip(")"))
    assert "hash" in log.read_text().lower()


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize(
    ("name", "script", "verdict", "detail"),
    [
        (small_suite.TILL, "echo 'print(\"ERROR:\")' >> till/__init__.py", "unresolved", "can't read"),
        (small_suite.TILL, "rm -rf tests; echo x > tests", "resolved", "FAIL_TO_PASS 3 of 3"),
        (small_suite.TILL, "rm -rf tests; ln -s till tests", "resolved", "FAIL_TO_PASS 3 of 3"),
        (small_suite.SHELF, "echo 'print(9000000 * \"y\")' >> shelf/__init__.py", "resolved", "FAIL_TO_PASS 2 of 2"),
    ],
    ids=["a log that breaks the official reader", "tests are a file", "tests are a link", "nine megabytes of log"],
)  # fmt: skip
def test_an_agent_neither_ends_the_sweep_nor_leaves_the_count(harness, small, name, script, verdict, detail) -> None:
    """The known solution, and besides something that grading might stumble over."""
    fix = small.task(name).gold_patch
    path = harness.agent("odd", f"git apply <<'EOF'\n{fix}EOF\n{script}\n")
    done = harness("sweep", "--agents", f"{path},nop", *words(small), "--only", name, "--json")
    assert done.code == 0, done.err
    rows = {row["agent"]: row for row in harness.rows("SELECT * FROM runs")}
    assert len(rows) == 2
    assert (rows["odd"]["verdict"], detail in rows["odd"]["verdict_detail"]) == (verdict, True), rows["odd"]
    assert not harness.containers()
