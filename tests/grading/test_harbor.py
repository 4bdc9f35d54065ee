"""Verdicts: what the tests say, and what is said when they say nothing."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import docker
import pytest

from harness.grading.grade import grade
from harness.grading.trial import Cancelled
from harness.sandbox import daemon
from harness.sandbox.archive import Limited
from harness.sandbox.container import Limits, running, tar_of
from harness.sandbox.removal import wait_for_removals
from harness.suites import Task
from harness.suites.harbor import load_task

pytestmark = [pytest.mark.docker, pytest.mark.network]

NEVER = threading.Event()
LIMITS = Limits(cpus=2, memory_bytes=1 << 30, disk_bytes=1 << 30, deadline_s=120)
ADDS_A_FILE = b"""diff --git a/new.py b/new.py
new file mode 100644
--- /dev/null
+++ b/new.py
@@ -0,0 +1 @@
+x = 1
"""


def with_tests(task: Task, folder: Path, script: str) -> Task:
    """The same task with another tests/test.sh."""
    copy = folder / task.name
    shutil.copytree(task.folder, copy)
    (copy / "tests" / "test.sh").write_text(script)
    return load_task(copy, task.suite)


def test_the_fix_resolves_another_change_does_not_and_nothing_is_nothing(client, task, prepared) -> None:
    fix = (task.folder / "solution" / "fix.patch").read_bytes()
    good = grade(client, task, prepared, fix, LIMITS, NEVER)
    assert (good.verdict, good.detail) == ("resolved", None)
    assert b"OK" in good.log
    assert good.test_s is not None
    assert grade(client, task, prepared, ADDS_A_FILE, LIMITS, NEVER).verdict == "unresolved"
    assert grade(client, task, prepared, b"", LIMITS, NEVER).verdict == "empty_patch"
    wait_for_removals()


def test_a_patch_that_does_not_apply_is_rejected_with_the_reason(client, task, prepared) -> None:
    result = grade(
        client,
        task,
        prepared,
        ADDS_A_FILE.replace(b"new file mode 100644\n--- /dev/null", b"--- a/new.py"),
        LIMITS,
        NEVER,
    )
    assert result.verdict == "patch_rejected"
    assert "new.py" in (result.detail or "")


@pytest.mark.parametrize(
    ("script", "verdict", "words"),
    [
        ("exit 0", "grader_error", "left no reward"),
        ("sleep 600", "grader_error", "did not end within 3 s"),
        ("echo maybe > /logs/verifier/reward.txt", "grader_error", "left no reward"),
        ("[ -e new.py ] && sleep 600; echo 0 > /logs/verifier/reward.txt", "unresolved", "with this patch"),
        ("[ -e new.py ] && exit 1; echo 0 > /logs/verifier/reward.txt", "unresolved", "with this patch"),
        ("echo 0.5 > /logs/verifier/reward.txt", "unresolved", None),
        ("echo 1.0 > /logs/verifier/reward.txt; exit 1", "resolved", None),
        ("sleep 600 & echo 1 > /logs/verifier/reward.txt", "resolved", None),
        (
            "[ -e new.py ] && echo 1 > /logs/verifier/reward.txt && kill -9 $$; echo 0 > /logs/verifier/reward.txt",
            "unresolved",
            "were killed",
        ),
    ],
)
def test_a_failure_of_grading_is_told_from_a_failure_of_the_patch(
    client, task, prepared, tmp_path, script, verdict, words
) -> None:
    odd = replace(with_tests(task, tmp_path, script), test_timeout_s=3.0)
    result = grade(client, odd, prepared, ADDS_A_FILE, LIMITS, NEVER)
    assert result.verdict == verdict
    assert (words or "") in (result.detail or "")
    wait_for_removals()


def test_docker_gone_is_a_grader_error(task, prepared, monkeypatch) -> None:
    monkeypatch.setattr(daemon, "AWAY_LIMIT_S", 1.0)
    nowhere = docker.DockerClient(base_url="unix:///nonexistent.sock", version="1.41")
    graded = grade(nowhere, task, prepared, ADDS_A_FILE, LIMITS, NEVER)
    assert graded.verdict == "grader_error"
    assert "Docker has not answered for 1 s" in (graded.detail or "")


def test_a_file_that_became_a_folder_and_a_folder_that_became_a_link_are_graded_as_they_were(
    client, task, prepared, tmp_path
) -> None:
    """The agent's tree, taken from a container and made again in another, is the same tree."""
    script = (
        "rm README.md && mkdir README.md && echo x > README.md/inside.txt && mv shopcart lib && ln -s lib shopcart"
        " && rm -r tests && printf x > \"$(printf 'odd\\377name')\""
    )
    with running(client, prepared.image, kind="run", limits=LIMITS, files=tar_of({})) as container:
        assert container.exec(["sh", "-c", f"cd /testbed && {script}"]).code == 0
        patch = prepared.base.difference(Limited(container.stream("/testbed"), 1 << 30)).patch
    state = "cat README.md/inside.txt; readlink shopcart; ls lib | head -1; ls -d tests; ls | grep -c odd"
    tests = f"({state}) 2>&1; echo 0 > /logs/verifier/reward.txt"
    seen = grade(client, with_tests(task, tmp_path, tests), prepared, patch, LIMITS, NEVER)
    assert seen.log.decode().split("\n")[:4] == [
        "x", "lib", "__init__.py", "ls: cannot access 'tests': No such file or directory"
    ]  # fmt: skip
    assert seen.log.decode().split()[-1] == "1"
    wait_for_removals()


def test_an_interrupt_ends_the_tests(client, task, prepared, tmp_path) -> None:
    soon = threading.Event()
    threading.Timer(1.5, soon.set).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        grade(client, with_tests(task, tmp_path, "sleep 600"), prepared, ADDS_A_FILE, LIMITS, soon)
    assert time.monotonic() - began < 10
