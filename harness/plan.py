"""From a spec to the ordered list of runs, with everything that can be refused refused before anything starts."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from harness.agent_record import first_request_tokens
from harness.engines.base import Engine, ModelInfo
from harness.errors import UserError
from harness.manifests import NOT_THE_AGENT, Agent, Unusable
from harness.spec import DEFAULT_NUM_CTX, Spec
from harness.suites import Suite, Task
from harness.suites.harbor import folder_hash

Protocol = Literal["text", "tools"]
T = TypeVar("T")


@dataclass(frozen=True)
class Model:
    """A model of the sweep, with its window resolved."""

    engine: Engine
    info: ModelInfo
    num_ctx: int

    @property
    def label(self) -> str:
        return self.info.name if self.info.engine == "ollama" else f"{self.info.engine}/{self.info.name}"


@dataclass(frozen=True)
class PlannedRun:
    position: int
    agent: Agent
    model: Model | None  # None for an agent that calls none
    task: Task
    repetition: int  # from 1
    protocol: Protocol | None
    seed: int

    @property
    def label(self) -> str:
        """For people: who, with what, on what."""
        again = f" #{self.repetition}" if self.repetition > 1 else ""
        return f"{self.agent.name} × {self.model.label if self.model else 'none'} × {self.task.name}{again}"

    @property
    def engine_name(self) -> str:
        return self.model.info.engine if self.model else "none"

    @property
    def model_name(self) -> str:
        return self.model.info.name if self.model else "none"


@dataclass(frozen=True)
class Plan:
    spec: Spec
    suite: Suite
    agents: tuple[Agent, ...]
    models: tuple[Model, ...]
    unusable: tuple[Unusable, ...]  # what "all" had to leave out: agents, and pairs of agent and model
    runs: tuple[PlannedRun, ...]
    temperature: float
    top_p: float | None

    def resolved(self) -> dict[str, Any]:
        """What the spec came to. Two sweeps with the same value are the same experiment."""
        return {
            "agents": {
                a.name: {"version": a.manifest.version, "group": a.manifest.group,
                         "hash": agent_hash(a),
                         "commit": a.manifest.source.commit if a.manifest.source else None,
                         "overrides": dict(a.manifest.overrides)}
                for a in self.agents
            },
            "models": {m.label: {"digest": m.info.digest, "num_ctx": m.num_ctx} for m in self.models},
            "suite": {"name": self.suite.name, "hash": self.suite.hash, "tasks": [t.name for t in self.suite.tasks],
                      "left_out": {task.name: task.reason for task in self.suite.left_out}},
            "sampling": {"temperature": self.temperature, "top_p": self.top_p, "seed": self.spec.seed},
            "rules": self.spec.model_dump(
                include={"repeats", "order", "warmup", "rest_s", "rest_band_c", "control_every", "when_busy", "idle_s",
                         "idle_every", "engine_state", "slots", "meter", "meter_at", "time_limit_s", "max_calls",
                         "max_tokens", "max_energy_j", "num_predict", "guard", "guard_patience", "think", "protocol",
                         "door", "sandbox_user", "runtime", "cpus", "memory_mb", "disk_mb"}
            ),
            "runs": [
                [r.agent.name, f"{r.engine_name}/{r.model_name}", r.task.name, r.repetition, r.protocol]
                for r in self.runs
            ],
        }  # fmt: skip


def agent_hash(agent: Agent) -> str:
    """Of all in an agent's folder that its runs see."""
    return folder_hash(agent.folder, NOT_THE_AGENT)


def run_seed(seed: int, task: str, repetition: int) -> int:
    """Equal for every framework and model, so that they meet the same luck; different between repeats."""
    digest = hashlib.sha256(f"{seed}:{task}:{repetition}".encode()).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFF_FFFF


def resolve_model(engine: Engine, info: ModelInfo, spec: Spec) -> Model:
    """Check what the spec asks of a model against what it has. Raises UserError with both."""
    label = info.name if info.engine == "ollama" else f"{info.engine}/{info.name}"
    if spec.num_ctx is None:
        num_ctx = min(DEFAULT_NUM_CTX, info.context_tokens or DEFAULT_NUM_CTX)
    elif info.context_tokens is not None and spec.num_ctx > info.context_tokens:
        raise UserError(
            f"--num-ctx {spec.num_ctx} is more than model {label} has: its window is {info.context_tokens} tokens"
        )
    else:
        num_ctx = spec.num_ctx
    if spec.think and "thinking" not in info.capabilities:
        raise UserError(f"--think on: model {label} can't think; leave the flag out or choose another model")
    if spec.protocol == "tools" and "tools" not in info.capabilities:
        raise UserError(f"--protocol tools: model {label} has no tools; use --protocol text or auto")
    return Model(engine, info, num_ctx)


def protocol_of(agent: Agent, model: Model, spec: Spec) -> Protocol:
    """The way that an agent and a model talk. Raises UserError when they have none in common."""
    common: set[Protocol] = set(agent.manifest.protocols)
    if "tools" not in model.info.capabilities:
        common -= {"tools"}
    if spec.protocol != "auto":
        common &= {spec.protocol}
    if not common:
        raise UserError(
            f"agent {agent.name} speaks {' and '.join(agent.manifest.protocols)}, and with model {model.label} "
            f"and --protocol {spec.protocol} that can't be: leave one of the two out"
        )
    return "tools" if "tools" in common else "text"


def too_small(agent: Agent, model: Model, protocol: Protocol, suite: str) -> str | None:
    """Why a window can't hold an agent's first request, by the agent's conformance record; None: it can, or no record
    says otherwise."""
    needed = first_request_tokens(agent, model.info.name, protocol, suite)
    if needed is None or needed < model.num_ctx:
        return None
    return (
        f"agent {agent.name} with model {model.label}: its first request has {needed:,} tokens on record, the window "
        f"has {model.num_ctx:,}: choose a model with a larger window, or give a larger --num-ctx"
    )


def _without_root(agents: Sequence[Agent], spec: Spec) -> tuple[list[Agent], list[Unusable]]:
    """The agents that work as a user who is not root, and the others. Raises UserError when the user named one."""
    rooted = []
    for agent in agents:
        if agent.manifest.non_root:
            continue
        reason = "it is not known to work as another user than root (non_root in its agent.toml)"
        if agent.named_in(spec.agents):
            raise UserError(f"--sandbox-user agent: agent {agent.name}: {reason}; leave one of the two out")
        rooted.append(Unusable(agent.name, agent.origin, reason))
    return [agent for agent in agents if agent.manifest.non_root], rooted


def make_plan(
    spec: Spec,
    suite: Suite,
    agents: list[Agent],
    unusable: list[Unusable],
    models: Mapping[str, Model],
    pairs: Collection[tuple[str, str]] | None = None,
) -> Plan:
    """Choose and order the runs.

    Order "blocks": a block is one task in one repetition, with every agent and model. Repetitions follow each other,
    the tasks of each are in random order, and so are, within a block, the models and the agents of a model. Runs of one
    model stay together there, for each change loads a model anew; agents without a model are a group like a model's.
    Neither agent nor model is so confounded with time. Order "listed": as they were named, without any chance.

    `pairs` are the agents and models (as engine/name) of a stored sweep: they are taken as they were decided then.
    Raises UserError for what can't be run.
    """
    if spec.guard_patience is not None and spec.guard != "stop":
        raise UserError(f"--guard-patience is for --guard stop, and --guard is {spec.guard}: leave one of them out")
    if spec.sandbox_user == "agent":
        agents, rooted = _without_root(agents, spec)
        unusable = [*unusable, *rooted]
    if not agents:
        reasons = "; ".join(f"{u.name}: {u.reason}" for u in unusable) or "none is installed"
        raise UserError(f"no agent can be used ({reasons})")
    callers = [agent for agent in agents if agent.manifest.calls_model]
    if callers and not models:
        raise UserError(f"--models is missing: agent {callers[0].name} calls a model")
    groups: list[tuple[Model | None, list[tuple[Agent, Protocol | None]]]] = []
    if without := [agent for agent in agents if not agent.manifest.calls_model]:
        groups.append((None, [(agent, None) for agent in without]))
    refused: list[Unusable] = []
    for model in models.values():
        spoken = {agent.name: protocol_of(agent, model, spec) for agent in callers}
        fitting: list[tuple[Agent, Protocol | None]] = []
        for agent in callers:
            if pairs is not None:
                reason = None if (agent.name, f"{model.info.engine}/{model.info.name}") in pairs else ""
            else:
                reason = too_small(agent, model, spoken[agent.name], suite.name)
            if reason is None:
                fitting.append((agent, spoken[agent.name]))
            elif reason and agent.named_in(spec.agents):
                raise UserError(reason)
            elif reason:
                refused.append(Unusable(f"{agent.name} × {model.label}", agent.origin, reason))
        groups.append((model, fitting))
    chance = random.Random(spec.seed)

    def ordered(items: Sequence[T]) -> list[T]:
        return chance.sample(items, len(items)) if spec.order == "blocks" else list(items)

    runs: list[PlannedRun] = []
    for repetition in range(1, spec.repeats + 1):
        for task in ordered(suite.tasks):
            for chosen, members in ordered(groups):
                for agent, protocol in ordered(members):
                    seed = run_seed(spec.seed, task.name, repetition)
                    runs.append(PlannedRun(len(runs), agent, chosen, task, repetition, protocol, seed))
    spread = spec.repeats > 1
    temperature = spec.temperature if spec.temperature is not None else (0.7 if spread else 0.0)
    top_p = spec.top_p if spec.top_p is not None or spec.temperature is not None else (0.95 if spread else None)
    if not runs:
        raise UserError("nothing is left to run: " + "; ".join(each.reason for each in (*unusable, *refused)))
    return Plan(
        spec,
        suite,
        tuple(agent for agent in agents if any(run.agent is agent for run in runs)),
        tuple(model for model in models.values() if any(run.model is model for run in runs)),
        (*unusable, *refused),
        tuple(runs),
        temperature,
        top_p,
    )
