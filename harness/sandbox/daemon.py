"""The connection to Docker, and the words with which everything of ours is labelled."""

from __future__ import annotations

import os

import docker
import requests
from docker.errors import APIError, DockerException

from harness.errors import MachineError

# Nothing is ever removed that does not carry the first of these.
KIND = "harness.kind"  # run, grade, build or bundle
SWEEP = "harness.sweep"
RUN = "harness.run"
OWNER = "harness.owner"  # process and start time of the harness that made it, see `owner()`

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
    """This process, told apart from a later one that was given the same number: "pid:start time"."""
    return f"{os.getpid()}:{process_start(os.getpid())}"


def process_start(pid: int) -> str | None:
    """The start time of a process in clock ticks since boot, or None when there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:  # noqa: PTH123 - read hundreds of times
            return stat.read().rsplit(")", 1)[1].split()[19]
    except OSError:
        return None


def owner_lives(value: str | None) -> bool:
    """Whether the harness that labelled something with `value` still runs on this machine."""
    pid, _, started = (value or "").partition(":")
    return pid.isdigit() and bool(started) and process_start(int(pid)) == started
