"""That an agent's folder and a task's are at every run what they were at a sweep's start: a sweep takes days, in which
somebody may well edit them, and runs of two versions are not one experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.errors import UserError
from harness.plan import Plan, PlannedRun, agent_hash


@dataclass(frozen=True)
class Sources:
    """Hashes of what runs read, by the names of agents and tasks."""

    agents: Mapping[str, str]
    tasks: Mapping[str, str]


def sources(plan: Plan) -> Sources:
    return Sources(
        {agent.name: agent_hash(agent) for agent in plan.agents},
        {task.name: task.content_hash for task in plan.suite.tasks},
    )


def check_unchanged(before: Sources, planned: PlannedRun, sweep_id: str) -> None:
    """Raises UserError where a run would not be made of what the sweep was begun with."""
    what = None
    if agent_hash(planned.agent) != before.agents[planned.agent.name]:
        what = f"the folder of agent {planned.agent.name} ({planned.agent.folder})"
    elif planned.task.content_hash != before.tasks[planned.task.name]:
        what = f"task {planned.task.name}"
    if what:
        raise UserError(
            f"{what} was changed while the sweep was under way: undo that and continue with "
            f"`harness sweep --resume {sweep_id}`, or start a new sweep; the runs so far are stored"
        )
