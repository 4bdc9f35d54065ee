"""Where a framework comes from, and whether it can be had: the package index, and git for what only git has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import docker
import uv

from harness.errors import MachineError, UserError
from harness.images import bundle, commits
from harness.images.network import build_environment, host_certificates
from harness.manifests import Agent, Unusable
from harness.sandbox.daemon import DockerFault, connect

CAUSE = re.compile(r"(?:fatal|[Cc]ause(?:d by)?): (.+)")  # as git and uv begin it
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
        elif agent.named_in(named):
            raise UserError(f"agent {agent.name} can't be used: {standing.unreachable}; {how_to_provide(agent)}")
        else:
            unusable.append(Unusable(agent.name, agent.origin, f"{standing.unreachable}; {how_to_provide(agent)}"))
    return usable, unusable


def how_to_provide(agent: Agent) -> str:
    """What a user can do about an upstream that can't be reached."""
    build = f"harness agents build {agent.folder if agent.origin == 'path' else agent.name}"
    if agent.manifest.source:
        return f"give a checkout or a mirror: `{build} --from PATH-OR-URL`"
    return f"give a package index (UV_DEFAULT_INDEX) or a folder of wheels: `{build} --wheels FOLDER`"


def _unreachable(agent: Agent) -> str | None:
    """Why what the agent is built from can't be had here, in a phrase; None: it can, or is here."""
    source = agent.manifest.source
    if source and not commits.is_here(source.name, source.commit, source.paths):
        ask = ["git", "ls-remote", "--exit-code", "--end-of-options", source.repository, "HEAD"]
        reason = _answer(ask, commits.git_environment())
        if reason is not None:
            return f"{source.repository} can't be reached: {reason}"
    if agent.lock and (requirement := _first_requirement(agent.lock)):
        # Asked as it is built: with the same settings, for the same Python.
        certificates = host_certificates()
        environment = {**os.environ, **build_environment(str(certificates) if certificates else None)}
        python = bundle.choose_python(agent.manifest.python)
        ask = [
            uv.find_uv_bin(), "pip", "compile", "--no-deps", "--no-header", "--no-cache", "--no-config",
            "--color=never", "--python", sys.executable, "--python-version", python[0], "-",
        ]  # fmt: skip
        reason = _answer(ask, environment | {"UV_HTTP_RETRIES": "0"}, requirement)
        if reason is not None:
            return f"the first of its packages, {requirement}, can't be had: {reason}"
    return None


def _answer(command: list[str], environment: Mapping[str, str], said: str = "") -> str | None:
    """Run a command that asks a server; returns why it failed, the last cause that it names, or None."""
    try:
        done = subprocess.run(
            command, env=environment, input=said, capture_output=True, text=True, errors="replace", check=False,
            timeout=REACH_S, cwd="/",  # a folder's own settings are not those that it is built with
        )  # fmt: skip
    except FileNotFoundError:
        return f"{command[0]} is not installed"
    except subprocess.TimeoutExpired:
        return f"no answer within {REACH_S:g} s"
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
    reasons = [found[1] for line in lines if (found := CAUSE.search(line))]
    return (reasons or lines)[-1][:300]


def _first_requirement(lock: Path) -> str | None:
    lines = lock.read_text(encoding="utf-8").splitlines()
    # One with a marker may be for another system.
    pins = (line.removesuffix("\\").strip() for line in lines if "==" in line and not line.startswith((" ", "#", "-")))
    return next((pin.split()[0] for pin in pins if ";" not in pin), None)
