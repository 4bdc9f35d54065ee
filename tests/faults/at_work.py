"""The container in which the agent or the tests of a sweep are at work, and how many runs it has stored."""

from __future__ import annotations

import contextlib

import docker
from command_line import Harness
from moments import until

from harness.sandbox.daemon import KIND, SWEEP

WAIT_S = 120.0


def container(harness: Harness, kind: str, client: docker.DockerClient) -> str | None:
    """The running container of a kind of this harness's sweep."""
    if not (harness.runs / "harness.db").exists():
        return None
    with contextlib.suppress(Exception):
        for row in harness.rows("SELECT sweep_id FROM sweeps"):
            found = client.containers.list(filters={"label": [f"{KIND}={kind}", f"{SWEEP}={row['sweep_id']}"]})
            if found:
                return str(found[0].id)
    return None


def at_work(harness: Harness, kind: str, client: docker.DockerClient) -> str:
    """Wait until the agent (run) or the tests (grade) sleep, as they are told to; returns the container."""

    def asleep() -> str | None:
        found = container(harness, kind, client)
        with contextlib.suppress(docker.errors.APIError):
            if found and any("sleep 4" in " ".join(row) for row in client.api.top(found)["Processes"]):
                return found
        return None

    until(asleep, WAIT_S)
    found = container(harness, kind, client)
    assert found is not None
    return found


def stored(harness: Harness) -> int:
    with contextlib.suppress(Exception):
        return int(harness.rows("SELECT COUNT(*) AS n FROM runs")[0]["n"])
    return 0
