"""Six of the real fifty, built from Debian and the package index alone, and graded as published."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.docker, pytest.mark.network, pytest.mark.dataset]

SUITE = "swe-bench-verified-mini"
# A release before the fix and releases that it was taken off; fixes that go on with tolerance only; names of tests
# that are docstrings; both ways in which Sphinx was packaged; one, two and many hunks.
SIX = (
    "django__django-11790",
    "django__django-11880",
    "django__django-12209",
    "sphinx-doc__sphinx-8265",
    "sphinx-doc__sphinx-9367",
    "sphinx-doc__sphinx-10673",
)


@pytest.fixture(scope="module")
def built(harness_in, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    harness = harness_in(tmp_path_factory.mktemp("build"))
    done = harness("tasks", "build", SUITE, "--only", ",".join(SIX), "--json", timeout_s=1500)
    assert done.code == 0, done.err
    rows: list[dict[str, Any]] = done.json()["images"]
    return rows


def test_six_are_built_and_a_second_time_there_is_nothing_to_do(harness, built) -> None:
    assert [(row["state"], row["source"], row["python"]) for row in built] == [("built", "archive", "3.9")] * 6
    again = harness("tasks", "build", SUITE, "--only", ",".join(SIX), "--json")
    assert [row["image"] for row in again.json()["images"]] == [row["image"] for row in built]
    assert "building" not in again.err


@pytest.mark.usefixtures("built")
def test_gold_resolves_and_nothing_less_does(harness) -> None:
    done = harness("tasks", "verify", SUITE, "--only", ",".join(SIX), "--json", timeout_s=1200)
    assert done.code == 0, done.out
    rows = {row["task"]: row for row in done.json()["tasks"]}
    assert set(rows) == set(SIX)
    for row in rows.values():
        assert (row["oracle"], row["nop"], row["untouched"]) == ("resolved", "empty_patch", "unresolved")
        assert row["wrong"] in ("unresolved", "one_hunk")
        assert row["image_source"] in ("rebuilt_from_archive", "rebuilt_from_commit")  # where both are here, the nearer
        assert row["own_bytes"] < 150 << 20
    assert any(row["wrong"] == "unresolved" for row in rows.values())


@pytest.mark.usefixtures("built")
def test_nothing_that_gives_the_fix_away_is_in_reach_of_an_agent(harness) -> None:
    """The hidden tests, the fix and the names of the tests, wherever an agent may read; and every shell's Python."""
    from harness.suites import choose, load_suite

    [task] = choose(load_suite(SUITE), ["django__django-11880"], None).tasks
    added = [line[1:].strip() for line in task.gold_patch.splitlines() if line.startswith("+") and line[1:].strip()]
    secret = max((line for line in added if not line.startswith("++")), key=len)
    hidden = max((line[1:].strip() for line in task.test_patch.splitlines() if line.startswith("+    ")), key=len)
    script = f"""
    {{
      grep -rlF {shlex.quote(secret)} / --exclude-dir={{proc,sys,dev,agent}} 2>/dev/null
      grep -rlF {shlex.quote(hidden)} / --exclude-dir={{proc,sys,dev,agent}} 2>/dev/null
      echo searched
      git log --all --format=tformat:one-commit; git remote; git tag; git reflog; git fsck --lost-found
      ls docs/releases CHANGES 2>/dev/null
      for shell in "bash -c" "bash -lc" "sh -c" "env -i bash -c"; do
        $shell 'python -c "import django; print(django.__file__)"'
      done
    }} > "$HARNESS_OUT_DIR/seen" 2>&1
    """
    path = harness.agent("spy", "#!/bin/bash\n" + script, runner="spy")
    (Path(path) / "spy").chmod(0o755)
    done = harness("sweep", "--agents", path, "--tasks", SUITE, "--only", task.name, "--json")
    assert done.code == 0, done.err
    seen = harness.left("seen").splitlines()
    assert seen[0] == "searched", seen[:5]
    assert seen[1:] == ["one-commit", *["/testbed/django/__init__.py"] * 4]
    [row] = harness.rows("SELECT * FROM runs")
    assert (row["image_source"], row["image_origin"]) == (
        "rebuilt_from_archive",
        "Django-3.0b1.tar.gz, Python 3.9",
    )
