"""Where a framework comes from, and whether it can be had: the package index, and git for what only git has."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import docker
import uv

from harness.errors import MachineError, UserError
from harness.images import bundle, commits
from harness.manifests import Agent, Unusable
from harness.sandbox.daemon import DockerFault, connect

REACH_S = 15.0  # for a server that does not say no


@dataclass(frozen=True)
class Standing:
    """How an agent stands: `bundle` if it is built, else why it can't be, or neither: it is built when it is used."""

    bundle: bundle.Bundle | None
    unreachable: str | None


def standings(client: docker.DockerClient | None, agents: Sequence[Agent]) -> list[Standing]:
    """How agents stand, in their order. What is built is not looked for upstream. `client` None: no Docker here."""
    built = [bundle.find(client, agent) if client else None for agent in agents]
    with ThreadPoolExecutor() as pool:
        reasons = pool.map(lambda pair: None if pair[1] else _unreachable(pair[0]), zip(agents, built, strict=True))
        return [Standing(made, reason) for made, reason in zip(built, reasons, strict=True)]


def leave_out_unreachable(agents: Sequence[Agent], named: Collection[str]) -> tuple[list[Agent], list[Unusable]]:
    """The agents that are built or can be, and the others. Raises UserError when one of those is in `named`."""
    try:
        client = connect()
    except MachineError:
        return list(agents), []  # whoever starts the sweep says it
    try:
        found = standings(client, agents)
    except DockerFault as error:
        raise MachineError(f"the bundles of agents can't be looked up: Docker said: {error}") from error
    usable, unusable = [], []
    for agent, standing in zip(agents, found, strict=True):
        if standing.unreachable is None:
            usable.append(agent)
        elif agent.name in named or agent.origin == "path":
            raise UserError(f"agent {agent.name} can't be used: {standing.unreachable}; {how_to_provide(agent)}")
        else:
            unusable.append(Unusable(agent.name, agent.origin, f"{standing.unreachable}; {how_to_provide(agent)}"))
    return usable, unusable


def how_to_provide(agent: Agent) -> str:
    """What a user can do about an upstream that can't be reached."""
    if agent.manifest.source:
        return f"give a checkout or a mirror: `harness agents build {agent.name} --from PATH-OR-URL`"
    return (
        f"give a package index (UV_DEFAULT_INDEX) or a folder of wheels: `harness agents build {agent.name} "
        "--wheels FOLDER`"
    )


def _unreachable(agent: Agent) -> str | None:
    """Why what the agent is built from can't be had here, in a phrase; None: it can, or is here."""
    source = agent.manifest.source
    if source and not commits.is_here(source.name, source.commit, source.paths):
        reason = _answer(
            ["git", "ls-remote", "--exit-code", source.repository, "HEAD"], {"GIT_TERMINAL_PROMPT": "0"}, "fatal: "
        )
        if reason is not None:
            return f"{source.repository} can't be reached: {reason}"
    if agent.lock and (requirement := _first_requirement(agent.lock)):
        # uv is asked, since the user's own settings say which index, which proxy and which certificates.
        reason = _answer(
            [uv.find_uv_bin(), "pip", "compile", "--no-deps", "--no-header", "--no-cache", "--color=never", "-"],
            {"UV_HTTP_RETRIES": "0"}, "Caused by: ", requirement,
        )  # fmt: skip
        if reason is not None:
            return f"the package index has no {requirement} for this machine: {reason}"
    return None


def _answer(command: list[str], more: dict[str, str], reason_after: str, said: str = "") -> str | None:
    """Run a command that asks a server; returns why it failed, the last line with `reason_after`, or None."""
    try:
        done = subprocess.run(
            command, env={**os.environ, **more}, input=said, capture_output=True, text=True, errors="replace",
            check=False, timeout=REACH_S,
        )  # fmt: skip
    except FileNotFoundError:
        return f"{command[0]} is not installed"
    except subprocess.TimeoutExpired:
        return f"no answer within {REACH_S:g} s"
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
    reasons = [line.partition(reason_after)[2] for line in lines if reason_after in line]
    return (reasons or lines)[-1][:300]


def _first_requirement(lock: Path) -> str | None:
    lines = lock.read_text(encoding="utf-8").splitlines()
    return next((line.split()[0] for line in lines if "==" in line and not line.startswith((" ", "#", "-"))), None)
