"""From a spec to runs: their order and seeds, and what is refused before anything starts."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from harness.engines.base import ModelInfo
from harness.engines.scripted import Scripted
from harness.errors import UserError
from harness.manifests import Agent, Manifest, Unusable, select_agents
from harness.plan import Model, Plan, make_plan, protocol_of, resolve_model, run_seed
from harness.spec import Spec
from harness.suites import choose, load_suite

ENGINE = Scripted()


def agent(name: str = "caller", protocols: tuple[str, ...] = ("text",)) -> Agent:
    manifest = Manifest(name=name, group="example", summary="x", version="1", protocols=list(protocols))
    return Agent(manifest, Path("/nowhere") / name, "path")


def model(name: str = "m", capabilities: tuple[str, ...] = (), window: int | None = 4096) -> Model:
    return Model(ENGINE, ModelInfo(name, "scripted", frozenset(capabilities), window), window or 1)


def planned(spec: Spec, agents: list[Agent], *models: Model) -> Plan:
    suite = choose(load_suite("smoke"), [], spec.limit)
    return make_plan(spec, suite, agents, [], {each.label: each for each in models})


def cells(plan: Plan) -> list[tuple[str, str, str, int]]:
    return [(run.agent.name, run.model_name, run.task.name, run.repetition) for run in plan.runs]


def test_every_cell_is_there_once() -> None:
    spec = Spec(agents=["x"], limit=3, repeats=2)
    plan = planned(spec, [agent("a"), agent("b"), *select_agents(["nop"])[0]], model("m1"), model("m2"))
    assert len(set(cells(plan))) == len(plan.runs) == 2 * 2 * 3 * 2 + 3 * 2
    assert [run.position for run in plan.runs] == list(range(30))


def test_a_block_is_a_task_with_all_its_agents_and_models() -> None:
    spec = Spec(agents=["x"], limit=4, repeats=3, seed=5)
    plan = planned(spec, [agent("a"), agent("b"), *select_agents(["nop"])[0]], model("m1"), model("m2"))
    blocks = [cells(plan)[begin : begin + 5] for begin in range(0, len(plan.runs), 5)]
    for block in blocks:
        assert len({(task, repetition) for _, _, task, repetition in block}) == 1
        models = [name for _, name, _, _ in block]
        # Runs of one model stay together: each change loads a model anew.
        assert sum(before != after for before, after in pairwise(models)) == 2
        assert len({(name, chosen) for name, chosen, _, _ in block}) == 5
    repetitions = [block[0][3] for block in blocks]
    assert repetitions == sorted(repetitions)
    assert len({tuple(block[0][2] for block in blocks if block[0][3] == n) for n in (1, 2, 3)}) > 1


def test_neither_agent_nor_model_is_confounded_with_time() -> None:
    first: Counter[tuple[str, str]] = Counter()
    for seed in range(400):
        plan = planned(Spec(agents=["x"], limit=1, seed=seed), [agent("a"), agent("b")], model("m1"), model("m2"))
        first[cells(plan)[0][:2]] += 1
    assert set(first) == {("a", "m1"), ("a", "m2"), ("b", "m1"), ("b", "m2")}
    assert all(70 < count < 130 for count in first.values())


def test_the_order_follows_from_the_seed_alone() -> None:
    def order(seed: int) -> list[tuple[str, str, str, int]]:
        return cells(planned(Spec(agents=["x"], seed=seed), [agent("a"), agent("b")], model()))

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert sorted(order(1)) == sorted(order(2))


def test_the_listed_order_has_no_chance_in_it() -> None:
    spec = Spec(agents=["x"], order="listed", limit=2, repeats=2)
    listed = cells(planned(spec, [agent("a"), agent("b")], model("m1"), model("m2")))
    assert [cell[0] for cell in listed[:4]] == ["a", "b", "a", "b"]
    assert [cell[1] for cell in listed[:4]] == ["m1", "m1", "m2", "m2"]
    assert [cell[3] for cell in listed] == [1] * 8 + [2] * 8


def test_seeds_are_equal_across_agents_and_models_and_differ_between_tasks_and_repeats() -> None:
    plan = planned(Spec(agents=["x"], limit=2, repeats=2), [agent("a"), agent("b")], model("m1"), model("m2"))
    seeds: dict[tuple[str, int], set[int]] = {}
    for run in plan.runs:
        seeds.setdefault((run.task.name, run.repetition), set()).add(run.seed)
    assert all(len(each) == 1 for each in seeds.values())
    assert len({seed for each in seeds.values() for seed in each}) == 4
    assert all(0 <= run_seed(seed, "t", 1) < 2**31 for seed in (0, 1, 2**62))


@pytest.mark.parametrize(
    ("fields", "temperature", "top_p"),
    [
        ({}, 0.0, None),
        ({"repeats": 2}, 0.7, 0.95),
        ({"repeats": 2, "temperature": 0.2}, 0.2, None),
        ({"repeats": 2, "temperature": 0.0}, 0.0, None),
        ({"top_p": 0.5}, 0.0, 0.5),
    ],
)
def test_sampling_spreads_only_where_repeats_ask_for_it(
    fields: dict[str, float], temperature: float, top_p: float | None
) -> None:
    plan = planned(Spec(agents=["x"], limit=1, **fields), [agent()], model())
    assert (plan.temperature, plan.top_p) == (temperature, top_p)


@pytest.mark.parametrize(
    ("window", "asked", "resolved"), [(8192, None, 8192), (40960, None, 16384), (None, None, 16384), (8192, 300, 300)]
)
def test_the_window_is_the_default_the_models_or_what_was_asked(
    window: int | None, asked: int | None, resolved: int
) -> None:
    info = ModelInfo("m", "scripted", context_tokens=window)
    assert resolve_model(ENGINE, info, Spec(agents=["x"], num_ctx=asked)).num_ctx == resolved


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"num_ctx": 9000}, r"--num-ctx 9000 is more than model scripted/m has: its window is 8192 tokens"),
        ({"think": True}, r"--think on: model scripted/m can't think"),
        ({"protocol": "tools"}, r"--protocol tools: model scripted/m has no tools"),
    ],
)
def test_what_a_model_does_not_have_is_refused(fields: dict[str, object], sentence: str) -> None:
    info = ModelInfo("m", "scripted", context_tokens=8192)
    with pytest.raises(UserError, match=sentence):
        resolve_model(ENGINE, info, Spec(agents=["x"], **fields))


@pytest.mark.parametrize(
    ("speaks", "has", "asked", "spoken"),
    [
        (("text", "tools"), ("tools",), "auto", "tools"),
        (("text", "tools"), (), "auto", "text"),
        (("text", "tools"), ("tools",), "text", "text"),
        (("text",), ("tools",), "auto", "text"),
        (("tools",), ("tools",), "tools", "tools"),
        (("tools",), (), "auto", None),
        (("text",), ("tools",), "tools", None),
        (("tools",), ("tools",), "text", None),
    ],
)
def test_the_protocol_is_what_agent_model_and_user_have_in_common(
    speaks: tuple[str, ...], has: tuple[str, ...], asked: str, spoken: str | None
) -> None:
    spec = Spec(agents=["x"], protocol=asked)
    if spoken is not None:
        assert protocol_of(agent(protocols=speaks), model(capabilities=has), spec) == spoken
        return
    with pytest.raises(UserError, match=f"agent caller speaks {' and '.join(speaks)}, .*--protocol {asked}"):
        protocol_of(agent(protocols=speaks), model(capabilities=has), spec)


def test_a_plan_needs_an_agent_and_an_agent_that_calls_needs_a_model() -> None:
    spec = Spec(agents=["x"], limit=1)
    with pytest.raises(UserError, match="--models is missing: agent caller calls a model"):
        planned(spec, [agent()])
    suite = load_suite("smoke")
    with pytest.raises(UserError, match=r"no agent can be used \(b: its manifest is broken\)"):
        make_plan(spec, suite, [], [Unusable("b", "path", "its manifest is broken")], {})
    [nop] = select_agents(["nop"])[0]
    assert [run.model for run in planned(spec, [nop]).runs] == [None]


def test_the_resolved_plan_tells_experiments_apart() -> None:
    def resolved(**fields: object) -> dict[str, object]:
        return planned(Spec(agents=["nop"], **fields), select_agents(["nop"])[0]).resolved()

    assert resolved(limit=2) == resolved(limit=2)
    for other in ({"limit": 1}, {"limit": 2, "seed": 1}, {"limit": 2, "max_calls": 3}, {"limit": 2, "repeats": 2}):
        assert resolved(limit=2) != resolved(**other)
    # How often a spoilt run is tried again does not change what is measured.
    assert resolved(limit=2) == resolved(limit=2, retries=5)


def test_agents_that_need_root_are_left_out_where_agents_have_a_user_of_their_own() -> None:
    rooted, free = (
        Agent(
            Manifest(name=name, group="framework", summary="x", version="1", calls_model=False, non_root=non_root),
            Path("/nowhere") / name,
            "built in",
        )
        for name, non_root in (("rooted", False), ("free", True))
    )
    plan = planned(Spec(agents=["all"], limit=1, sandbox_user="agent"), [rooted, free])
    assert [run.agent.name for run in plan.runs] == ["free"]
    [left_out] = plan.unusable
    assert (left_out.name, "non_root in its agent.toml" in left_out.reason) == ("rooted", True)
    assert len(planned(Spec(agents=["all"], limit=1), [rooted, free]).runs) == 2
    with pytest.raises(UserError, match="--sandbox-user agent: agent rooted"):
        planned(Spec(agents=["rooted", "free"], limit=1, sandbox_user="agent"), [rooted, free])
