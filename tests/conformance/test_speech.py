"""Plays with a place for a command: what is put there, and what the scripted engine then reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.conformance import speech
from harness.conformance.check import to_try
from harness.conformance.scenarios import SCENARIOS
from harness.engines.scripted_play import read_play
from harness.errors import UserError
from harness.manifests import Agent, find_agents, load_agent

COMMAND = "echo \N{PARTY POPPER} \x7f \x1b[1m; echo \"quoted\" 'and' $HOME\ncat <<'END'\n```\nEND"


def agent_in(folder: Path, protocols: str = '["text", "tools"]', **plays: str) -> Agent:
    (folder / "plays").mkdir(parents=True)
    (folder / "agent.toml").write_text(
        f'name = "tried"\ngroup = "example"\nsummary = "x"\nversion = "1"\nnon_root = true\nprotocols = {protocols}\n'
    )
    (folder / "run.py").touch()
    for protocol, play in plays.items():
        (folder / "plays" / f"{protocol}.toml").write_text(play)
    return load_agent(folder)


TEXT = '[[answers]]\ntext = """do\n{command}\nnow"""\n[[answers]]\ntext = "DONE"\n'
TOOLS = (
    'capabilities = ["tools"]\n'
    '[[answers]]\ntool_calls = [{ name = "bash", arguments = { command = "{command}", other = [1] } }]\n'
)


def test_a_command_arrives_as_it_was_written_in_text_and_in_tools(tmp_path: Path) -> None:
    agent = agent_in(tmp_path / "a", text=TEXT, tools=TOOLS)
    for protocol in ("text", "tools"):
        found = speech.find(agent, protocol)
        assert found is not None
        assert found.takes_commands
        path = tmp_path / f"{protocol}.toml"
        speech.write(path, found.answers(COMMAND), repeat=True, capabilities=frozenset(), context_tokens=9)
        play = read_play(path)
        assert (play.when_exhausted, play.context_tokens) == ("repeat", 9)
        if protocol == "text":
            assert [entry.text for entry in play.answers] == [f"do\n{COMMAND}\nnow", "DONE"]
            assert [entry.text for entry in found.act("ls")] == ["do\nls\nnow"]
        else:
            assert play.answers[0].tool_calls[0].arguments == {"command": COMMAND, "other": [1]}


def test_without_a_play_the_scenarios_of_its_protocol_are_not_tried_and_it_says_so(tmp_path: Path) -> None:
    fitting, missing = to_try(agent_in(tmp_path / "a", text=TEXT))
    assert {each.why for each in missing} == {"there is no plays/tools.toml"}
    assert {(each.scenario.name, each.protocol) for each in missing} == {
        ("solves", "tools"),
        ("unrooted", "tools"),
        ("same-command", "tools"),
    }
    # What a bad model says needs no knowledge of the agent.
    assert {"rambles", "wrong-tool"} <= {scenario.name for scenario, protocol, _ in fitting if protocol == "tools"}
    bare, missing = to_try(agent_in(tmp_path / "b", protocols='["text"]'))
    assert {"rambles", "says-nothing", "dead-server"} <= {scenario.name for scenario, _, _ in bare}
    assert {"solves", "hangs"} <= {each.scenario.name for each in missing}


def test_an_agent_that_runs_no_commands_is_not_tried_with_any(tmp_path: Path) -> None:
    agent = agent_in(tmp_path / "a", protocols='["text"]', text='[[answers]]\ntext = "a patch"\n')
    fitting, missing = to_try(agent)
    assert not missing
    assert not {"hangs", "crashes", "network", "huge-output", "same-command"} & {s.name for s, _, _ in fitting}
    assert {"solves", "rambles", "dead-server"} <= {s.name for s, _, _ in fitting}


def test_an_agent_of_tools_alone_is_tried_with_everything_in_tools(tmp_path: Path) -> None:
    fitting, _ = to_try(agent_in(tmp_path / "a", protocols='["tools"]', tools=TOOLS))
    assert {protocol for _, protocol, _ in fitting} == {"tools"}
    assert {scenario.name for scenario, _, _ in fitting} == {scenario.name for scenario in SCENARIOS}


def test_a_play_that_is_malformed_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"plays/text.toml: answers: "):
        to_try(agent_in(tmp_path / "a", protocols='["text"]', text="answers = []\n"))


def test_every_scenario_can_be_said_to_every_agent_that_ships_with_the_harness(tmp_path: Path) -> None:
    callers = [agent for agent in find_agents()[0] if agent.origin == "built in" and agent.manifest.calls_model]
    assert {"mini-swe-agent", "openhands", "swe-agent", "autocoderover"} <= {agent.name for agent in callers}
    for agent in callers:
        fitting, missing = to_try(agent)
        assert not missing, agent.name
        for number, (scenario, protocol, said) in enumerate(fitting):
            path = tmp_path / f"{agent.name}-{number}.toml"
            answers = list(scenario.answers(said))
            speech.write(path, answers, repeat=scenario.repeat, capabilities=frozenset(), context_tokens=None)
            assert list(read_play(path).answers) == answers, (agent.name, scenario.name, protocol)
