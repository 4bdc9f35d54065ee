"""The connection to Docker, and the words with which everything of ours is labelled."""

from __future__ import annotations

import os
import platform

import docker
import requests
from docker.errors import APIError, DockerException

from harness.errors import MachineError

# Nothing is ever removed that does not carry the first of these.
KIND = "harness.kind"  # run, grade, build or bundle
SWEEP = "harness.sweep"
RUN = "harness.run"
OWNER = "harness.owner"  # the process that made it, see `owner()`

DockerFault = (DockerException, APIError, requests.exceptions.RequestException)


def connect(timeout_s: float = 120.0) -> docker.DockerClient:
    """A client of the Docker engine that the environment names.

    Raises MachineError that says what is missing and how to mend it.
    """
    try:
        client = docker.from_env(timeout=timeout_s, max_pool_size=32)
        client.ping()
    except DockerFault as error:
        where = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
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


def owner() -> str:
    """This process, told apart from every other one that may use the same Docker, now or later."""
    pid = os.getpid()
    return "/".join([*_here(), str(pid), process_start(pid) or ""])


def owner_lives(value: str | None) -> bool:
    """Whether the harness that labelled something with `value` still runs.

    One that can't be seen from here (another host, user or process namespace) counts as alive: what it has is
    not ours to remove. Root sees every user's.
    """
    host, user, namespace, pid, started = ((value or "").split("/") + [""] * 5)[:5]
    mine = _here()
    if (host, namespace) != (mine[0], mine[2]) or (user != mine[1] and os.getuid() != 0):
        return bool(started)
    return pid.isdigit() and bool(started) and process_start(int(pid)) == started


def process_start(pid: int) -> str | None:
    """The start time of a process in clock ticks since boot, or None when there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:  # noqa: PTH123 - read hundreds of times
            return stat.read().rsplit(")", 1)[1].split()[19]
    except OSError:
        return None


def _here() -> tuple[str, str, str]:
    """Host, user and process namespace, within which a process's number means one thing."""
    return platform.node(), str(os.getuid()), os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - no real path
