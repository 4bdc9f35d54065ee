"""Whether an agent can be had: what is here already is asked of nobody, and a no has its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UserError
from harness.images import upstream
from harness.manifests import Agent, load_agent

LOCK = "six==1.17.0 \\\n    --hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274\n"


def agent_in(folder: Path, source: str = "", lock: str = "", group: str = "framework") -> Agent:
    folder.mkdir()
    (folder / "agent.toml").write_text(
        f'name = "tried"\ngroup = "{group}"\nsummary = "x"\nversion = "1"\ncalls_model = false\nrunner = "run.sh"\n'
        + source
    )
    (folder / "run.sh").touch()
    if lock:
        (folder / "requirements.lock").write_text(lock)
    return load_agent(folder, "built in")


def source(repository: str, commit: str = "0" * 40) -> str:
    return f'[source]\nrepository = "{repository}"\ncommit = "{commit}"\npaths = ["a"]\n'


def test_a_repository_that_does_not_answer_is_named_with_the_reason_and_the_way_out(tmp_path: Path) -> None:
    agent = agent_in(tmp_path / "a", source("https://git.invalid/a/b"))
    [standing] = upstream.standings(None, [agent])
    assert standing.bundle is None
    assert standing.unreachable is not None
    assert standing.unreachable.startswith("https://git.invalid/a/b can't be reached: ")
    assert "git.invalid" in standing.unreachable.partition("reached: ")[2]
    assert upstream.how_to_provide(agent).endswith("`harness agents build tried --from PATH-OR-URL`")


def test_an_index_that_does_not_answer_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.delenv("UV_INDEX_URL", raising=False)
    [standing] = upstream.standings(None, [agent_in(tmp_path / "a", lock=LOCK)])
    assert standing.unreachable is not None
    assert standing.unreachable.startswith("the first of its packages, six==1.17.0, can't be had: ")
    assert "refused" in standing.unreachable
    assert "--wheels FOLDER" in upstream.how_to_provide(agent_in(tmp_path / "b", lock=LOCK))


@pytest.mark.network
def test_an_index_that_answers_is_no_reason(tmp_path: Path) -> None:
    [standing] = upstream.standings(None, [agent_in(tmp_path / "a", lock=LOCK)])
    assert standing == upstream.Standing(None, None)


@pytest.mark.docker
def test_all_goes_on_without_it_and_naming_it_is_an_error(tmp_path: Path) -> None:
    bad, good = agent_in(tmp_path / "a", source("https://git.invalid/a/b")), agent_in(tmp_path / "b")
    usable, unusable = upstream.leave_out_unreachable([bad, good], ["all"])
    assert usable == [good]
    assert [each.name for each in unusable] == ["tried"]
    assert "git.invalid" in unusable[0].reason
    with pytest.raises(UserError, match=r"agent tried can't be used: https://git.invalid/a/b can't be reached"):
        upstream.leave_out_unreachable([bad], ["tried"])
