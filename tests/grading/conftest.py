"""The first task of the smoke suite, ready to be graded; a module with tasks of its own has fixtures of its own."""

from __future__ import annotations

import docker
import pytest

from harness.images.dockerfiles import build
from harness.images.prepare import Prepared, prepare
from harness.sandbox.daemon import connect
from harness.suites import Task, load_suite


@pytest.fixture(scope="module")
def client() -> docker.DockerClient:
    return connect()


@pytest.fixture(scope="module")
def task() -> Task:
    return load_suite("smoke").tasks[0]


@pytest.fixture(scope="module")
def prepared(client: docker.DockerClient, task: Task, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    log = tmp_path_factory.mktemp("log") / "build.log"
    name = f"smoke/{task.name}"
    return prepare(client, build(client, task.environment, name, log, print), name)
