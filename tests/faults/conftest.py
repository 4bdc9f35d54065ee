"""Faults of every kind, and one invariant after each. `make faults` makes all of them, CI a short cut."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Harness
from own_docker import OwnDocker, own_docker

THOROUGH = os.environ.get("HARNESS_FAULTS") == "all"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("at_length") and not THOROUGH:
        pytest.skip("made by `make faults`")


@pytest.fixture(scope="session")
def thorough() -> bool:
    return THOROUGH


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    """The command line, with a temporary folder that nobody else uses: what is left in it is the harness's.

    Its path is short, since the sockets of runs lie in it.
    """
    with tempfile.TemporaryDirectory(prefix="hf-") as temporary:
        yield Harness(tmp_path, {"TMPDIR": temporary}, own_session=True)


@pytest.fixture(scope="session")
def daemon() -> Iterator[OwnDocker]:
    """A Docker daemon of the tests' own, with the base image."""
    from harness.images.bases import ensure_base
    from harness.sandbox.daemon import connect

    base = "debian:bookworm-slim"
    with contextlib.closing(connect()) as client:
        ensure_base(client, base, print)
    with own_docker(inodes=40_000) as own:
        own.take(base)
        yield own


@pytest.fixture
def own(daemon: OwnDocker, monkeypatch: pytest.MonkeyPatch) -> OwnDocker:
    """The same, and everything in this test goes to it."""
    if not daemon.answers():
        daemon.start()
    monkeypatch.setenv("DOCKER_HOST", daemon.address)
    return daemon
