"""The frameworks themselves, unmodified, at their pins: that each can succeed, and how each ends when it can't.

A framework whose source is not to be had here is left out by name. What was tried beyond these scenarios, and with
real models, is in the records (`agents/<name>/CONFORMANCE.md`), which tests/test_agent_record.py asks for.
"""

from __future__ import annotations

import pytest

from harness.conformance.check import to_try
from harness.images import upstream
from harness.manifests import Agent, find_agents
from harness.sandbox.daemon import connect

FRAMEWORKS = [a for a in find_agents()[0] if a.origin == "built in" and a.manifest.group == "framework"]
FROM_THE_INDEX = {"mini-swe-agent", "openhands"}  # never left out where there is an index

SCENARIOS = (
    "solves", "unrooted", "rambles", "wrong-tool", "broken-json", "thinks-too-long", "dead-server", "refusing-server",
    "window-full", "silent-server", "network",
)  # fmt: skip


@pytest.mark.docker
@pytest.mark.network
@pytest.mark.parametrize("agent", FRAMEWORKS, ids=lambda agent: agent.name)
def test_it_resolves_a_task_and_ends_as_it_should_with_bad_models_and_servers(harness, agent: Agent) -> None:
    [standing] = upstream.standings(connect(), [agent])
    if standing.unreachable:
        assert agent.name not in FROM_THE_INDEX, standing.unreachable
        pytest.skip(f"{agent.name} is left out: {standing.unreachable}")
    fitting = {scenario.name for scenario, _, _ in to_try(agent)[0]}
    has = [name for name in SCENARIOS if name in fitting]
    done = harness("agents", "check", agent.name, "--only", ",".join(has), "--json", timeout_s=1800)
    assert done.code == 0, done.out + done.err
    rows = done.json()["scenarios"]
    solved = [row["protocol"] for row in rows if row["scenario"] == "solves" and row["verdict"] == "resolved"]
    assert solved == list(agent.manifest.protocols)


@pytest.mark.docker
@pytest.mark.network
@pytest.mark.model
def test_openhands_with_a_real_model_and_not_with_one_whose_window_is_too_small(harness) -> None:
    words = ["--agents", "openhands", "--tasks", "smoke", "--limit", "1", "--max-calls", "2", "--num-predict", "64"]
    refused = harness("sweep", *words, "--models", "llamacpp/smollm2:135m")
    assert refused.code == 2
    assert "tokens on record, the window has 8,192" in refused.err
    done = harness("sweep", *words, "--models", "llamacpp/gemma3-270m", "--num-ctx", "16384", "--pull", timeout_s=1200)
    assert done.code == 0, done.err
    [run] = harness.rows("SELECT * FROM runs")
    first = harness.rows("SELECT * FROM calls ORDER BY call_index")[0]
    assert (run["num_ctx"], first["status"]) == (16384, "ok")
    assert 7_000 < first["input_tokens"] < 16_384
    assert first["cached_tokens"] == 0
