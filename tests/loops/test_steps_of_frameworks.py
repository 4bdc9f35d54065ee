"""Steps out of each framework's own recorded calls: real frameworks, in text, with tools and in JSON."""

from __future__ import annotations

from collections import Counter

import pytest
from quality import traces
from traces import Trace

FRAMEWORKS = ("mini-swe-agent", "swe-agent", "openhands", "autocoderover")


def of(agent: str, protocol: str | None = None) -> list[Trace]:
    return [trace for trace in traces() if trace.agent == agent and protocol in (None, trace.protocol)]


@pytest.mark.parametrize("agent", FRAMEWORKS)
def test_every_call_that_reached_the_model_is_one_step(agent: str) -> None:
    assert of(agent)
    for trace in of(agent):
        assert [step.call for step in trace.steps] == [call.index for call in trace.calls if call.is_step]


@pytest.mark.parametrize(
    ("agent", "protocol"),
    [
        ("mini-swe-agent", "text"),
        ("mini-swe-agent", "tools"),
        ("swe-agent", "text"),
        ("swe-agent", "tools"),
        ("openhands", "text"),
        ("openhands", "tools"),
    ],
)
def test_what_was_played_is_read_again_with_its_outcome_and_what_it_changed(agent: str, protocol: str) -> None:
    """Runs with prepared answers that resolved their task: each has read, changed files, and been told so."""
    resolved = [trace for trace in of(agent, protocol) if trace.outcome == "resolved"]
    assert len(resolved) >= 3
    for trace in resolved:
        steps = trace.steps
        acts = [step for step in steps if step.said.actions]
        assert any(step.said.actions[0].tool == "shell" for step in acts)
        told = [step for step in acts if step.observation]
        assert len(told) >= 0.8 * len(acts)  # all but the last, and what a cut-down conversation has lost
        known = [step for step in steps if step.said.before is not None and step.after is not None]
        changed = [step for step in known if step.said.before != step.after]
        assert changed, trace.name
        assert all(step.said.actions for step in changed), trace.name


@pytest.mark.parametrize("agent", ["mini-swe-agent", "swe-agent"])
def test_these_hold_one_conversation(agent: str) -> None:
    for trace in of(agent):
        assert {step.thread for step in trace.steps} == {0}


def test_openhands_asks_a_second_model_of_itself_to_cut_its_conversation_down() -> None:
    others = [Counter(step.thread for step in trace.steps if step.thread) for trace in of("openhands")]
    assert any(others)
    assert all(count == 1 for counts in others for count in counts.values())  # each asks once, for a summary
    cut = [step for trace in of("openhands") for step in trace.steps if step.said.request == "cut_down"]
    assert cut
    assert all(step.thread == 0 for step in cut)


def test_autocoderover_keeps_several_and_speaks_json() -> None:
    runs = of("autocoderover")
    assert any(len({step.thread for step in trace.steps}) > 2 for trace in runs)
    tools = {action.tool for trace in runs for step in trace.steps for action in step.said.actions}
    assert "json" in tools
    assert any(step.discarded for trace in runs for step in trace.steps)
    assert any(step.unreadable for trace in runs for step in trace.steps)
