"""What an agent must not see, the solution, the hidden tests and the future of the repository, looked for in every
place of its sandbox."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path

import docker
import pytest
import small_suite
from command_line import Harness
from places import INSIDE, Report, in_a_run, read

from harness.images.prepare import Prepared
from harness.sandbox.container import Container, Limits, running, tar_of
from harness.suites import load_suite

pytestmark = [pytest.mark.docker, pytest.mark.network]

TASK = "cinema-seats-off-by-one"
LIMITS = Limits(cpus=2, memory_bytes=1 << 30, disk_bytes=1 << 30, deadline_s=120)
PLACES = {
    "in_files", "in_the_environment_and_the_names_of_processes", "in_the_memory_of_processes",
    "in_every_object_that_git_knows", "in_what_git_has_lost", "more_than_one_commit",
}  # fmt: skip


def of_the_smoke_task() -> list[str]:
    """Lines that are in the solution or in the hidden tests alone."""
    [task] = [task for task in load_suite("smoke").tasks if task.name == TASK]
    seen = "\n".join(path.read_text() for path in (task.folder / "environment").rglob("*") if path.is_file())
    fix = re.findall(r"^\+(?!\+\+)(.*)", (task.folder / "solution" / "fix.patch").read_text(), re.M)
    tests = "\n".join(path.read_text() for path in (task.folder / "tests").glob("*.py")).splitlines()
    lines = {line.strip() for line in [*fix, *tests] if len(line.strip()) > 25}
    return sorted((line for line in lines if line not in seen and line not in task.instruction), key=len)[-8:]


def facts(words: Sequence[str]) -> dict[str, object]:
    return {"words_backwards": [word[::-1] for word in words], "workdir": "/testbed"}


def assert_nothing(report: Report) -> None:
    assert report.keys() == PLACES
    for name, attempt in report.items():
        assert attempt.got is False, f"{name}: {attempt.came}"
        # None of them was over before it had begun.
        looked = re.fullmatch(r"not in (\d+)|nothing|one commit, nothing elsewhere", attempt.came)
        assert looked, f"{name}: {attempt.came}"
        assert looked[1] is None or int(looked[1]) > 0, f"{name}: {attempt.came}"


def test_nothing_of_a_smoke_task(tmp_path: Path) -> None:
    words = of_the_smoke_task()
    assert len(words) == 8
    _, report = in_a_run(
        Harness(tmp_path), "socket", ["search", "history"], facts(words), "--tasks", "smoke", "--only", TASK
    )
    assert_nothing(report)


def test_nothing_of_an_instance_of_a_data_set(client: docker.DockerClient, tmp_path: Path) -> None:
    """Whose repository came from a git server, and whose solution and tests stand in the rows."""
    small = small_suite.write(tmp_path / "small")
    small_suite.build(small, client)
    words = [
        "titles.sort(key=str.casefold)",
        "test_order_without_regard_to_case",
        "Ulysses-7-Ulysses",
        '("Ulysses", 7, "Ulysses")',
    ]
    harness = Harness(tmp_path / "folder")
    harness.folder.mkdir()
    suite = ("--tasks", str(small.folder), "--data", str(small.data), "--only", small_suite.SHELF)
    _, report = in_a_run(harness, "socket", ["search", "history"], facts(words), *suite)
    assert_nothing(report)


PLANT = """
set -e
mkdir -p /root/.cache/pip && echo {word} | gzip > /root/.cache/pip/http
cd /testbed
echo {word} > future.py
git add -A
git -c user.name=a -c user.email=a@example.invalid commit -qm future
git reset -q --hard HEAD~1
{forget}
"""
FORGET = "git reflog expire --expire=now --all && git repack -q"
HOLD = "import time; held = ''.join(reversed('{backwards}')); time.sleep(60)"


def search(container: Container, *modules: str) -> Report:
    said = bytearray()
    exit_ = container.exec(["python3", "-B", "/attempts/attempts.py", *modules], sink=said.extend)
    assert exit_.code == 0, said
    return read(said.decode())


def test_what_is_looked_for_is_found_where_it_is(client: docker.DockerClient, prepared: Prepared) -> None:
    """In a packed file, in a process's environment, in its memory, and in commits that nothing leads to any more."""
    word = "the-one-word-that-nobody-may-read"
    entries = {f"/attempts/{file.name}": file for file in INSIDE.glob("*.py")}
    files = tar_of({**entries, "/attempts/facts.json": json.dumps(facts([word])).encode()})
    with running(client, prepared.image, kind="run", limits=LIMITS, files=files) as container:
        assert container.exec(["sh", "-c", PLANT.format(word=word, forget="")]).code == 0
        assert search(container, "history")["more_than_one_commit"].got  # by the reflog
        assert container.exec(["sh", "-c", PLANT.format(word=word, forget=FORGET)]).code == 0
        container.begin(["sh", "-c", "sleep 60"], env={"NEXT": word})
        container.begin(["python3", "-c", HOLD.format(backwards=word[::-1])])
        time.sleep(1)
        report = search(container, "search", "history")
        for name in PLACES - {"more_than_one_commit"}:
            assert report[name].got, f"{name}: {report[name].came}"
        for path in ("/root/.cache/pip/http", "/testbed/.git/objects"):
            assert path in report["in_files"].came
        assert container.exec(["sh", "-c", "cd /testbed && git remote add origin https://example.com/x.git"]).code == 0
        assert search(container, "history")["more_than_one_commit"].got
