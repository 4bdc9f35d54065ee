"""Containers are removed in the background, so that nobody waits for it; once more at the end, if Docker was away."""

from __future__ import annotations

import threading
import time

import docker
from docker.errors import NotFound

from harness.sandbox.daemon import DockerFault

_removals: set[threading.Thread] = set()
_refused: set[tuple[docker.DockerClient, str]] = set()  # containers that could not be removed, as Docker was away


def remove_in_background(client: docker.DockerClient, container_id: str) -> None:
    thread = threading.Thread(target=_remove, args=(client, container_id), name=f"remove {container_id[:12]}")
    _removals.add(thread)
    thread.start()


def _remove(client: docker.DockerClient, container_id: str) -> None:
    try:
        client.api.remove_container(container_id, force=True, v=True)
    except NotFound:
        pass
    except DockerFault:
        _refused.add((client, container_id))
    _removals.discard(threading.current_thread())


def remove_again() -> None:
    """Try once more to remove what could not be removed. What still can't be carries its owner's label, and the next
    command removes it."""
    while _refused:
        remove_in_background(*_refused.pop())


def wait_for_removals(timeout_s: float = 10.0) -> None:
    """Return when the containers that were left are gone, or after `timeout_s`."""
    remove_again()
    deadline = time.monotonic() + timeout_s
    for thread in list(_removals):
        thread.join(max(0.0, deadline - time.monotonic()))
