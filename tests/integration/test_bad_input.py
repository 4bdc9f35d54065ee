"""What a person gets who types something wrong, or whose machine lacks something: one sentence, the right exit code,
no traceback, and nothing written. Most of it in this process, since a start of Python costs half a second."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.cli import main

ANSWERS = 'context_tokens = 300\n[[answers]]\ntext = "hello"\n'
ORACLE = ["sweep", "--agents", "oracle", "--limit", "1"]
OURS = {name: os.environ.get(name) for name in ("DOCKER_HOST", "OLLAMA_HOST")}
NOWHERE = "unix:///nonexistent/docker.sock"


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    def sentence(self) -> str:
        """The only line on standard error. Anything else is a failure of the test."""
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("harness: ")
        return self.err.removeprefix("harness: ").rstrip()


Type = Callable[..., Said]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Type]:
    """The command line, in this process and an empty folder, without Docker and Ollama."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("HARNESS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DOCKER_HOST", NOWHERE)
    with socket.socket() as closed:  # bound and not listening: nobody else can take the port
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{closed.getsockname()[1]}")

        def call(*words: str) -> Said:
            monkeypatch.setattr(sys, "argv", ["harness", *words])
            with pytest.raises(SystemExit) as ended:
                main()
            said = capsys.readouterr()
            return Said(int(ended.value.code or 0), said.out, said.err)

        yield call


@pytest.fixture
def servers(run: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker and Ollama are back where this machine has them."""
    for name, value in OURS.items():
        monkeypatch.delenv(name)
        if value is not None:
            monkeypatch.setenv(name, value)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("sweep", "--agents is missing: name what should run, or give a --spec file"),
        ("sweep --agents ,", "--agents is empty: name at least one, or leave the flag out"),
        ("sweep --agents mini-swe", "unknown agent 'mini-swe': did you mean mini-swe-agent?"),
        ("sweep --agents ./nowhere", "nowhere: there is no such folder; an agent is a folder with an agent.toml"),
        ("sweep --agents mini-swe-agent", "--models is missing: agent mini-swe-agent calls a model"),
        ("sweep --agents mini-swe-agent --models ,", "--models is empty"),
        ("sweep --agents mini-swe-agent --models none", "--models is missing"),
        ("sweep --agents mini-swe-agent --models llamacpp/", "the model 'llamacpp/' has no name"),
        ("sweep --agents mini-swe-agent --models scripted/nofile", "the script {here}/nofile can't be read"),
        ("sweep --agents mini-swe-agent --models scripted/bad.toml", "the script {here}/bad.toml: answers"),
        ("sweep --agents mini-swe-agent --models scripted/ok.toml,scripted/bad.toml", "one script at a time"),
        (
            "sweep --agents mini-swe-agent --models scripted/ok.toml --num-ctx 301",
            "--num-ctx 301 is more than model scripted/{here}/ok.toml has: its window is 300 tokens",
        ),
        (
            "sweep --agents mini-swe-agent --models scripted/ok.toml --think on",
            "model scripted/{here}/ok.toml can't think",
        ),
        ("sweep --agents oracle --tasks smok", "unknown suite 'smok': did you mean smoke?"),
        ("sweep --agents oracle --tasks ok.toml", "'ok.toml' is a file"),
        ("sweep --agents oracle --only slugify", "has no task 'slugify': did you mean slugify-accents?"),
        ("sweep --agents oracle --only ,", "--only is empty"),
        ("sweep --agents oracle --repeats 0", "--repeats: expected 1 or more, found 0"),
        ("sweep --agents oracle --temperature 9", "--temperature: expected 2 or less, found 9.0"),
        ("sweep --agents oracle --rest -1", "--rest: expected 0 or more, found -1.0"),
        ("sweep --agents oracle --time-limit inf", "--time-limit: expected a finite number, found inf"),
        ("sweep --agents oracle --order foo", "--order: expected 'blocks' or 'listed', found 'foo'"),
        ("sweep --agents oracle --protocol foo", "--protocol: expected 'auto', 'text' or 'tools', found 'foo'"),
        ("sweep --agents oracle --think maybe", "--think: expected on or off, got 'maybe'"),
        ("sweep --agents oracle --guard maybe", "--guard: expected 'off', 'observe', 'nudge' or 'stop', found 'maybe'"),
        ("sweep --agents oracle --guard stop --guard-patience 0", "--guard-patience: expected 1 or more, found 0"),
        ("sweep --agents oracle --guard-patience 3", "--guard-patience is for --guard stop, and --guard is off"),
        ("sweep --agents oracle --limit -1", "--limit: expected 1 or more, found -1"),
        ("sweep --spec nowhere.toml", "there is no spec file nowhere.toml"),
        ("sweep --spec bad.toml", "bad.toml: 'x': no such field"),
        ("sweep 20260101", "a sweep is named only to continue it: harness sweep --resume 20260101"),
        ("sweep --resume", "there is no database at"),
        ("runs list", "there is no database at"),
        ("runs show x", "there is no database at"),
        ("report", "there is no database at"),
        ("loops", "there is no database at"),
        ("db backup copy.db", "there is no database at"),
        ("tasks list smok", "unknown suite 'smok': did you mean smoke?"),
        ("tasks verify smoke --limit 0", "--limit: expected 1 or more, found 0"),
        ("agents check nob", "unknown agent 'nob': did you mean nop?"),
        ("models pull none", "there is nothing to fetch"),
    ],
)
def test_a_mistake_is_one_sentence_exit_code_2_and_nothing_written(run: Type, words: str, sentence: str) -> None:
    Path("ok.toml").write_text(ANSWERS)
    Path("bad.toml").write_text("x = 1\n")
    said = run(*words.split())
    assert sentence.replace("{here}", str(Path.cwd())) in said.sentence()
    assert (said.code, said.out, files(Path())) == (2, "", ["bad.toml", "ok.toml"])


@pytest.mark.parametrize("words", ["swep", "sweep --nosuch", "sweep --limit abc", "runs show", "sweep --agents"])
def test_a_command_line_that_cannot_be_read_is_refused_with_code_2(run: Type, words: str) -> None:
    said = run(*words.split())
    assert said.code == 2
    assert "Error: " in said.err
    assert not files(Path())


@pytest.mark.parametrize(
    "words",
    [ORACLE, ["tasks", "verify", "smoke", "--limit", "1"], ["agents", "check", "nop"], ["clean"]],
    ids=lambda words: words[0],
)
def test_without_docker_the_sentence_says_how_to_get_it(run: Type, words: list[str]) -> None:
    said = run(*words)
    assert said.code == 1
    assert said.sentence().startswith(f"Docker does not answer at {NOWHERE}: it is not installed or not running")
    assert not files(Path())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up being root")
def test_a_docker_socket_of_somebody_else_says_which_group(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(0)
        drop = "-dac_override,-dac_read_search"
        command = ["setpriv", "--bounding-set", drop, "--inh-caps", drop, sys.executable, "-m", "harness", *ORACLE]
        environment = os.environ | {"DOCKER_HOST": f"unix://{path}"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "sudo usermod -aG docker" in done.stderr


def test_without_ollama_the_sentence_says_how_to_start_it(run: Type) -> None:
    said = run("sweep", "--agents", "mini-swe-agent", "--models", "gemma3:4b")
    assert said.code == 1
    assert said.sentence().startswith(f"Ollama does not answer at http://{os.environ['OLLAMA_HOST']}; start it with")
    listed = run("models", "list", "--json")
    assert listed.code == 0
    assert listed.err.startswith("ollama: Ollama does not answer")
    json.loads(listed.out)


@pytest.mark.ollama
@pytest.mark.usefixtures("servers")
def test_a_model_that_is_not_pulled_and_a_window_that_it_does_not_have(run: Type) -> None:
    words = ["sweep", "--agents", "mini-swe-agent", "--dry-run", "--models"]
    said = run(*words, "smollm2:136m")
    assert said.code == 2
    assert "did you mean smollm2:135m?" in said.sentence()
    assert "ollama pull smollm2:136m" in said.sentence()
    said = run(*words, "smollm2:135m", "--num-ctx", "100000")
    assert said.code == 2
    assert "--num-ctx 100000 is more than model smollm2:135m has: its window is 8192 tokens" in said.sentence()


def test_a_dry_run_needs_no_docker_and_writes_nothing(run: Type) -> None:
    said = run(*ORACLE, "--dry-run")
    assert (said.code, said.err, files(Path())) == (0, "", [])
    assert "nothing was run" in said.out
    plan = json.loads(run(*ORACLE, "--dry-run", "--json").out)
    assert plan["resolved"]["runs"][0][0] == "oracle"


@pytest.mark.parametrize(
    "words", ["agents list", "tasks list", "tasks list smoke", "models list", "db schema", "doctor"], ids=str.split
)
def test_what_lists_prints_pure_json(run: Type, words: str) -> None:
    assert json.loads(run(*words.split(), "--json").out)


def test_a_broken_agent_hides_no_other_and_says_why(run: Type, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    folder = tmp_path / "harness" / "agents" / "broken"
    folder.mkdir(parents=True)
    (folder / "agent.toml").write_text('name = "broken"\ngroup = "none"\n')
    listed = {row["agent"]: row for row in json.loads(run("agents", "list", "--json").out)}
    assert listed["broken"]["state"] == "unusable"
    assert "broken/agent.toml: group: expected" in listed["broken"]["reason"]
    assert listed["nop"]["state"] == "ready"
    assert "broken/agent.toml: group: expected" in run("agents", "list").out
    said = run("sweep", "--agents", "broken", "--dry-run")
    assert said.code == 2
    assert "agent broken (user folder) can't be used" in said.sentence()


@pytest.fixture
def database(run: Type, tmp_path: Path) -> Path:
    from harness.store.db import open_store

    path = tmp_path / "runs" / "harness.db"
    db = open_store(path)
    machine = {"machine_id": "m", "facts": "{}"}
    sweep = {"created_at": "x", "ended_at": None, "machine_id": "m", "harness_version": "0", "planned_runs": 1}
    db.table("machines").insert(machine)
    for name in ("20260101-000000-aaaa", "20260101-000000-bbbb"):
        db.table("sweeps").insert({"sweep_id": name, **sweep, "spec": '{"agents": ["nop"]}', "resolved": "{}"})
    db.close()
    return path


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("runs list --where outcom=x", "--where: there is no column 'outcom'; did you mean outcome"),
        ("runs list --where outcome", "--where 'outcome': expected column=value"),
        ("runs list --sweep 20260101", "sweep '20260101' is ambiguous: did you mean 20260101-000000-"),
        ("runs list --sweep nosuch", "sweep 'nosuch' is unknown: known: 20260101-000000-aaaa, 20260101-000000-bbbb"),
        ("runs show nosuch", "there is no run 'nosuch' in"),
        ("report nosuch", "sweep 'nosuch' is unknown"),
        ("sweep --resume nosuch", "sweep 'nosuch' is unknown"),
        ("sweep --resume 2026", "sweep '2026' is ambiguous"),
        ("db backup runs/harness.db", "runs/harness.db exists already"),
        ("db backup nowhere/copy.db", "nowhere is no folder: make it first"),
    ],
)
def test_a_wrong_name_in_a_database_gets_the_nearest(run: Type, database: Path, words: str, sentence: str) -> None:
    before = database.read_bytes()
    said = run(*words.split())
    assert said.code == 2
    assert sentence in said.sentence()
    assert database.read_bytes() == before


def test_a_backup_is_whole_or_not_there(run: Type, database: Path, tmp_path: Path) -> None:
    assert run("db", "backup", "copy.db").code == 0
    with sqlite3.connect("copy.db") as copy:
        assert copy.execute("SELECT COUNT(*) FROM sweeps").fetchone() == (2,)
    os.truncate(database, 8192)
    said = run("db", "backup", "other.db")
    assert said.code == 1
    assert "can't be copied to other.db" in said.sentence()
    assert not [name for name in files(tmp_path) if "other" in name]


@pytest.mark.parametrize("words", [["runs", "list"], ["report"], ["sweep", "--resume"]], ids=lambda words: words[0])
def test_a_database_of_a_newer_harness_is_left_alone(run: Type, database: Path, words: list[str]) -> None:
    with sqlite3.connect(database) as db:
        db.execute("INSERT INTO migrations (name, applied_at) VALUES ('m999_future', 'x')")
    said = run(*words)
    assert said.code == 2
    assert "was written by a newer harness (it has 'm999_future'): update the harness" in said.sentence()


@pytest.mark.parametrize("words", [["runs", "list"], ["report"], ["sweep", "--resume"]], ids=lambda words: words[0])
def test_a_file_that_is_no_database_is_left_alone(run: Type, words: list[str]) -> None:
    content = b"not a database at all " * 100
    Path("notes.txt").write_bytes(content)
    said = run(*words, "--db", "notes.txt")
    assert said.code == 2
    assert "notes.txt is not an SQLite database: name another file with --db" in said.sentence()
    assert Path("notes.txt").read_bytes() == content


@pytest.mark.docker
@pytest.mark.parametrize("folder", ["file", "file/below", "/proc/nowhere"])
@pytest.mark.usefixtures("servers")
def test_a_runs_folder_that_cannot_be_written(run: Type, folder: str) -> None:
    Path("file").touch()
    said = run(*ORACLE, "--runs-dir", folder)
    assert said.code == 1
    assert f"the runs folder {Path(folder).absolute()} can't be written: " in said.sentence()
    assert files(Path()) == ["file"]


@pytest.mark.docker
@pytest.mark.usefixtures("servers")
def test_no_space_is_said_before_anything_starts(run: Type, monkeypatch) -> None:
    import harness.checks

    monkeypatch.setattr(harness.checks, "FREE_BYTES", 1 << 60)
    said = run(*ORACLE)
    assert said.code == 1
    assert " MB left, a sweep asks for 1099511627776 MB: make room, or choose another folder" in said.sentence()
    assert files(Path()) == ["runs"]


@pytest.mark.docker
@pytest.mark.parametrize(
    ("dockerfile", "code", "sentence"),
    [
        ("FROM nosuch.invalid/base:1\n", 1, "the base image nosuch.invalid/base:1 can't be pulled"),
        ("FROM scratch\nCOPY nofile /x\n", 2, "the image of mine/one does not build: "),
        ("FROM scratch\nFOO bar\n", 2, "unknown instruction: FOO"),
        ("", 2, "cannot be empty"),
    ],
)
@pytest.mark.usefixtures("servers")
def test_a_task_whose_image_cannot_be_had(run: Type, dockerfile: str, code: int, sentence: str) -> None:
    from harness.suites import load_suite

    shutil.copytree(load_suite("smoke").tasks[0].folder, "mine/one")
    Path("mine/one/environment/Dockerfile").write_text(dockerfile)
    said = run("sweep", "--agents", "oracle", "--tasks", "./mine")
    assert sentence in said.sentence()
    assert said.code == code
    with sqlite3.connect("runs/harness.db") as db:
        assert db.execute("SELECT COUNT(*) FROM sweeps").fetchone() == (0,)


@pytest.mark.docker
@pytest.mark.network
@pytest.mark.usefixtures("servers")
def test_a_bundle_that_will_not_install_says_why_and_stores_nothing(run: Type) -> None:
    Path("mine").mkdir()
    Path("mine/agent.toml").write_text('name = "mine"\ngroup = "example"\nsummary = "x"\nversion = "1"\n')
    Path("mine/run.py").touch()
    Path("mine/requirements.lock").write_text("six==1.17.0 --hash=sha256:" + "0" * 64 + "\n")
    Path("ok.toml").write_text(ANSWERS)
    said = run("sweep", "--agents", "./mine", "--models", "scripted/ok.toml", "--limit", "1")
    assert said.code == 1
    assert "the bundle of mine can't be built" in said.sentence()
    assert "Hash mismatch for `six==1.17.0`" in said.sentence()
    assert Path(said.sentence().rsplit("all of the log: ")[1]).is_file()
    with sqlite3.connect("runs/harness.db") as db:
        assert db.execute("SELECT COUNT(*) FROM sweeps").fetchone() == (0,)


@pytest.mark.docker
@pytest.mark.usefixtures("servers")
def test_checking_an_agent_shows_what_it_printed(run: Type) -> None:
    Path("mine").mkdir()
    Path("mine/agent.toml").write_text(
        'name = "mine"\ngroup = "example"\nsummary = "x"\nversion = "1"\nrunner = "run.sh"\ncalls_model = false\n'
    )
    Path("mine/run.sh").write_text("echo something is wrong here >&2; exit 3\n")
    said = run("agents", "check", "./mine")
    assert said.code == 1
    assert "exit code 3" in said.out
    assert "something is wrong here" in said.out
    assert files(Path()) == ["mine", "mine/agent.toml", "mine/run.sh"]


def test_a_reader_that_has_seen_enough_and_one_without_utf8(tmp_path: Path) -> None:
    """Through real processes: `harness ... | head -1`, and a terminal that knows no more than ASCII."""
    harness = f"{sys.executable} -m harness"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HARNESS_")}
    piped = subprocess.run(
        ["bash", "-c", f"{harness} db schema | head -1; {harness} tasks list smoke --json | true"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert piped.stdout.count("\n") == 1
    assert piped.stderr == ""
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    listed = subprocess.run(
        [sys.executable, "-m", "harness", "tasks", "list", "smoke"],
        cwd=tmp_path, env=environment | ascii_only, capture_output=True, check=True,
    )  # fmt: skip
    assert listed.stdout.isascii()
    assert b"slugify-accents" in listed.stdout
    assert listed.stderr == b""


def test_resuming_can_be_rehearsed_and_runs_nothing(run: Type, database: Path) -> None:
    before = database.read_bytes()
    said = run("sweep", "--resume", "--dry-run", "--db", str(database))
    assert said.code == 0, said.err
    assert "nothing was run" in said.out
    assert database.read_bytes() == before


def test_a_strangers_database_gets_no_tables_of_ours(run: Type, tmp_path: Path) -> None:
    path = tmp_path / "photos.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE photos (name TEXT)")
    said = run("runs", "list", "--db", str(path))
    assert (said.code, said.sentence()) == (
        2,
        f"{path} is a database, but none of the harness: name another file with --db",
    )
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("photos",)]


@pytest.mark.docker
@pytest.mark.usefixtures("servers")
def test_more_cores_than_there_are(run: Type, tmp_path: Path) -> None:
    said = run(*ORACLE, "--cpus", "4096")
    assert said.code == 2
    assert said.sentence().startswith("--cpus 4096 is more than Docker has here: ")
    assert not list((tmp_path / "runs").glob("*/*"))


def test_models_that_nobody_calls_are_mentioned(run: Type) -> None:
    said = run(*ORACLE, "--models", "gemma3:4b", "--dry-run")
    assert said.code == 0
    assert "no agent of this sweep calls a model" in said.err


def test_a_slip_in_the_name_of_an_engine_is_recognised(run: Type) -> None:
    said = run("sweep", "--agents", "mini-swe-agent", "--models", "llamacp/smollm2:135m", "--dry-run")
    assert (said.code, said.sentence()) == (
        2,
        "unknown engine 'llamacp' in the model 'llamacp/smollm2:135m'; did you mean llamacpp/smollm2:135m?",
    )
