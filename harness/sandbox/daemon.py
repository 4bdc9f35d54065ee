"""The connection to Docker, and the words with which everything of ours is labelled."""

from __future__ import annotations

import hashlib
import os
import platform
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException

from harness.errors import MachineError
from harness.owned import here, process_start
from harness.sandbox import endpoint

# Nothing is ever removed that does not carry the first of these.
KIND = "harness.kind"  # run, grade, build or bundle
SWEEP = "harness.sweep"
RUN = "harness.run"
OWNER = "harness.owner"  # the process that made it, see `owner()`

SOCKET_URL = "http+docker://localhost"  # as docker-py calls any Unix socket

AWAY_LIMIT_S = 600.0  # for Docker to come back: an update, or a machine that is short of memory
AWAY_LOOK_S = 1.0

DockerFault = (DockerException, APIError, requests.exceptions.RequestException)


def connect(timeout_s: float = 120.0) -> docker.DockerClient:
    """A client of the Docker engine that the environment or Docker's context names.

    Raises UserError for one that can't be meant, MachineError that says what is missing and how to mend it.
    """
    where = "where DOCKER_HOST says"
    try:
        found = endpoint.find()
        where = found.url
        client = docker.DockerClient(found.url, tls=found.tls, timeout=timeout_s, max_pool_size=32)
        client.ping()
    except DockerFault as error:
        text = str(error)
        if "Permission denied" in text or "PermissionError" in text:
            mend = "this user may not use it: add them to its group (`sudo usermod -aG docker $USER`, log in again)"
        elif "FileNotFoundError" in text or "No such file" in text:
            mend = (
                "it is not installed or not running: `make setup` installs it, `sudo systemctl start docker` starts it"
            )
        else:
            mend = f"is it running? ({text.splitlines()[0][:160]})"
        raise MachineError(f"Docker does not answer at {where}: {mend}") from error
    return client


def await_answer(
    client: docker.DockerClient,
    cancelled: threading.Event,
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Return when Docker answers, at once if it does, or when the sweep is interrupted.

    Raises MachineError when it has not answered for AWAY_LIMIT_S.
    """
    limit_s = AWAY_LIMIT_S
    began = time.monotonic()
    while not cancelled.is_set():
        try:
            client.close()  # a Docker that is ending goes on answering on the connections that it has
            client.ping()
            return
        except DockerFault as error:
            if time.monotonic() - began > limit_s:
                raise MachineError(f"Docker has not answered for {limit_s:g} s: {error}") from error
            if time.monotonic() - began < AWAY_LOOK_S:
                say(f"Docker does not answer: waiting up to {limit_s:g} s for it")
        cancelled.wait(AWAY_LOOK_S)


def elsewhere(client: docker.DockerClient) -> str | None:
    """Why the engine is taken to be on another machine, where numbers of processes and paths mean something else; None
    for this machine's own. A socket may lead to a virtual machine, through a tunnel, or out of a container."""
    if client.api.base_url != SOCKET_URL:
        return f"it is reached by network ({client.api.base_url})"
    info, here = client.info(), platform.uname()
    for what, there, mine in (("kernel", info["KernelVersion"], here.release), ("host", info["Name"], here.node)):
        if there != mine:
            return f"its {what} is {there}, this one's {mine}"
    return None


def root_folder(client: docker.DockerClient) -> Path | None:
    """Where the engine keeps what it has, if that is a folder of this machine."""
    folder = str(client.info()["DockerRootDir"])
    return Path(folder) if elsewhere(client) is None and os.path.isdir(folder) else None  # noqa: PTH112 - never raises


def facts(client: docker.DockerClient) -> dict[str, Any]:
    """What of an engine belongs to the facts of a machine: its version, and where it is another machine's, that one's.
    None of it names a person or an address."""
    info = client.info()
    found: dict[str, Any] = {"docker": str(info["ServerVersion"])}
    if elsewhere(client):
        found["docker_elsewhere"] = {
            "id": hashlib.sha256(str(info["ID"]).encode()).hexdigest()[:12],
            "cores": info["NCPU"],
            "memory_bytes": info["MemTotal"],
            "architecture": info["Architecture"],
            "kernel": info["KernelVersion"],
            "os": info["OperatingSystem"],
        }
    return found


def owner() -> str:
    """This process, told apart from every other one that may use the same Docker, now or later."""
    pid = os.getpid()
    return "/".join([*here(), str(pid), process_start(pid) or ""])


def owner_lives(value: str | None) -> bool:
    """Whether the harness that labelled something with `value` still runs.

    One that can't be seen from here (another host, user or process namespace) counts as alive: what it has is
    not ours to remove. Root sees every user's.
    """
    host, user, namespace, pid, started = ((value or "").split("/") + [""] * 5)[:5]
    mine = here()
    if (host, namespace) != (mine[0], mine[2]) or (user != mine[1] and os.getuid() != 0):
        return bool(started)
    return pid.isdigit() and bool(started) and process_start(int(pid)) == started
