"""Signals at chosen moments: at an event within the harness, or when something can be seen from outside."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from command_line import Harness


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
