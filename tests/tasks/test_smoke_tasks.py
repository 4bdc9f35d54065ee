"""The smoke suite without Docker: what each folder must hold, and that its tests tell broken from fixed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

SUITE = Path(__file__).resolve().parents[2] / "tasks" / "smoke"
TASKS = sorted(path for path in SUITE.iterdir() if path.is_dir())

# The same first lines in every task, so that all twelve images share their layers.
DOCKERFILE = """\
FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends curl git jq patch python3 \
&& rm -rf /var/lib/apt/lists/*
WORKDIR /testbed
COPY repo/ /testbed/
"""
DIFFICULTIES = {"easy": 4, "medium": 4, "hard": 4}

each_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def added_lines(task: Path) -> list[str]:
    """The lines that the known fix adds, without the short ones that any text may hold."""
    patch = (task / "solution" / "fix.patch").read_text(encoding="utf-8")
    lines = [line[1:].strip() for line in patch.splitlines() if line.startswith("+") and line[:3] != "+++"]
    return [line for line in lines if len(line) > 12]


def difficulty(task: Path) -> str:
    value = tomllib.loads((task / "task.toml").read_text(encoding="utf-8"))["metadata"]["difficulty"]
    assert isinstance(value, str)
    return value


def test_twelve_tasks_from_easy_to_hard() -> None:
    assert len(TASKS) == 12
    found = [difficulty(task) for task in TASKS]
    assert {word: found.count(word) for word in DIFFICULTIES} == DIFFICULTIES


def test_the_first_four_hold_two_easy_ones() -> None:
    assert [difficulty(task) for task in TASKS[:4]].count("easy") >= 2


@each_task
def test_task_toml(task: Path) -> None:
    config = tomllib.loads((task / "task.toml").read_text(encoding="utf-8"))
    assert config["version"] == "1.0"
    assert config["metadata"]["category"] == "bug-fix"
    assert config["metadata"]["tags"]
    assert config["verifier"]["timeout_sec"] > 60  # test.sh gives up after 60 s by itself
    assert config["agent"]["timeout_sec"] > 0
    assert set(config["environment"]) == {"build_timeout_sec", "cpus", "memory_mb", "storage_mb"}


@each_task
def test_layout(task: Path) -> None:
    assert (task / "environment" / "Dockerfile").read_text(encoding="utf-8") == DOCKERFILE
    repository = task / "environment" / "repo"
    assert (repository / "README.md").is_file()
    assert (repository / ".gitignore").read_text(encoding="utf-8").splitlines() == ["__pycache__/", "*.pyc"]
    assert list((repository / "tests").glob("test_*.py"))
    assert list((task / "tests").glob("test_*.py"))
    for script in (task / "tests" / "test.sh", task / "solution" / "solve.sh"):
        assert os.access(script, os.X_OK), f"{script} is not executable"


def test_grading_and_solving_are_the_same_everywhere() -> None:
    for script in ("tests/test.sh", "solution/solve.sh"):
        assert len({(task / script).read_bytes() for task in TASKS}) == 1, script


@each_task
def test_a_small_window_can_read_the_repository(task: Path) -> None:
    size = sum(path.stat().st_size for path in files_below(task / "environment" / "repo"))
    assert size < 8_000  # bytes: about 2,500 tokens


@each_task
def test_the_issue_does_not_give_the_fix_away(task: Path) -> None:
    instruction = (task / "instruction.md").read_text(encoding="utf-8")
    assert instruction.startswith("# ")
    assert "hidden" not in instruction.lower()
    assert "/tests" not in instruction
    assert added_lines(task)
    for line in added_lines(task):
        assert line not in instruction


@each_task
def test_the_agent_sees_neither_hidden_tests_nor_solution(task: Path) -> None:
    visible = files_below(task / "environment")
    hidden = [*files_below(task / "tests"), *files_below(task / "solution")]
    assert not {path.name for path in visible} & {path.name for path in hidden}
    assert not {path.read_bytes() for path in visible} & {path.read_bytes() for path in hidden}


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that nobody can read too: pytest's own are private, and under root the tests run as nobody."""
    with tempfile.TemporaryDirectory(prefix="smoke") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


class Copy:
    """A copy of a task's repository and tests, graded and solved on this machine instead of in a container."""

    def __init__(self, task: Path, folder: Path) -> None:
        for program in ("bash", "gzip", "patch", "python3", "timeout"):
            if shutil.which(program) is None:
                pytest.skip(f"{program} is not on this machine")
        self.task = task
        self.testbed = folder / "testbed"
        self.logs = folder / "logs"
        self.tests = folder / "tests"
        caches = shutil.ignore_patterns("__pycache__")
        shutil.copytree(task / "environment" / "repo", self.testbed, ignore=caches)
        shutil.copytree(task / "tests", self.tests, ignore=caches)

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        places = {
            "TESTBED": str(self.testbed),
            "VERIFIER_DIR": str(self.logs),
            # The system's Python first: nobody can't run one in root's home.
            "PATH": f"/usr/bin:/bin:{os.environ['PATH']}",
        }
        return subprocess.run(
            command,
            cwd=self.testbed,
            env={**os.environ, **places, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def reward(self) -> str:
        self.last = self.run([str(self.tests / "test.sh")])
        return (self.logs / "reward.txt").read_text(encoding="utf-8").strip()

    def solve(self) -> None:
        done = self.run([str(self.task / "solution" / "solve.sh")])
        assert done.returncode == 0, done.stdout + done.stderr

    def own_tests(self) -> None:
        done = self.run(["python3", "-m", "unittest", "discover", "-s", "tests"])
        assert done.returncode == 0, done.stderr


@each_task
def test_unresolved_before_and_resolved_after(task: Path, place: Path) -> None:
    copy = Copy(task, place)
    copy.own_tests()
    assert copy.reward() == "0"
    assert "FAILED" in copy.last.stdout
    copy.solve()
    copy.own_tests()
    assert copy.reward() == "1", copy.last.stdout
    assert not list(copy.testbed.rglob("*.orig")) + list(copy.testbed.rglob("*.rej"))


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("reminder-utc-offset", "remindme/times.py"),
        ("reminder-utc-offset", "remindme/storage.py"),
        ("log-archive-lost-files", "bin/log-archive"),
        ("log-archive-lost-files", "lib/retention.sh"),
    ],
)
def test_half_of_a_fix_in_two_files_is_not_enough(name: str, left_out: str, place: Path) -> None:
    copy = Copy(SUITE / name, place)
    copy.solve()
    shutil.copy(SUITE / name / "environment" / "repo" / left_out, copy.testbed / left_out)
    assert copy.reward() == "0"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("shopcart/basket.py", "def ("),
        ("shopcart/__init__.py", "import os\nos._exit(0)\n"),
        ("shopcart/__init__.py", "raise SystemExit(0)\n"),
        ("shopcart/__init__.py", "import unittest\nraise unittest.SkipTest\n"),
        ("shopcart/__init__.py", "import os\nos.kill(os.getpid(), 9)\n"),
        ("shopcart/__init__.py", "import os\nos.write(2, b'\\nOK\\n')\nos._exit(0)\n"),
    ],
    ids=["syntax error", "process ends", "exit 0", "skip", "killed", "says OK"],
)
def test_broken_files_are_unresolved(file: str, content: str, place: Path) -> None:
    copy = Copy(SUITE / "basket-shared-default", place)
    copy.solve()
    (copy.testbed / file).write_text(content, encoding="utf-8")
    assert copy.reward() == "0"


FORGERY = """
import glob, os, signal, sys
for path in ["{logs}/reward.txt", "{logs}/unittest.txt", *glob.glob("{tests}/*")]:
    try:
        with open(path, "w") as file:
            file.write("1")
    except OSError:
        print("kept out of", path)
with open("/proc/%d/stat" % os.getppid()) as file:
    grandparent = int(file.read().rsplit(")", 1)[1].split()[1])
for process in (grandparent, os.getppid()):
    try:
        os.kill(process, signal.SIGKILL)
    except PermissionError:
        print("not allowed to kill", process)
sys.stdout.flush()
os._exit(0)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run the tests as nobody")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not on this machine")
def test_code_under_test_can_not_write_its_own_reward(place: Path) -> None:
    copy = Copy(SUITE / "basket-shared-default", place)
    forgery = FORGERY.format(logs=copy.logs, tests=copy.tests)
    (copy.testbed / "shopcart" / "__init__.py").write_text(forgery, encoding="utf-8")
    tests = {path.name: path.read_bytes() for path in copy.tests.iterdir()}
    assert copy.reward() == "0"
    assert copy.last.returncode == 0, "test.sh was killed"
    assert copy.last.stdout.count("kept out of") == 4, copy.last.stdout
    assert copy.last.stdout.count("not allowed to kill") == 2
    assert {path.name: path.read_bytes() for path in copy.tests.iterdir()} == tests


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run the tests as nobody")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not on this machine")
def test_a_work_directory_out_of_nobodys_reach_is_no_verdict(place: Path) -> None:
    copy = Copy(SUITE / "basket-shared-default", place)
    place.chmod(0o700)
    with pytest.raises(FileNotFoundError):
        copy.reward()
    assert "no verdict: the user nobody" in copy.last.stderr


def test_files_named_like_the_standard_library_do_not_reach_the_grader(place: Path) -> None:
    copy = Copy(SUITE / "basket-shared-default", place)
    copy.solve()
    for name in ("unittest.py", "os.py", "dataclasses.py", "sitecustomize.py"):
        (copy.testbed / name).write_text("1 / 0\n", encoding="utf-8")
    assert copy.reward() == "1", copy.last.stdout
