"""Attempts to get out of a sandbox, made inside a real one. Each has to fail and to be seen; and each is made again
where its protection is taken away and has to succeed there, or it would show nothing."""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from command_line import Harness
from places import DOORS, INSIDE, Host, Other, agent, flags, host_addresses, until

from harness.images.locate import prepare_all
from harness.images.prepare import Prepared
from harness.sandbox.container import tar_of
from harness.sandbox.daemon import SWEEP, connect
from harness.sandbox.removal import wait_for_removals
from harness.suites import choose, load_suite

TASK = "cinema-seats-off-by-one"


@pytest.fixture(scope="session", params=DOORS)
def door(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def client() -> Iterator[docker.DockerClient]:
    client = connect()
    yield client
    wait_for_removals()


@pytest.fixture(scope="session")
def prepared(client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The image of a task of the smoke suite, as an agent gets it. It has a Python and git."""
    folder: Path = tmp_path_factory.mktemp("images")
    return prepare_all(client, choose(load_suite("smoke"), [TASK], None), folder, print)[TASK]


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    """Services on all addresses, on the loopback, and on a socket without a file; and a process with a name."""
    mark = f"host-{secrets.token_hex(4)}"
    everywhere = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    loopback = socket.create_server(("127.0.0.1", 0))
    named = socket.socket(socket.AF_UNIX)
    named.bind(f"\0{mark}")
    named.listen()
    facts = {
        "host_mark": mark,
        "host_addresses": host_addresses(),
        "host_port": everywhere.getsockname()[1],
        "host_loopback_port": loopback.getsockname()[1],
        "host_abstract": mark,
    }
    host = Host(facts)

    def serve(listener: socket.socket, what: str) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                host.visitors.append(what)
                with connection:
                    connection.sendall(b"the host")

    listeners = {"everywhere": everywhere, "loopback": loopback, "abstract": named}
    for what, listener in listeners.items():
        threading.Thread(target=serve, args=(listener, what), daemon=True).start()
    process = subprocess.Popen(["python3", "-c", "import time; time.sleep(3600)", mark])
    yield host
    process.kill()
    process.wait()
    for listener in listeners.values():
        listener.close()


def marks() -> dict[str, Any]:
    """By which the processes of another sandbox could be known."""
    return {
        "other_mark": f"other-{secrets.token_hex(4)}",
        "other_key": secrets.randbits(30),
        "other_port": 18_765,
    }


def ready(container: Any) -> bool:
    return container.exec_run(["test", "-e", "/root/ready"])[0] == 0


def addresses(container: Any) -> list[str]:
    container.reload()
    networks = container.attrs["NetworkSettings"]["Networks"].values()
    return [network["IPAddress"] for network in networks if network["IPAddress"]]


@pytest.fixture(scope="session")
def other_run(client: docker.DockerClient, door: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Other]:
    harness = Harness(tmp_path_factory.mktemp("other"))
    known = marks()
    words = (known["other_mark"], known["other_key"], known["other_port"])
    path = agent(harness, "other", "exec python3 other_run.py {} {} {}".format(*words), known)
    model = harness.script({"text": "hello"})
    process = harness.popen(
        "sweep", "--agents", path, "--models", model, "--tasks", "smoke", "--only", TASK, *flags(door)
    )
    try:
        database = harness.runs / "harness.db"
        until(lambda: database.exists() and harness.rows("SELECT 1 FROM sqlite_master WHERE name = 'sweeps'"))
        until(lambda: harness.rows("SELECT 1 FROM sweeps"))
        [sweep] = [row["sweep_id"] for row in harness.rows("SELECT sweep_id FROM sweeps")]

        def containers() -> list[Any]:
            return [
                found
                for found in client.containers.list(filters={"label": f"{SWEEP}={sweep}"})
                if found.labels.get("harness.kind") == "run"
            ]

        until(lambda: containers() and ready(containers()[0]))
        [container] = containers()
        key = json.loads(container.exec_run(["cat", "/opt/harness/task.json"])[1])["api_key"]
        yield Other(container, {**known, "other_addresses": addresses(container), "other_run_key": key})
    finally:
        for _ in range(2):  # now, without finishing what could be finished
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


@pytest.fixture(scope="session")
def other_container(client: docker.DockerClient, prepared: Prepared) -> Iterator[Other]:
    """The same without a harness, and willing to share."""
    known = marks()
    words = [str(known[name]) for name in ("other_mark", "other_key", "other_port")]
    volume = client.volumes.create(labels={"harness.kind": "test"})
    container = client.containers.create(
        prepared.image,
        ["python3", "/other_run.py", *words],
        entrypoint="",
        network_mode="none",
        ipc_mode="shareable",
        volumes={volume.name: {"bind": "/tmp", "mode": "rw"}},
    )
    try:
        container.put_archive("/", tar_of({"/other_run.py": INSIDE / "other_run.py"}))
        container.start()
        until(lambda: ready(container))
        yield Other(container, {**known, "other_addresses": []})
    finally:
        container.remove(force=True, v=True)
        volume.remove(force=True)
