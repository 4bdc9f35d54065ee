"""What is published, in the hands of a plain user: a wheel without extras, an empty folder, a number without a name."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uv

from harness import __version__
from harness.images.dockerfiles import context_hash
from harness.suites import load_suite

CHECKOUT = Path(__file__).parents[2]
UID = 23456  # of a user that no password database knows
GENERIC = ("agents", "analysis", "runs", "tasks", "tests")


@dataclass(frozen=True)
class User:
    """Somebody who is not root. `identity` is how subprocess becomes them; empty where the tests are them already."""

    identity: dict[str, Any]
    folder: Path  # theirs; holds home/, tmp/ and work/
    venv: Path

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    def __call__(self, *words: str | Path, **environment: str | None) -> subprocess.CompletedProcess[str]:
        """Run a command in the user's work folder. An environment's None removes a name."""
        env: dict[str, str | None] = {name: value for name, value in os.environ.items() if _is_theirs(name)}
        env |= {"HOME": str(self.folder / "home"), "TMPDIR": str(self.folder / "tmp"), **environment}
        return subprocess.run(
            words,
            cwd=self.work,
            env={name: value for name, value in env.items() if value is not None},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            umask=0o077,  # what they make is theirs alone, and a container's root has to do with it all the same
            **self.identity,
        )

    def harness(self, *words: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
        return self(self.venv / "bin" / "harness", *words, **environment)

    def rows(self, sql: str) -> list[dict[str, Any]]:
        with sqlite3.connect(self.work / "runs" / "harness.db") as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute(sql)]


def _is_theirs(name: str) -> bool:
    """Not what the checkout's own environment says about Python, and not what would be another's folder."""
    return not name.startswith(("HARNESS_", "PYTHON", "VIRTUAL_ENV", "XDG_"))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Built from the checkout, and from the sdist that the checkout gives."""
    built = []
    for name, flags in (("checkout", ["--wheel"]), ("sdist", [])):
        folder = tmp_path_factory.mktemp(name)
        subprocess.run(
            [sys.executable, "-m", "build", "--no-isolation", *flags, "--outdir", folder, CHECKOUT],
            check=True,
            capture_output=True,
            timeout=120,
        )
        built.append(next(folder.glob("*.whl")))
    return built[0], built[1]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that everybody may enter, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="harness-wheel-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture(scope="module")
def user(wheels: tuple[Path, Path], folder: Path) -> User:
    made = User(_identity(), folder / "theirs", folder / "venv")
    for path in (made.folder, made.folder / "home", made.folder / "tmp", made.work):
        path.mkdir()
        if made.identity:
            os.chown(path, UID, UID)
    base = _python(made)
    # As a user does it, but with the versions that everything else was tested with.
    install = ["pip", "install", "--python", made.python, "--constraints", CHECKOUT / "requirements.lock", wheels[0]]
    for words in (["venv", "--no-project", "--python", base, made.venv], install):
        done = subprocess.run(
            [uv.find_uv_bin(), "--quiet", *words], capture_output=True, text=True, check=False, timeout=300, umask=0o022
        )
        assert done.returncode == 0, done.stderr
    return made


def _identity() -> dict[str, Any]:
    """Another user who may use Docker, if the tests may become one."""
    if os.geteuid() != 0:
        return {}
    identity: dict[str, Any] = {"user": UID, "group": UID, "extra_groups": []}
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if host.startswith("unix://"):
        socket = Path(host.removeprefix("unix://")).stat()
        if not socket.st_mode & stat.S_IWOTH:
            if not socket.st_mode & stat.S_IWGRP:
                pytest.skip(f"{host} is open to its owner alone: there is no way for a plain user to use Docker")
            identity["extra_groups"] = [socket.st_gid]
    return identity


def _python(user: User) -> str:
    """A Python that this user may run; the tests' own may lie in root's home."""
    for python in ("/usr/bin/python3", "/usr/local/bin/python3", os.path.realpath(sys.executable)):
        try:
            done = user(python, "-c", "import sys; print(sys.version_info >= (3, 11))")
        except OSError:
            continue
        if done.stdout.strip() == "True":
            return python
    pytest.skip("no Python 3.11 or newer that a plain user may run: /usr/bin/python3 is missing or older")


def test_a_wheel_holds_the_package_with_its_data_and_nothing_else(wheels: tuple[Path, Path]) -> None:
    from_checkout, from_sdist = (set(zipfile.ZipFile(wheel).namelist()) for wheel in wheels)
    assert from_checkout == from_sdist
    assert {name.split("/")[0] for name in from_checkout} == {
        "harness",
        f"agent_energy_harness-{__version__}.dist-info",
    }
    assert {"harness/analysis/summary.py", "harness/analysis/summary.html.j2", "harness/py.typed"} <= from_checkout
    assert {f"harness/analysis/report/report.{ending}" for ending in ("html.j2", "typ")} <= from_checkout
    pages = {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "harness" / "view").rglob("*.*") if path.is_file()}
    assert {name for name in pages if "__pycache__" not in name} <= from_checkout
    for top in ("agents", "tasks"):
        data = {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / top).rglob("*") if path.is_file()}
        inside = {name.removeprefix("harness/_data/") for name in from_checkout if f"/_data/{top}/" in name}
        assert inside == {name for name in data if "__pycache__" not in name}
    assert not [name for name in from_checkout if name.endswith((".pyc", ".db"))]
    assert {name.split("/")[2] for name in from_checkout if name.startswith("harness/_data/")} == {"agents", "tasks"}


@pytest.mark.docker
@pytest.mark.network
class TestAPlainUser:
    def test_finds_no_generic_name_and_the_same_data(self, user: User) -> None:
        for name in GENERIC:
            assert f"No module named '{name}'" in user(user.python, "-c", f"import {name}").stderr
        found = user(user.python, "-c", "from harness.paths import builtin; print(builtin('tasks'), builtin('agents'))")
        for path in map(Path, found.stdout.split()):
            assert path.is_relative_to(user.venv)
            # Names, contents and what may be executed: the images that are built from it are the checkout's, too.
            assert context_hash(path) == context_hash(CHECKOUT / path.name)

    def test_looks_around(self, user: User) -> None:
        before = list(user.work.iterdir())
        assert user.harness("--version").stdout == f"harness {__version__}\n"
        assert "sweep" in user.harness("--help").stdout
        agents = user.harness("agents", "list", "--json")
        assert {"mini-swe-agent", "nop", "oracle"} <= {row["agent"] for row in json.loads(agents.stdout)}, agents
        tasks = user.harness("tasks", "list", "smoke", "--json")
        assert len(json.loads(tasks.stdout)) == len(load_suite("smoke").tasks), tasks
        doctor = user.harness("doctor", "--json")
        checks = {row["check"]: row for row in json.loads(doctor.stdout)}
        assert doctor.returncode == 0, doctor
        assert checks["docker"]["state"] == checks["git"]["state"] == "ok"
        for check, extra in (("energy", "energy"), ("llama.cpp", "llamacpp")):
            assert checks[check]["state"] == "look"
            assert f"pip install 'agent-energy-harness[{extra}]'" in checks[check]["found"]
        assert list(user.work.iterdir()) == before  # looking writes nothing

    def test_sweeps_the_controls(self, user: User) -> None:
        done = user.harness("sweep", "--agents", "oracle,nop", "--tasks", "smoke", "--limit", "1", "--json")
        assert done.returncode == 0, done.stderr
        sweep = json.loads(done.stdout)["sweep_id"]
        runs = user.rows(f"SELECT agent, outcome FROM runs_summary WHERE sweep_id = '{sweep}' ORDER BY agent")
        assert [tuple(run.values()) for run in runs] == [("nop", "no_patch"), ("oracle", "resolved")]
        energy = user.rows(f"SELECT joules, kind FROM energy JOIN runs USING (run_id) WHERE sweep_id = '{sweep}'")
        assert [tuple(row.values()) for row in energy] == [(None, "unavailable")] * 2
        assert "oracle" in (user.work / "runs" / sweep / "summary.html").read_text()
        _leaves_only_what_is_theirs(user)

    @pytest.mark.parametrize("temporary", ["tmp", "tmp/" + "long/" * 18], ids=["tmp", "long-tmp"])
    def test_sweeps_a_framework_through_the_gateway(self, user: User, harness: Any, temporary: str) -> None:
        """The bundle, the socket and the forwarder, none of which root's rights help here."""
        patch = (load_suite("smoke").tasks[0].folder / "solution" / "fix.patch").read_text()
        commands = [f"patch -p1 <<'EOF'\n{patch}EOF", "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"]
        answers = [{"text": f"Now.\n\n```mswea_bash_command\n{command}\n```\n"} for command in commands]
        script = user.folder.with_name("script.toml")
        shutil.copyfile(harness.script(*answers).removeprefix("scripted/"), script)
        script.chmod(0o644)
        words = ["--agents", "mini-swe-agent", "--models", f"scripted/{script}", "--tasks", "smoke", "--limit", "1"]
        user("mkdir", "-p", user.folder / temporary)
        done = user.harness("sweep", *words, "--json", TMPDIR=str(user.folder / temporary))
        assert done.returncode == 0, done.stderr
        [run] = json.loads(done.stdout)["runs"]
        assert (run["verdict"], run["ended_by"], run["calls"]) == ("resolved", "submitted", 2), run["ended_detail"]
        _leaves_only_what_is_theirs(user)

    @pytest.mark.parametrize("engine", ["llamacpp", "litellm"])
    def test_is_told_what_to_install(self, user: User, engine: str) -> None:
        words = ["--agents", "mini-swe-agent", "--tasks", "smoke", "--models", f"{engine}/smollm2:135m"]
        done = user.harness("sweep", *words)
        assert done.returncode == 2, done
        assert f"pip install 'agent-energy-harness[{engine}]'" in _sentence(done)

    @pytest.mark.parametrize(
        ("environment", "sentence"),
        [
            ({"HOME": None}, "set HOME"),
            ({"HOME": "/proc/nobody"}, "HARNESS_CACHE"),
            ({"HARNESS_CACHE": "/usr"}, "HARNESS_CACHE"),
            ({"PATH": "/nonexistent", "HARNESS_CACHE": "fresh"}, "git is not installed"),
            ({"DOCKER_HOST": "unix:///nonexistent.sock"}, "Docker does not answer"),
            ({"HARNESS_RUNS": "/usr/runs"}, "/usr/runs can't be written"),
        ],
        ids=["no-home", "home-is-read-only", "cache-is-roots", "no-git", "no-docker", "runs-are-read-only"],
    )
    def test_is_told_what_is_missing(self, user: User, environment: dict[str, str | None], sentence: str) -> None:
        if environment == {"HOME": None} and not user.identity:
            pytest.skip("this user is in the password database, and so has a home without HOME")
        done = user.harness("sweep", "--agents", "nop", "--tasks", "smoke", "--limit", "1", **environment)
        assert done.returncode == 1, done
        assert sentence in _sentence(done)


def _sentence(done: subprocess.CompletedProcess[str]) -> str:
    """What the command ended with: one line, no traceback."""
    assert "Traceback" not in done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith("harness: ")
    return line


def _leaves_only_what_is_theirs(user: User) -> None:
    """Everything below their folder belongs to them, and nothing stays where temporary things were."""
    uid = UID if user.identity else os.geteuid()
    assert {path.lstat().st_uid for path in user.folder.rglob("*")} == {uid}
    assert not [path for path in (user.folder / "tmp").rglob("*") if not path.is_dir() or path.name != "long"]
