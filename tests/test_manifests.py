"""Agents as folders: what is refused and in which words, and which of several places wins."""

from __future__ import annotations

import os
import shutil
import sys
from importlib import metadata
from pathlib import Path

import pytest

from harness import paths
from harness.errors import UserError
from harness.manifests import NOT_THE_AGENT, Agent, find_agents, load_agent, select_agents
from harness.suites.harbor import folder_hash

MINIMAL = {"name": '"mine"', "group": '"example"', "summary": '"for a test"', "version": '"1"'}
LOCKED = "six==1.17.0 \\\n    --hash=sha256:" + "0" * 64 + "\n"


def write(folder: Path, more: str = "", **fields: str | None) -> Path:
    """An agent's folder. The fields are TOML; None leaves one out."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {**MINIMAL, **fields}
    lines = [f"{name} = {value}" for name, value in values.items() if value is not None]
    (folder / "agent.toml").write_text("\n".join(lines) + "\n" + more)
    (folder / "run.py").write_text("")
    return folder


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "harness" / "agents"


def test_a_minimal_agent_has_the_defaults_of_the_contract(tmp_path: Path) -> None:
    agent = load_agent(write(tmp_path / "a"))
    manifest = agent.manifest
    assert (agent.name, agent.origin, agent.folder) == ("mine", "path", tmp_path / "a")
    assert (manifest.runner, manifest.python, manifest.protocols) == ("run.py", ">=3.11", ["text"])
    assert manifest.calls_model
    assert agent.lock is None
    assert agent.needs_python
    assert not agent.is_oracle


@pytest.mark.parametrize(
    ("fields", "more", "sentence"),
    [
        ({"name": '"My Agent"'}, "", "name: expected lower-case letters"),
        ({"name": '"all"'}, "", "name: expected lower-case letters"),
        ({"name": None}, "", "name: missing, expected lower-case letters"),
        ({"version": "2"}, "", "version: expected a text on one line, found 2"),
        ({"summary": '"""a\nb"""'}, "", "summary: expected a text on one line"),
        ({"group": '"frameworks"'}, "", """group: expected "framework", "control" or "example", found 'frameworks'"""),
        ({"python": '"3.12"'}, "", """python: expected a range such as ">=3.12,<3.14", found '3.12'"""),
        ({"protocols": '["json"]'}, "", """protocols: expected a list of "text", "tools" or both, found 'json'"""),
        ({"protocols": "[]"}, "", "protocols: expected a list"),
        ({"calls_model": '"yes"'}, "", "calls_model: expected true or false, found 'yes'"),
        ({"runner": '"../run.py"'}, "", "runner: expected the name of a file"),
        ({"runner": '"go.sh"'}, "", "runner: there is no file go.sh"),
        ({"requirements": '"other.lock"'}, "", "requirements: there is no file other.lock"),
        ({"protocol": '["text"]'}, "", "protocol: no such field; did you mean protocols"),
        ({"oracle": "true"}, "", "oracle: no such field"),
        ({}, "[overrides]\nclient = 3\n", "overrides: expected a table of name = reason"),
        ({"name": "mine"}, "", "not valid TOML"),
    ],
)
def test_a_wrong_manifest_is_one_sentence(
    tmp_path: Path, fields: dict[str, str | None], more: str, sentence: str
) -> None:
    folder = write(tmp_path / "a", more, **fields)
    with pytest.raises(UserError) as raised:
        load_agent(folder)
    assert str(raised.value).startswith(f"{folder / 'agent.toml'}: {sentence}")
    assert "\n" not in str(raised.value)


def test_a_folder_that_is_none_and_one_without_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        load_agent(tmp_path / "missing")
    with pytest.raises(UserError, match=r"has no agent\.toml"):
        load_agent(tmp_path)
    (tmp_path / "agent.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="can't be read"):
        load_agent(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "six==1.17.0 # --hash=sha256:" + "0" * 64,
        "six==1.17.0 ; python_version < '4'",
        "six==1.17.0 --hash=md5:" + "0" * 32,
        "six @ https://example.org/six-1.17.0.whl",
        "six @ git+https://example.org/six@1.17.0",
        "-r more.txt",
        "--requirement=more.txt",
        "-e ./six",
        "--editable ./six",
        "-c constraints.txt",
    ],
)
def test_what_brings_a_package_without_a_hash_is_refused(tmp_path: Path, line: str) -> None:
    folder = write(tmp_path / "a")
    (folder / "requirements.lock").write_text(f"--index-url https://example.org/simple\n# of a test\n{LOCKED}{line}\n")
    with pytest.raises(UserError, match=r"requirements\.lock: .*--generate-hashes"):
        load_agent(folder)


def test_a_lock_must_have_a_hash_for_everything(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    lock = folder / "requirements.lock"
    lock.write_text("# made by uv\n" + LOCKED)
    assert load_agent(folder).lock == lock
    lock.write_text(LOCKED + "requests==2.34.2\n")
    with pytest.raises(UserError, match=r"requests==2\.34\.2 has no hash.*--generate-hashes"):
        load_agent(folder)


@pytest.mark.parametrize(
    ("runner", "calls_model", "command"),
    [
        ("run.py", "true", ["/bundle/python", "/opt/harness/agent/run.py"]),
        ("run.sh", "true", ["sh", "/opt/harness/agent/run.sh"]),
        ("run.sh", "false", ["sh", "/opt/harness/agent/run.sh"]),
        ("start", "false", ["/opt/harness/agent/start"]),
    ],
)
def test_the_runner_decides_how_it_is_started(
    tmp_path: Path, runner: str, calls_model: str, command: list[str]
) -> None:
    folder = write(tmp_path / "a", runner=f'"{runner}"', calls_model=calls_model)
    (folder / runner).touch(mode=0o755)
    agent = load_agent(folder)
    assert agent.command("/opt/harness/agent", "/bundle/python") == command
    assert agent.needs_python == (calls_model == "true" or runner == "run.py")


def test_a_runner_that_cannot_be_executed_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", runner='"start"', calls_model="false")
    (folder / "start").touch(mode=0o644)
    with pytest.raises(UserError, match=r"runner: start can't be executed: `chmod \+x .*start`"):
        load_agent(folder)


def test_what_lies_in_the_folder_about_an_agent_is_no_part_of_it(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    before = folder_hash(folder, NOT_THE_AGENT)
    (folder / "plays").mkdir()
    for name in ("plays/text.toml", "conformance.json", "CONFORMANCE.md"):
        (folder / name).touch()
    assert folder_hash(folder, NOT_THE_AGENT) == before
    (folder / "notes.md").touch()
    assert folder_hash(folder, NOT_THE_AGENT) != before


SOURCE = """
[source]
repository = "https://git.example/some/framework"
commit = "{commit}"
paths = ["framework", "config/default.yaml"]
"""


def test_a_framework_that_only_git_has_is_named_by_repository_commit_and_paths(tmp_path: Path) -> None:
    agent = load_agent(write(tmp_path / "a", SOURCE.format(commit="0f" * 20), calls_model="false", runner='"run.py"'))
    assert agent.manifest.source is not None
    assert agent.manifest.source.name == "some/framework"
    assert agent.needs_python


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (SOURCE.format(commit="main"), "source.commit: expected a commit's 40 hexadecimal digits, found 'main'"),
        ('[source]\nrepository = "https://x"\n', "source.commit: missing, expected a commit's"),
        (SOURCE.format(commit="0f" * 20) + 'branch = "main"\n', "source.branch: no such field"),
        (SOURCE.format(commit="0f" * 20).replace("https", "--upload-pack=x https"), "source.repository: expected the"),
        (SOURCE.format(commit="0f" * 20).replace("config/", "../"), "source.paths: expected a list of files"),
    ],
)
def test_a_source_that_is_wrong_is_named_field_by_field(tmp_path: Path, more: str, sentence: str) -> None:
    with pytest.raises(UserError) as raised:
        load_agent(write(tmp_path / "a", more))
    assert sentence in str(raised.value)


def test_the_agents_that_ship_with_the_harness_are_all_usable() -> None:
    found = {agent.name: agent for agent in find_agents()[0] if agent.origin == "built in"}
    folders = {file.parent.name for file in paths.builtin("agents").glob("*/agent.toml")}
    assert {"oracle", "nop", "mini-swe-agent"} <= folders == set(found)
    assert [name for name, agent in found.items() if agent.is_oracle] == ["oracle"]
    assert not found["oracle"].needs_python
    assert not found["nop"].needs_python
    pinned = found["mini-swe-agent"].manifest.version
    assert f"mini-swe-agent=={pinned} " in (found["mini-swe-agent"].folder / "requirements.lock").read_text()


def test_a_folder_can_call_itself_oracle_but_is_not(tmp_path: Path) -> None:
    copy = tmp_path / "oracle"
    shutil.copytree(paths.builtin("agents") / "oracle", copy)
    assert not load_agent(copy).is_oracle
    with pytest.raises(UserError, match="two agents are named oracle"):
        select_agents([str(copy)])


def test_the_users_own_agents_are_found_and_a_broken_one_hides_no_other(user_folder: Path) -> None:
    write(user_folder / "mine")
    write(user_folder / "broken", group='"none"')
    found, unusable = find_agents()
    assert ("mine", "user folder") in [(agent.name, agent.origin) for agent in found]
    assert [(each.name, each.origin) for each in unusable] == [("broken", "user folder")]
    assert "broken/agent.toml: group: expected" in unusable[0].reason
    with pytest.raises(UserError, match=r"agent broken \(user folder\) can't be used: .*group: expected"):
        select_agents(["broken"])


def test_all_means_every_usable_framework(user_folder: Path) -> None:
    write(user_folder / "mine", group='"framework"')
    write(user_folder / "example", name='"an-example"')
    write(user_folder / "broken", group='"none"')
    chosen, left_out = select_agents(["all", "nop"])
    names = [agent.name for agent in chosen]
    assert {"mine", "mini-swe-agent"} <= set(names)
    assert names[-1] == "nop"
    assert not {"oracle", "an-example"} & set(names)
    assert [each.name for each in left_out] == ["broken"]
    assert select_agents(["nop"])[1] == []


def test_an_agent_named_twice_is_chosen_once(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    chosen, _ = select_agents([str(folder), "nop", f"{folder}/", "nop"])
    assert [agent.name for agent in chosen] == ["mine", "nop"]
    assert isinstance(chosen[0], Agent)


def test_two_agents_of_one_name_are_refused_with_both_folders(tmp_path: Path, user_folder: Path) -> None:
    one, other = write(tmp_path / "a"), write(user_folder / "b")
    with pytest.raises(UserError) as raised:
        select_agents([str(one)])
    assert str(one) in str(raised.value)
    assert str(other) in str(raised.value)


def test_an_unknown_agent_gets_the_nearest_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"unknown agent 'mini-swe': .*mini-swe-agent"):
        select_agents(["mini-swe"])
    write(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"a folder needs a slash: \./mine"):
        select_agents(["mine"])
    assert select_agents(["./mine"])[0][0].folder == tmp_path / "mine"


def test_packages_announce_agents_by_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module beside its agent.toml, which is not run, a function that returns a path, and ones that break."""
    package = write(tmp_path / "announced_agent", name='"announced"')
    (package / "__init__.py").write_text("")
    (package / "run.py").write_text("raise RuntimeError('this is the runner')\n")
    elsewhere = write(tmp_path / "elsewhere", name='"elsewhere"')
    (tmp_path / "announces.py").write_text(f"def folder():\n    return {str(elsewhere)!r}\n")
    (tmp_path / "breaks.py").write_text("raise RuntimeError('boom')\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)\n")
    info = tmp_path / "some_agents-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-agents\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[harness.agents]\na = announced_agent.run\nb = announces:folder\nc = breaks:f\nd = leaves:f\ne = nowhere\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [entry.name for entry in metadata.entry_points(group="harness.agents")]
    try:
        found, unusable = find_agents()
    finally:
        for module in ("announced_agent", "announces", "breaks", "leaves"):
            sys.modules.pop(module, None)
    announced = {agent.name: agent for agent in found if agent.origin == "package some-agents"}
    assert announced["announced"].folder == package
    assert announced["elsewhere"].folder == elsewhere
    assert [(each.name, each.origin) for each in unusable] == [(name, "package some-agents") for name in "cde"]
    assert "RuntimeError: boom" in unusable[0].reason
    assert "SystemExit: 3" in unusable[1].reason
    assert "there is no module nowhere" in unusable[2].reason


def test_packages_without_a_lock_are_asked_for(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    (folder / "requirements.in").write_text("six\n")
    with pytest.raises(
        UserError, match=r"requirements.in is not locked: write the file with `uv pip compile --generate-hashes"
    ):
        load_agent(folder)


def test_a_manifest_that_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    (folder / "agent.toml").unlink()
    os.mkfifo(folder / "agent.toml")
    with pytest.raises(UserError, match=r"has no agent.toml"):
        load_agent(folder)
