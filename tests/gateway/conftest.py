"""A real gateway on a real Unix socket, in front of the scripted engine's real HTTP server."""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.engines.base import ChatRequest, Delta, Finish
from harness.engines.scripted import Scripted
from harness.gateway.ledger import CallRecord
from harness.gateway.policy import Policy
from harness.gateway.server import Door, Gateway

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
def open_run(short_dir: Path) -> Iterator[OpenRun]:
    """Open a run on a script (TOML); keyword arguments replace fields of the policy."""
    engine = Listening()
    gateway = Gateway(engine)
    clients: list[httpx.Client] = []

    def opener(toml: str, **policy: Any) -> Run:
        number = len(clients)
        script = short_dir / f"script{number}.toml"
        script.write_text(toml)
        engine.prepare(str(script), 4096)
        base = Policy(str(script), 4096, 64, 0.0, None, 7, False, "text", None, None, 30.0)
        socket, journal = short_dir / f"door{number}", short_dir / f"journal{number}"
        door = gateway.open(socket, replace(base, **policy), engine.describe(str(script)), journal)
        client = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket)),
            base_url="http://gateway",
            headers={"authorization": f"Bearer {door.key}"},
            timeout=20,
        )
        clients.append(client)
        return Run(door, socket, journal, engine, client)

    yield opener
    for client in clients:
        client.close()
    gateway.close()
    engine.close()
