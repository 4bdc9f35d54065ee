"""Attempts to get out of a sandbox, made inside a real one. Each has to fail and to be seen; and each is made again
where its protection is taken away and has to succeed there, or it would show nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from harness.images.locate import prepare_all
from harness.images.prepare import Prepared
from harness.sandbox.container import wait_for_removals
from harness.sandbox.daemon import connect
from harness.suites import choose, load_suite

TASK = "smoke/cinema-seats-off-by-one"


@pytest.fixture(scope="session")
def client() -> Iterator[docker.DockerClient]:
    client = connect()
    yield client
    wait_for_removals()


@pytest.fixture(scope="session")
def prepared(client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The image of a task of the smoke suite, as an agent gets it. It has a Python."""
    suite = load_suite("smoke")
    task = next(task for task in suite.tasks if TASK.endswith(task.name))
    folder: Path = tmp_path_factory.mktemp("images")
    return prepare_all(client, choose(suite, [task.name], None), folder, print)[task.name]
