"""Signals at chosen moments: at an event within the harness, or when something can be seen from outside."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from command_line import Harness
from docker.errors import APIError

from harness.sandbox.daemon import KIND, OWNER, connect


def watched(harness: Harness, **env: str) -> Harness:
    """The same harness, which sends itself a signal at an event: see at_a_moment/sitecustomize.py for `env`."""
    folder = str(Path(__file__).with_name("at_a_moment"))
    path = os.pathsep.join(filter(None, [folder, os.environ.get("PYTHONPATH")]))
    return replace(harness, env={**harness.env, "PYTHONPATH": path, **env})


def until(happened: Callable[[], object], limit_s: float = 60.0) -> None:
    """Wait for something to be true."""
    deadline = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


def commands(harness: Harness, kind: str = "run") -> dict[int, str]:
    """What goes on in the containers of the process that was started last: numbers on this host, and command lines."""
    found: dict[int, str] = {}
    with contextlib.closing(connect()) as client:
        for each in client.api.containers(filters={"label": f"{KIND}={kind}"}):
            if each["Labels"].get(OWNER, "").endswith(f"/{harness.started[-1]}"):
                with contextlib.suppress(APIError):  # it has ended meanwhile
                    top = client.api.top(each["Id"])
                    column = top["Titles"].index("PID")
                    found |= {int(line[column]): line[-1] for line in top["Processes"] or []}
    return found


def agents_at_work(harness: Harness) -> list[int]:
    """The numbers of the runners that call a model now."""
    return [pid for pid, words in commands(harness).items() if "python" in words and "agent/run.py" in words]
