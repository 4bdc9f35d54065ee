"""The dated record of an agent: bound to its pin, read by people and by the plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.agent_record import ModelRow, first_request_tokens, read
from harness.conformance.page import page
from harness.conformance.record import write_scenarios
from harness.engines.base import ModelInfo
from harness.errors import UserError
from harness.manifests import Agent, find_agents, load_agent
from harness.plan import Model, make_plan, too_small
from harness.spec import Spec
from harness.suites import choose, load_suite

PINNED = [agent for agent in find_agents()[0] if agent.origin == "built in" and agent.manifest.group == "framework"]


def agent_in(folder: Path, version: str = "1") -> Agent:
    folder.mkdir(exist_ok=True)
    (folder / "agent.toml").write_text(f'name = "tried"\ngroup = "example"\nsummary = "x"\nversion = "{version}"\n')
    (folder / "run.py").touch()
    return load_agent(folder)


ROW = {
    "engine": "llamacpp", "engine_version": "1", "model": "small:1b", "num_ctx": 8192, "protocol": "text",
    "suite": "smoke", "task": "a", "image_source": "dockerfile", "ended_by": "gave_up", "counts": True,
    "says": "STUCK | so", "verdict": "empty_patch", "calls": 3, "input_tokens": 900, "output_tokens": 60,
    "own_input_tokens": 900, "own_output_tokens": None, "agent_s": 4.0, "first_request_tokens": 300,
}  # fmt: skip


def row(**fields: Any) -> ModelRow:
    return ModelRow.model_validate(ROW | fields)


def recorded(folder: Path, *rows: ModelRow) -> Agent:
    agent = agent_in(folder)
    write_scenarios(agent, None, [], [], {"cpu": "a processor", "cores": 2})
    record = read(agent)
    assert record is not None
    (folder / "conformance.json").write_text(record.model_copy(update={"models": rows}).model_dump_json())
    return agent


def test_a_record_is_of_one_pin_and_of_no_other(tmp_path: Path) -> None:
    agent = recorded(tmp_path, row())
    found = read(agent)
    assert found is not None
    assert found.models == (row(),)
    assert read(agent_in(tmp_path, version="2")) is None
    (tmp_path / "requirements.lock").write_text("six==1.17.0 --hash=sha256:00\n")
    assert read(agent_in(tmp_path)) is None
    (tmp_path / "requirements.lock").unlink()
    assert read(agent_in(tmp_path)) is not None
    (tmp_path / "run.py").write_text("print('another adapter')\n")
    assert read(agent_in(tmp_path)) is None


def test_runs_with_models_stay_when_the_scenarios_are_tried_again(tmp_path: Path) -> None:
    agent = recorded(tmp_path, row())
    write_scenarios(agent, None, [], [], {"cpu": "another", "cores": 4})
    again = read(agent)
    assert again is not None
    assert (again.machine, again.models) == ("another, 4 cores", (row(),))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "CONFORMANCE.md", "agent.toml", "conformance.json", "run.py"
    ]  # fmt: skip


def test_a_file_that_is_no_record_is_named_and_keeps_no_plan_from_being_made(tmp_path: Path) -> None:
    agent = agent_in(tmp_path)
    (tmp_path / "conformance.json").write_text("{}")
    with pytest.raises(UserError, match=r"conformance.json is no record of `harness agents check --record`"):
        read(agent)
    assert first_request_tokens(agent, "small:1b", "text", "smoke") is None


def test_the_page_averages_only_what_counts_and_says_over_how_many(tmp_path: Path) -> None:
    spoilt = row(task="c", ended_by="model_error", counts=False, calls=90)
    agent = recorded(tmp_path, row(), row(task="b", verdict="resolved", calls=5, input_tokens=None), spoilt)
    text = page(read(agent) or pytest.fail("no record"))
    assert "3 runs, 2 of them valid, 1 resolved." in text
    assert "4.0 (n = 2) calls, 900.0 (n = 1) tokens in" in text
    assert "| b | dockerfile | gave_up | STUCK \\| so | resolved | 5 | – | 60 | 4.0 | 300 |" in text


def test_what_is_not_alike_is_not_averaged(tmp_path: Path) -> None:
    agent = recorded(tmp_path, row(), row(protocol="tools"), row(num_ctx=4096), row(suite="other"))
    assert page(read(agent) or pytest.fail("no record")).count("1 runs, 1 of them valid") == 4


class Nothing:
    """The part of an engine that a plan asks for: none."""

    name = "llamacpp"


def model(name: str, num_ctx: int) -> Model:
    return Model(Nothing(), ModelInfo(name, "llamacpp"), num_ctx)  # type: ignore[arg-type]


def test_a_window_that_the_first_request_does_not_fit_is_refused_with_both_numbers(tmp_path: Path) -> None:
    agent = recorded(
        tmp_path,
        row(first_request_tokens=8479),
        row(suite="big-issues", first_request_tokens=9999),
        row(model="other", first_request_tokens=8099),
        row(protocol="tools"),
    )
    assert first_request_tokens(agent, "small:1b", "text", "big-issues") == 8479
    assert first_request_tokens(agent, "small:1b", "tools", "smoke") == 300
    assert first_request_tokens(agent, "unheard-of", "text", "smoke") is None  # another model, another tokenizer
    assert too_small(agent, model("small:1b", 16384), "text", "smoke") is None
    assert too_small(agent, model("other", 8192), "text", "smoke") is None
    said = too_small(agent, model("small:1b", 8192), "text", "smoke")
    assert said is not None
    assert "8,479 tokens on record, the window has 8,192" in said


def test_a_pair_that_cannot_be_is_an_error_where_it_is_named_and_left_out_of_all(tmp_path: Path) -> None:
    agent, other = recorded(tmp_path / "a", row(first_request_tokens=9000)), agent_in(tmp_path / "b")
    suite = choose(load_suite("smoke"), [], 1)
    models = {"m": model("small:1b", 8192)}
    with pytest.raises(UserError, match=r"9,000 tokens on record, the window has 8,192"):
        make_plan(Spec(agents=["tried"]), suite, [agent], [], models)
    found_by_name = Agent(agent.manifest, agent.folder, "built in")
    plan = make_plan(Spec(agents=["all"]), suite, [found_by_name, other], [], models)
    assert [run.agent.folder for run in plan.runs] == [other.folder]
    assert plan.agents == (other,)  # no bundle is built for what does not run
    as_decided = make_plan(Spec(agents=["all"]), suite, [found_by_name], [], models, {("tried", "llamacpp/small:1b")})
    assert [run.agent for run in as_decided.runs] == [found_by_name]
    assert [each.name for each in plan.unusable] == ["tried × llamacpp/small:1b"]
    with pytest.raises(UserError, match="9,000"):
        make_plan(Spec(agents=["all"]), suite, [found_by_name], [], models)


@pytest.mark.parametrize("agent", PINNED, ids=lambda agent: agent.name)
def test_every_pinned_framework_has_a_record_with_nothing_to_mend_and_real_runs(agent: Agent) -> None:
    found = read(agent)
    assert found is not None, f"write one: harness agents check {agent.name} --record"
    assert [s.scenario for s in found.scenarios if s.problems] == []
    assert not found.not_tried
    suites = {run.suite for run in found.models}
    assert "smoke" in suites
    assert any(name.startswith("swe-bench") for name in suites)
    assert (agent.folder / "CONFORMANCE.md").read_text(encoding="utf-8") == page(found)
