"""Plugging in an agent of one's own: new, check, build, and what each says to somebody who made a mistake."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.sandbox.daemon import KIND, connect


def git(*words: str, cwd: Path) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    return subprocess.run(
        ["git", *identity, *words], cwd=cwd, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def no_bundle_stays() -> Iterator[None]:
    """For tests whose bundles nobody would use again: each has some hundred megabytes."""

    def bundles() -> set[str]:
        return {volume.name for volume in connect().volumes.list(filters={"label": f"{KIND}=bundle"})}

    before = bundles()
    yield
    for name in bundles() - before:
        connect().volumes.get(name).remove(force=True)


@pytest.fixture
def framework(tmp_path: Path) -> tuple[Path, str]:
    """A framework that only git has, at a commit that is not its newest, with much that it does not need."""
    repository = tmp_path / "upstream" / "tiny"
    (repository / "tiny").mkdir(parents=True)
    (repository / "results").mkdir()
    git("init", "-q", "-b", "main", cwd=repository)
    (repository / "tiny" / "__init__.py").write_text("WORD = 'pinned'\n")
    (repository / "results" / "film.bin").write_bytes(os.urandom(200_000))
    git("add", "-A", cwd=repository)
    git("commit", "-qm", "one", cwd=repository)
    commit = git("rev-parse", "HEAD", cwd=repository)
    (repository / "tiny" / "__init__.py").write_text("WORD = 'newer'\n")
    git("commit", "-qam", "two", cwd=repository)
    return repository, commit


WRITER = """
import json, os
try:
    open("/opt/agent/venv/x", "w")
except OSError as error:
    said = error.strerror
with open(os.environ["HARNESS_RESULT_FILE"], "w") as result:
    json.dump({"status": "gave_up", "message": said}, result)
"""


def tiny_agent(folder: Path, repository: str, commit: str) -> Path:
    folder.mkdir()
    (folder / "agent.toml").write_text(
        'name = "tiny-agent"\ngroup = "example"\nsummary = "x"\nversion = "1"\ncalls_model = false\n'
        f'[source]\nrepository = "{repository}"\ncommit = "{commit}"\npaths = ["tiny"]\n'
    )
    (folder / "run.py").write_text(
        "import json, os, pathlib, tiny\n"
        "source = pathlib.Path(tiny.__file__).parents[1]\n"
        "said = {'word': tiny.WORD, 'has': sorted(path.name for path in source.iterdir())}\n"
        "result = {'status': 'gave_up', 'message': 'as told', 'details': said}\n"
        "pathlib.Path(os.environ['HARNESS_RESULT_FILE']).write_text(json.dumps(result))\n"
    )
    return folder


@pytest.mark.docker
@pytest.mark.network
def test_a_new_agent_works_at_once(harness) -> None:
    done = harness("agents", "new", "my-agent")
    assert done.code == 0, done.err
    assert "harness agents check ./my-agent" in done.out
    again = harness("agents", "new", "my-agent")
    assert again.code == 2
    assert "exists already" in again.err
    done = harness("agents", "check", "./my-agent", "--only", "solves,rambles,crashes,network,window-full", "--json")
    assert done.code == 0, done.out + done.err
    rows = {row["scenario"]: row for row in done.json()["scenarios"]}
    assert (rows["solves"]["ended_by"], rows["solves"]["verdict"]) == ("submitted", "resolved")
    assert {row["ended_by"] for row in rows.values()} == {
        "submitted", "format_failure", "crashed", "context_overflow"
    }  # fmt: skip
    assert all(row["problems"] == [] for row in rows.values())


@pytest.mark.docker
@pytest.mark.network
def test_what_a_user_must_mend_is_said_scenario_by_scenario(harness) -> None:
    """An agent that claims success whatever it is told, and never says what became of it."""
    harness("agents", "new", "hasty")
    (harness.folder / "hasty" / "run.py").write_text(
        "import json, os, urllib.request\n"
        "task = json.load(open(os.environ['HARNESS_TASK_FILE']))\n"
        "body = {'model': task['model'], 'messages': [{'role': 'user', 'content': 'hello'}]}\n"
        "headers = {'Authorization': 'Bearer ' + task['api_key']}\n"
        "url = task['base_url'] + '/chat/completions'\n"
        "urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers))\n"
        "print('all is well')\n"
    )
    done = harness("agents", "check", "./hasty", "--only", "solves,dead-server")
    assert done.code == 1
    assert "it ended by gave_up (the runner left no result file), expected submitted" in done.out
    assert "the verdict is empty_patch" in done.out
    assert "it ended by itself and left no result file: see HARNESS_RESULT_FILE" in done.out
    assert "all is well" in done.out
    assert "2 of 2 scenarios are to be mended" in done.out


@pytest.mark.docker
@pytest.mark.network
@pytest.mark.usefixtures("no_bundle_stays")
def test_a_framework_of_git_is_built_at_its_commit_from_a_checkout_and_only_what_it_needs(
    harness, framework, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    repository, commit = framework
    agent = tiny_agent(harness.folder / "tiny-agent", "https://git.invalid/some/tiny", commit)

    alone = harness("sweep", "--agents", str(agent), "--tasks", "smoke", "--limit", "1")
    assert alone.code == 2
    assert "agent tiny-agent can't be used: https://git.invalid/some/tiny can't be reached: " in alone.err
    assert f"harness agents build {agent} --from PATH-OR-URL" in alone.err
    assert not (harness.runs / "harness.db").exists()

    built = harness("agents", "build", str(agent), "--from", str(repository), "--json")
    assert built.code == 0, built.err
    done = harness("sweep", "--agents", str(agent), "--tasks", "smoke", "--limit", "1", "--json")
    assert done.code == 0, done.err
    [row] = harness.rows("SELECT * FROM runs")
    assert json.loads(row["claim_details"]) == {"word": "pinned", "has": ["tiny"]}
    assert (row["claim_message"], row["agent_commit"]) == ("as told", commit)


@pytest.mark.docker
@pytest.mark.network
def test_a_commit_that_a_checkout_does_not_have_is_named_and_nothing_is_left(
    harness, framework, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    repository, _ = framework
    agent = tiny_agent(harness.folder / "tiny-agent", "https://git.invalid/some/tiny", "0" * 40)
    before = {volume.name for volume in connect().volumes.list(filters={"label": f"{KIND}=bundle"})}
    done = harness("agents", "build", str(agent), "--from", str(repository))
    assert done.code == 2
    assert f"commit 000000000000 of some/tiny can't be fetched from {repository}: " in done.err
    assert {volume.name for volume in connect().volumes.list(filters={"label": f"{KIND}=bundle"})} == before


def wheel_of_its_own(folder: Path) -> tuple[str, str]:
    """A package that no index has. Returns its pin and the wheel's hash."""
    version = f"1.{uuid.uuid4().int % 10**9}"
    info = f"tiny_wheel-{version}.dist-info"
    files = {
        "tiny_wheel.py": "WORD = 'from a wheel'\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: tiny-wheel\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    folder.mkdir()
    path = folder / f"tiny_wheel-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
        wheel.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"]))
    return f"tiny-wheel=={version}", hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.docker
@pytest.mark.network
@pytest.mark.usefixtures("no_bundle_stays")
def test_packages_come_from_a_folder_where_no_index_answers(harness, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    pin, digest = wheel_of_its_own(tmp_path / "wheels")
    harness("agents", "new", "wheeled")
    folder = harness.folder / "wheeled"
    (folder / "requirements.lock").write_text(f"{pin} --hash=sha256:{digest}\n")
    without = harness("agents", "build", "./wheeled")
    assert without.code == 2
    assert "the first of its packages, tiny-wheel==" in without.err
    assert f"harness agents build {folder} --wheels FOLDER" in without.err
    done = harness("agents", "build", "./wheeled", "--wheels", str(tmp_path / "wheels"), "--json")
    assert done.code == 0, done.err
    assert done.json()[0]["packages"] == 1
    nothing = harness("agents", "build", "./wheeled", "--wheels", str(tmp_path / "nowhere"))
    assert nothing.code == 2
    assert "has no packages: no such folder, or nothing in it ends in .whl or .tar.gz" in nothing.err


@pytest.mark.docker
def test_an_agent_cannot_write_where_its_framework_lies(harness) -> None:
    agent = harness.agent("writer", WRITER, runner="run.py")
    done = harness("sweep", "--agents", agent, "--tasks", "smoke", "--limit", "1", "--json")
    assert done.code == 0, done.err
    [row] = harness.rows("SELECT * FROM runs")
    assert (row["ended_by"], row["claim_message"]) == ("gave_up", "Read-only file system")
