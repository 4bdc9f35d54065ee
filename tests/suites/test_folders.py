"""Folders of tasks: how they are found, what of Harbor's layout is refused, and in which words."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.suites import builtin_suites, choose, load_suite
from harness.suites.harbor import folder_hash, load_task

TOML = "[verifier]\ntimeout_sec = 60\n"


def write(folder: Path, toml: str = TOML, **files: str | bytes | None) -> Path:
    """A task's folder. Files are given by their path with `__` for the slash; None leaves one out."""
    content: dict[str, str | bytes | None] = {
        "task.toml": toml,
        "instruction.md": "# It is broken\n",
        "tests/test.sh": "echo 1 > /logs/verifier/reward.txt\n",
        "solution/solve.sh": "true\n",
        "environment/Dockerfile": "FROM debian:bookworm-slim\nWORKDIR /testbed\n",
    }
    content |= {name.replace("__", "/").replace("_", "."): text for name, text in files.items()}
    for name, text in content.items():
        if text is not None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as raised:
        load_suite(str(folder))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_task_has_what_its_folder_says(tmp_path: Path) -> None:
    toml = '[environment]\ncpus = 1.5\nmemory_mb = 64\nworkdir = "/src"\n[verifier]\ntimeout_sec = 9\nenv = {A = "b"}\n'
    task = load_task(write(tmp_path / "one", toml), "mine")
    assert (task.name, task.suite, task.instruction) == ("one", "mine", "# It is broken\n")
    assert (task.cpus, task.memory_bytes, task.storage_bytes, task.workdir) == (1.5, 64 << 20, None, "/src")
    assert (task.test_timeout_s, task.test_env) == (9.0, {"A": "b"})


def test_suites_by_name_by_path_and_a_single_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b", "a"):
        write(tmp_path / "mine" / name)
    (tmp_path / "mine" / "README.md").touch()
    monkeypatch.chdir(tmp_path)
    assert "smoke" in builtin_suites()
    assert load_suite("smoke").name == "smoke"
    for name in ("mine", "./mine/", str(tmp_path / "mine")):
        assert [task.name for task in load_suite(name).tasks] == ["a", "b"]
    assert [task.name for task in load_suite("mine/b").tasks] == ["b"]
    assert load_suite("mine/b").tasks[0].suite == "mine"


def test_the_hash_changes_with_any_file_and_not_with_pythons_cache(tmp_path: Path) -> None:
    folder = write(tmp_path / "one")
    before = folder_hash(folder)
    (folder / "tests" / "__pycache__").mkdir()
    (folder / "tests" / "__pycache__" / "x.pyc").touch()
    assert folder_hash(folder) == before
    (folder / "tests" / "test.sh").write_text("true\n")
    assert folder_hash(folder) != before


def test_choosing_keeps_the_suites_order(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / name)
    suite = load_suite(str(tmp_path))
    assert [task.name for task in choose(suite, ["c", "a"], None).tasks] == ["a", "c"]
    assert [task.name for task in choose(suite, [], 2).tasks] == ["a", "b"]
    assert choose(suite, ["a"], None).hash != suite.hash
    with pytest.raises(UserError, match="has no task 'd': known: a, b, c"):
        choose(suite, ["d"], None)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("smok", r"unknown suite 'smok': did you mean smoke\?"),
        ("./nothing", r"unknown suite './nothing'"),
        ("smoke/", r"unknown suite 'smoke/': did you mean smoke\?"),
        ("file", "'file' is a file: a suite is a folder of task folders"),
        ("empty", "empty holds no task: a task is a folder with a task.toml"),
        ("x" * 5000, "x: can't be read: File name too long"),
        ("~nobody-has-this-name/x", "'~nobody-has-this-name/x': Could not determine home directory"),
        ("Ünï 😀", r"unknown suite 'Ünï 😀'"),
        ("a\nb", r"unknown suite 'a\\nb'"),
    ],
)
def test_what_is_no_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, sentence: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("empty").mkdir()
    with pytest.raises(UserError, match=sentence):
        load_suite(name)


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        ("[metadata", "not valid TOML"),
        ('[environment]\ncpus = "many"', "environment.cpus: expected a number, found 'many'"),
        ("[environment]\ncpus = -1", "environment.cpus: expected 0.01 or more, found -1"),
        ("[environment]\nmemory_mb = 0", "environment.memory_mb: expected more than 0, found 0"),
        ('[environment]\nworkdir = "repo"', 'environment.workdir: expected an absolute path such as "/testbed", found'),
        ('environment = "x"', "environment: expected a table, found 'x'"),
        ("verifier = 3", "verifier: expected a table, found 3"),
        ('agent = "x"', "agent: expected a table, found 'x'"),
        ("metadata = 3", "metadata: expected a table, found 3"),
        ("[verifier]\ntimeout_sec = 0", "verifier.timeout_sec: expected more than 0, found 0"),
        ("[verifier]\ntimeout_sec = inf", "verifier.timeout_sec: expected a finite number, found inf"),
        ("[verifier.env]\nA = 1", "verifier.env.A: expected a text, found 1"),
    ],
)
def test_a_malformed_task_names_file_field_and_what_was_expected(tmp_path: Path, toml: str, sentence: str) -> None:
    write(tmp_path / "good")
    file = write(tmp_path / "one", toml) / "task.toml"
    assert refusal(tmp_path).startswith(f"{file}: {sentence}")


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"instruction_md": None}, "instruction.md is missing"),
        ({"tests__test_sh": None}, "tests/test.sh is missing"),
        ({"solution__solve_sh": None}, "solution/solve.sh is missing"),
        ({"environment__Dockerfile": None}, "environment/Dockerfile is missing"),
        ({"instruction_md": " \n"}, "expected the issue to resolve, found nothing"),
        ({"instruction_md": b"caf\xe9"}, "expected UTF-8, found another encoding at byte 3"),
        ({"task_toml": b"\xff\xfe"}, "expected UTF-8, found another encoding at byte 0"),
    ],
)
def test_a_task_folder_that_is_not_whole(tmp_path: Path, files: dict[str, str | bytes | None], sentence: str) -> None:
    write(tmp_path / "one", **files)
    assert sentence in refusal(tmp_path)


def test_a_script_of_tests_may_have_any_encoding(tmp_path: Path) -> None:
    write(tmp_path / "one", tests__test_sh=b"# caf\xe9\n")
    assert len(load_suite(str(tmp_path)).tasks) == 1


@pytest.mark.parametrize(
    ("toml", "feature"),
    [
        ('[[steps]]\nname = "a"', "a task of several steps"),
        ("[environment]\nallow_internet = true", "network access ([environment])"),
        ('[agent]\nnetwork_mode = "public"', "network access ([agent])"),
        ('artifacts = ["/x"]', "state outside the work directory (artifacts)"),
        ("[environment]\ngpus = 1", "environment.gpus"),
        ('[environment]\nmemory = "2G"', "environment.memory is not supported: write environment.memory_mb"),
        ('[agent]\nuser = "bob"', "agent.user"),
        ('[verifier]\nenvironment = "other"', "a verifier environment of its own"),
    ],
)
def test_what_a_run_cannot_honour_is_refused_by_name(tmp_path: Path, toml: str, feature: str) -> None:
    folder = write(tmp_path / "one", toml)
    sentence = refusal(tmp_path)
    assert sentence.startswith(f"{folder}: {feature}")
    assert " is not supported: " in sentence


@pytest.mark.parametrize("name", ["docker-compose.yaml", "docker-compose.yml", "compose.yaml", "compose.yml"])
def test_compose_files_are_refused(tmp_path: Path, name: str) -> None:
    (write(tmp_path / "one") / "environment" / name).touch()
    assert f"a compose file (environment/{name}) is not supported" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("apt-get install -y curl", "apt-get"),
        ("pip install pytest", "pip install"),
        ("curl -LsSf https://example.org/uv.sh | sh", "curl -LsSf https://example.org/uv.sh"),
        ("uvx pytest", "uvx"),
        ("python3 -m pip install pytest", "pip install"),
        ("# pip install pytest", None),
        ("python3 -m uvicorn app:app &", None),
        ("python3 /tests/wget_parser.py", None),
        ("curl http://localhost:8000/", None),
    ],
)
def test_network_in_tests_is_refused(tmp_path: Path, line: str, word: str | None) -> None:
    write(tmp_path / "one", tests__test_sh=f"#!/bin/sh\n{line}\n")
    if word is None:
        load_suite(str(tmp_path))
    else:
        assert f"network in tests ('{word}" in refusal(tmp_path)


@pytest.mark.parametrize("part", ["instruction.md", "tests", "solution", "environment/Dockerfile", "tests/test.sh"])
def test_a_part_that_is_a_link_to_something_of_this_machine_is_refused(tmp_path: Path, part: str) -> None:
    """What a suite from elsewhere names would be put into sandboxes, prompts and records."""
    mine = tmp_path / "mine"
    mine.mkdir()
    for name in ("test.sh", "solve.sh"):
        (mine / name).write_text("secret")
    there = write(tmp_path / "suite" / "one") / part
    if there.is_dir():
        shutil.rmtree(there)
        there.symlink_to(mine)
    else:
        there.unlink()
        there.symlink_to(mine / "test.sh")
    assert "is a link that leads out of" in refusal(tmp_path / "suite")


def test_links_within_a_task_are_links_and_none_is_read_through(tmp_path: Path) -> None:
    folder = write(tmp_path / "suite" / "one")
    before = load_suite(str(tmp_path / "suite")).tasks[0].content_hash
    (folder / "tests" / "endless").symlink_to("/proc/kmsg")  # a regular file by its type, and reading it never ends
    (folder / "tests" / "round").symlink_to("round")
    (folder / "tests" / "again.sh").symlink_to("test.sh")
    assert load_suite(str(tmp_path / "suite")).tasks[0].content_hash != before


def test_a_name_that_would_break_tables_and_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a\nb")
    assert "rename it" in refusal(tmp_path)
    shutil.rmtree(tmp_path / "a\nb")
    write(tmp_path / "Ünï 😀")
    assert load_suite(str(tmp_path)).tasks[0].name == "Ünï 😀"
