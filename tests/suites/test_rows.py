"""Suites of a data set: what is pinned, which rows are taken, and in which words others are refused."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from harness import paths
from harness.errors import MachineError, UserError
from harness.suites import Suite, builtin_suites, load_suite, swebench
from harness.suites.reach import leave_out_unreachable

EVAL_SCRIPT = """#!/bin/bash
set -uxo pipefail
source /opt/miniconda3/bin/activate
conda activate testbed
cd /testbed
export LANG=C.UTF-8
git config --global --add safe.directory /testbed
git status
git show
git -c core.fileMode=false diff abc
source /opt/miniconda3/bin/activate
conda activate testbed
python -m pip install -e .
git checkout abc tests/test_one.py
git apply -v - <<'EOF_114329324912'
diff --git a/tests/test_one.py b/tests/test_one.py
+conda activate nothing
+: '>>>>> Start Test Output'
EOF_114329324912
: '>>>>> Start Test Output'
pytest -rA tests/test_one.py
: '>>>>> End Test Output'
git checkout abc tests/test_one.py
"""


def row(name: str = "django__django-1", **changes: Any) -> dict[str, Any]:
    return {
        "instance_id": name,
        "repo": "django/django",
        "version": "3.1",
        "base_commit": "a" * 40,
        "patch": "diff --git a/django/x.py b/django/x.py\n",
        "test_patch": "".join(f"diff --git a/{p} b/{p}\n" for p in ("tests/app/tests.py", "tests/app/a.json")),
        "problem_statement": "It is broken",
        "FAIL_TO_PASS": '["test_a (app.tests.T)"]',
        "PASS_TO_PASS": "[]",
    } | changes  # fmt: skip


def suite(folder: Path, rows: list[Any], count: int | None = None, more: str = "") -> Path:
    folder.mkdir()
    ids = [r["instance_id"] for r in rows if isinstance(r, dict) and r.get("instance_id")]
    (folder / "suite.toml").write_text(
        f'dataset = "somebody/something"\nrevision = "{"0" * 40}"\ncount = {count or len(ids)}\n'
        + (f"ids = {json.dumps(ids[:count])}\n" if ids else "")
        + f'image = "registry/sweb.eval.{{arch}}.{{id}}"\n{more}'
    )
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def refusal(folder: Path, data: str = "rows.jsonl") -> str:
    with pytest.raises(UserError) as raised:
        load_suite(str(folder), folder / data)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_the_fifty_are_pinned_by_revision_and_by_the_hash_of_their_ids() -> None:
    assert {"swe-bench-lite", "swe-bench-verified", "swe-bench-verified-mini"} < set(builtin_suites())
    mini = swebench.read_file(paths.builtin("tasks") / "swe-bench-verified-mini")
    assert mini.ids is not None
    assert (len(mini.ids), mini.ids_sha256) == (50, swebench.ids_hash(mini.ids))
    assert mini.revision == "b316c349947c29963fce3f4a65967c9807a4b673"
    assert sum(name.startswith("django__") for name in mini.ids) == 25
    assert sorted(mini.network) == sorted(f"sphinx-doc__sphinx-{n}" for n in (7985, 8269, 8475, 10435))


def test_a_row_is_a_task(tmp_path: Path) -> None:
    [task] = load_suite(str(suite(tmp_path / "mine", [row()])), tmp_path / "mine" / "rows.jsonl").tasks
    assert isinstance(task, swebench.SweBenchTask)
    assert (task.name, task.suite, task.instruction) == ("django__django-1", "mine", "It is broken")
    assert (task.fail_to_pass, task.pass_to_pass) == (("test_a (app.tests.T)",), ())
    # Data files of the test patch are no tests, and Django names its tests as modules.
    assert task.command.endswith("--parallel 1 app.tests")
    assert task.log_parser == "parse_log_django"
    assert "fix.patch" in " ".join(task.solution_files("/solution"))


def test_what_a_row_says_of_its_tests_wins_over_the_table(tmp_path: Path) -> None:
    said = row(repo="astropy/astropy", eval_script=EVAL_SCRIPT, log_parser="parse_log_astropy", image="other/image:v1")
    [task] = load_suite(str(suite(tmp_path / "mine", [said])), tmp_path / "mine" / "rows.jsonl").tasks
    assert isinstance(task, swebench.SweBenchTask)
    assert task.command == "pytest -rA tests/test_one.py"
    assert task.before == ("export LANG=C.UTF-8", "python -m pip install -e .")
    assert (task.log_parser, task.published_image) == ("parse_log_astropy", "other/image:v1")


def test_rows_are_taken_in_the_suites_order_and_others_left_aside(tmp_path: Path) -> None:
    folder = suite(tmp_path / "mine", [row("a__a-2"), row("a__a-1"), row("a__a-3")], count=2)
    assert [task.name for task in load_suite(str(folder), folder / "rows.jsonl").tasks] == ["a__a-2", "a__a-1"]


def test_the_suites_hash_follows_what_decides_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(name: str, **changes: Any) -> Suite:
        folder = suite(tmp_path / name, [row(**changes)])
        monkeypatch.setenv("HARNESS_DATA", str(folder / "rows.jsonl"))
        return load_suite(str(folder))

    first = loaded("a").hash
    assert loaded("b", hints_text="a hint", created_at="today").hash == first
    assert loaded("c", FAIL_TO_PASS='["test_b (app.tests.T)"]').hash != first


def test_wrong_rows_are_refused_in_one_sentence(tmp_path: Path) -> None:
    cases = {
        "patch is missing": [row(patch="")],
        "row 1: expected an instance_id, found None": [{"repo": "x"}],
        "line 1: expected a JSON object": [["a"]],
        "is there twice": [row(), row()],
        "FAIL_TO_PASS: expected a list of tests": [row(FAIL_TO_PASS="no")],
        "the field eval_script is missing": [row(repo="astropy/astropy")],
        "eval_script: there is no test command": [row(eval_script="true", log_parser="parse_log_django")],
        "patch: expected a text, found int": [row(patch=1)],
        "patch: expected Unicode text": [row(patch="\ud800")],
        "FAIL_TO_PASS: expected at least one test": [row(FAIL_TO_PASS="[]")],
        "FAIL_TO_PASS: expected a list of tests, found": [row(FAIL_TO_PASS={"a": 1})],
        **{
            f"expected an instance_id, found {name!r}": [row(name)]
            for name in ("..", "../../x", "a/b", "-rf", "a b", "$(id)", "a\n", "x" * 200, "ü")
        },
        "repo: expected owner/name, found '../x'": [
            row(repo="../x", eval_script=EVAL_SCRIPT, log_parser="parse_log_pytest")
        ],
        # Both are words of a git command, and neither may become an option of it.
        "base_commit: expected a full commit id, found '--upload-pack=true'": [row(base_commit="--upload-pack=true")],
        "repo: expected owner/name, found": [
            row(repo="--x/../y z", eval_script=EVAL_SCRIPT, log_parser="parse_log_pytest")
        ],
    }
    for number, (expected, rows) in enumerate(cases.items()):
        said = refusal(suite(tmp_path / str(number), rows, count=1))
        assert expected in said, said
        assert "rows.jsonl" in said


def test_the_name_of_a_test_file_is_a_word_of_the_shell_and_no_more(tmp_path: Path) -> None:
    patch = "diff --git a/tests/a.py b/tests/a.py\ndiff --git a/x b/tests/$(id);`id` 'x'.py\n"
    folder = suite(tmp_path / "odd", [row(test_patch=patch, repo="sphinx-doc/sphinx")])
    [task] = load_suite(str(folder), folder / "rows.jsonl").tasks
    assert isinstance(task, swebench.SweBenchTask)
    assert shlex.split(task.command)[-2:] == ["tests/a.py", "tests/$(id);`id` 'x'.py"]


def test_a_file_with_too_few_rows_names_the_first_that_is_missing(tmp_path: Path) -> None:
    folder = suite(tmp_path / "mine", [row("a__a-1"), row("a__a-2")])
    lines = (folder / "rows.jsonl").read_text().splitlines(keepends=True)
    (folder / "rows.jsonl").write_text(lines[1])
    assert "holds 1 of the 2 instances of mine: a__a-1 is missing" in refusal(folder)
    (folder / "rows.jsonl").write_text(lines[0] + "{not json\n")
    assert "line 2: expected JSON Lines" in refusal(folder)
    assert "there is no such file" in refusal(folder, "nowhere.jsonl")
    (folder / "rows.jsonl").write_bytes(b"\xff\xfe")
    assert "expected JSON Lines in UTF-8" in refusal(folder)


def test_a_malformed_suite_toml_is_refused(tmp_path: Path) -> None:
    cases = {
        "revision: ": 'revision = "main"\n',
        "no_such_field": "no_such_field = 1\n",
        "ids: they are 1": f'ids_sha256 = "{"0" * 64}"\n',
        "is not in ids": '[network]\n"b__b-1" = ["example.org"]\n',
        "test_timeout_s: expected": "test_timeout_s = inf\n",
    }
    for number, (expected, more) in enumerate(cases.items()):
        folder = suite(tmp_path / str(number), [row("a__a-1")], more=more)
        text = (folder / "suite.toml").read_text()
        if "main" in more:
            (folder / "suite.toml").write_text(text.replace(f'revision = "{"0" * 40}"\n', ""))
        assert expected in refusal(folder)


def test_a_data_set_or_revision_that_is_not_there_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    folder = suite(tmp_path / "mine", [row()])

    def raising(error: Exception) -> None:
        def load_dataset(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)

    raising(datasets.exceptions.DatasetNotFoundError("Revision '000' doesn't exist"))
    with pytest.raises(UserError, match="the hub has no data set somebody/something at revision 000000000000"):
        load_suite(str(folder))
    raising(ConnectionError("no route"))
    with pytest.raises(MachineError, match=r"can't be fetched \(no route\): name a file of its rows with --data"):
        load_suite(str(folder))


def test_data_for_a_suite_of_folders_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the tasks of suite smoke are folders"):
        load_suite("smoke", tmp_path / "rows.jsonl")


def test_tasks_whose_hosts_do_not_answer_are_left_out_and_the_hash_knows(tmp_path: Path) -> None:
    folder = suite(tmp_path / "mine", [row("a__a-1"), row("a__a-2")], more='[network]\n"a__a-2" = ["example.org"]\n')
    whole = load_suite(str(folder), folder / "rows.jsonl")
    asked: list[str] = []

    def silent(host: str) -> bool:
        asked.append(host)
        return False

    here = leave_out_unreachable(whole, [], silent)
    assert [task.name for task in here.tasks] == ["a__a-1"]
    assert {task.name: task.reason for task in here.left_out} == {
        "a__a-2": "its tests reach example.org, which this machine does not"
    }
    assert here.hash != whole.hash
    assert asked == ["example.org"]
    connected = leave_out_unreachable(whole, [], lambda host: True)
    assert (connected.hash, connected.left_out) == (whole.hash, ())
    with pytest.raises(UserError, match="a__a-2 can't be run and graded here"):
        leave_out_unreachable(whole, ["a__a-2"], silent)
