"""A real gateway on a real Unix socket, in front of the scripted engine's real HTTP server."""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.engines.base import ChatRequest, Delta, Finish
from harness.engines.scripted import Scripted
from harness.gateway.ledger import CallRecord
from harness.gateway.policy import Policy
from harness.gateway.server import Door, Gateway
from tests.relayed import relayed

MESSAGES = [{"role": "system", "content": "You fix bugs."}, {"role": "user", "content": "fix it please"}]


class Listening(Scripted):
    """The scripted engine, with what the gateway asked it for."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[ChatRequest] = []

    def chat(self, request: ChatRequest) -> AsyncIterator[Delta | Finish]:
        self.requests.append(request)
        return super().chat(request)


@dataclass
class Run:
    """One run's door with a client that has its key."""

    door: Door
    socket: Path
    journal: Path
    engine: Listening
    client: httpx.Client
    port: int | None = None  # of the loopback, where its door is the relay
    relay: ExitStack = field(default_factory=ExitStack)

    def connect(self) -> socket.socket:
        """A connection as a client in the sandbox makes it; through the mounted socket, without the forwarder."""
        if self.port is not None:
            return socket.create_connection(("127.0.0.1", self.port), timeout=20)
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(20)
        made.connect(str(self.socket))
        return made

    def without_key(self) -> httpx.Client:
        if self.port is not None:
            return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20, trust_env=False)
        return httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.socket)), base_url="http://gateway", timeout=20
        )  # fmt: skip

    def chat(self, **more: Any) -> httpx.Response:
        return self.client.post("/v1/chat/completions", json={"model": "any", "messages": MESSAGES, **more})

    def close(self) -> list[CallRecord]:
        return self.door.close()

    def upstream(self) -> list[dict[str, Any]]:
        """The bodies that the engine's server got."""
        return [entry["body"] for entry in self.engine.log()["requests"]]

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.journal / name).read_text().splitlines()]


OpenRun = Callable[..., Run]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scripted engine needs no time to be restarted."""
    monkeypatch.setattr("harness.gateway.limits.ENGINE_PAUSES_S", (0.01, 0.01))


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A socket's path has 107 bytes at most, pytest's own folders are long."""
    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        yield Path(folder)


@pytest.fixture
def way() -> str:
    """The door of `open_run`: socket or relay. Modules whose tests hold for both have a fixture of their own."""
    return "socket"


@pytest.fixture
def open_run(short_dir: Path, way: str) -> Iterator[OpenRun]:
    """Open a run on a script (TOML); keyword arguments replace fields of the policy."""
    engine = Listening()
    relays = ExitStack()
    gateway = Gateway(engine)
    clients: list[httpx.Client] = []

    def opener(toml: str, **policy: Any) -> Run:
        number = len(clients)
        script = short_dir / f"script{number}.toml"
        script.write_text(toml)
        engine.prepare(str(script), 4096)
        base = Policy(str(script), 4096, 64, 0.0, None, 7, False, "text", None, None, 30.0)
        path, journal = short_dir / f"door{number}", short_dir / f"journal{number}"
        door = gateway.open(path, replace(base, **policy), engine.describe(str(script)), journal)
        run = Run(door, path, journal, engine, httpx.Client())
        if way == "relay":
            run.port = run.relay.enter_context(relayed(path, short_dir)).port
            relays.push(run.relay)
        run.client = run.without_key()
        run.client.headers["authorization"] = f"Bearer {door.key}"
        clients.append(run.client)
        return run

    yield opener
    for client in clients:
        client.close()
    relays.close()
    gateway.close()
    engine.close()
