"""The door `relay`: what the sandbox sends is led to the door's socket, and whatever breaks its rules ends it."""

from __future__ import annotations

import random
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from harness.sandbox.multiplex import (
    CONNECTIONS,
    CREDIT,
    CUT,
    DATA,
    END,
    HEADER,
    OPEN,
    PIECE_BYTES,
    WINDOW_BYTES,
)  # fmt: skip
from harness.sandbox.relay import Relay
from tests.relayed import Relayed, relayed


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "gateway.sock"))
        listener.listen(300)
        listener.settimeout(10)
        yield listener


@pytest.fixture
def way(gateway: socket.socket, tmp_path: Path) -> Iterator[Relayed]:
    (tmp_path / "work").mkdir()
    with relayed(tmp_path / "gateway.sock", tmp_path / "work") as relay:
        yield relay


def connect(way: Relayed, gateway: socket.socket) -> tuple[socket.socket, socket.socket]:
    client = socket.create_connection(("127.0.0.1", way.port), timeout=10)
    served, _ = gateway.accept()
    served.settimeout(10)
    return client, served


def filled(sender: socket.socket) -> int:
    """Bytes that can be sent to somebody who does not read; 64 MB is without end."""
    sender.settimeout(0.5)
    sent = 0
    with suppress(TimeoutError):
        while sent < 64 << 20:
            sent += sender.send(bytes(1 << 20))
    return sent


def test_a_client_that_does_not_read_holds_up_no_other_and_fills_no_memory(
    way: Relayed, gateway: socket.socket
) -> None:
    lazy, its = connect(way, gateway)
    with closing(lazy), closing(its):
        assert filled(its) < 16 << 20  # windows and the kernel's buffers, and no more
        other, served = connect(way, gateway)
        with closing(other), closing(served):
            began = time.monotonic()
            for _ in range(20):
                other.sendall(b"ask")
                assert served.recv(10) == b"ask"
                served.sendall(b"answer")
                assert other.recv(10) == b"answer"
            assert time.monotonic() - began < 2


def test_a_gateway_that_does_not_read_holds_up_its_client_alone(way: Relayed, gateway: socket.socket) -> None:
    client, its = connect(way, gateway)
    with closing(client), closing(its):
        assert filled(client) < 16 << 20
        other, served = connect(way, gateway)
        with closing(other), closing(served):
            other.sendall(b"ask")
            assert served.recv(10) == b"ask"


def test_there_are_as_many_connections_as_may_be_and_no_more(way: Relayed, gateway: socket.socket) -> None:
    with ExitStack() as ends:
        for _ in range(CONNECTIONS):
            for end in connect(way, gateway):
                ends.callback(end.close)
        with socket.create_connection(("127.0.0.1", way.port), timeout=10) as one_more, suppress(ConnectionResetError):
            assert one_more.recv(1) == b""
    # All are gone, and there is room again.
    for _ in range(50):
        client, served = connect(way, gateway)
        with closing(client), closing(served):
            client.sendall(b"a")
            assert served.recv(1) == b"a"
    assert way.relay.ended is None


def test_a_forwarder_that_is_killed_is_the_sandboxs_own_doing(way: Relayed, gateway: socket.socket) -> None:
    client, served = connect(way, gateway)
    with closing(client), closing(served):
        way.process.send_signal(signal.SIGKILL)
        with suppress(ConnectionResetError):
            assert served.recv(1) == b""  # at once, so that nothing is generated for nobody
    assert way.over.wait(5)
    assert (way.relay.ended, way.faults) == ("the forwarder in the sandbox was ended", [])


def test_a_stream_that_docker_lost_is_not(way: Relayed, gateway: socket.socket) -> None:
    way.relay._forwarder.dockers.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]
    assert way.over.wait(5)
    assert way.relay.ended is None
    assert way.faults == ["the relay to the sandbox broke: its stream ended"]


class Forger:
    """Whoever controls the sandbox, at Docker's end of the stream."""

    def __init__(self, path: Path) -> None:
        self.socket, self._dockers = socket.socket(), None
        self.socket, self.dockers = socket.socketpair()
        self.socket.setblocking(False)
        self.dockers.settimeout(10)
        self.over, self.faults = threading.Event(), list[str]()
        self.relay = Relay(self, path, lambda _: None, self.faults.append, self.over.set)  # type: ignore[arg-type]
        assert self.dockers.recv(1) == b"\n"

    def own_end(self) -> bool:
        return True

    def close(self) -> None:
        self.socket.close()

    def say(self, stream: bytes) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            for begin in range(0, len(stream), PIECE_BYTES):
                piece = stream[begin : begin + PIECE_BYTES]
                self.dockers.sendall(struct.pack(">BxxxL", 1, len(piece)) + piece)


@pytest.fixture
def forger(gateway: socket.socket, tmp_path: Path) -> Iterator[Forger]:
    made = Forger(tmp_path / "gateway.sock")
    yield made
    made.relay.close()
    made.dockers.close()


def frame(number: int, kind: int, content: bytes = b"") -> bytes:
    return HEADER.pack(number, kind, len(content)) + content


FLOOD = b"".join(frame(1, DATA, bytes(PIECE_BYTES)) for _ in range(WINDOW_BYTES // PIECE_BYTES + 1))


@pytest.mark.parametrize(
    "stream",
    [
        frame(1, DATA, b"x"),  # of a connection that was never opened
        frame(2, OPEN),
        frame(1, OPEN) + frame(1, OPEN),
        frame(1, OPEN, b"x"),
        frame(0, CUT),
        frame(1, OPEN) + frame(1, 5),
        frame(1, OPEN) + frame(1, 255, b"x"),
        frame(1, OPEN) + frame(1, DATA),
        frame(1, OPEN) + frame(1, END, b"x"),
        frame(1, OPEN) + frame(1, END) + frame(1, DATA, b"x"),
        frame(1, OPEN) + frame(1, END) + frame(1, END),
        frame(1, OPEN) + frame(1, CREDIT, b"\0\0\0\1"),  # for what was not sent
        frame(1, OPEN) + frame(1, CREDIT, b"\1"),
        frame(1, OPEN) + HEADER.pack(1, DATA, PIECE_BYTES + 1),
        frame(1, OPEN) + HEADER.pack(1, DATA, 0xFFFFFFFF),
        b"".join(frame(number, OPEN) for number in range(1, CONNECTIONS + 2)),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_what_breaks_the_rules_ends_the_relay_and_nothing_else(
    forger: Forger, gateway: socket.socket, stream: bytes
) -> None:
    forger.say(stream)
    assert forger.over.wait(10)
    assert "the sandbox broke the rules of the relay" in str(forger.relay.ended)
    assert forger.faults == []


def test_data_beyond_the_window_ends_it(forger: Forger, gateway: socket.socket) -> None:
    # The gateway's end is not read, so nothing is passed on but what the kernel takes.
    forger.say(frame(1, OPEN) + FLOOD * 16)
    assert forger.over.wait(10)
    assert "data that may not be sent" in str(forger.relay.ended)


def test_one_that_sends_and_never_reads_ends_it(
    forger: Forger, gateway: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As large as they are it would take half a million connections.
    monkeypatch.setattr("harness.sandbox.multiplex.UNREAD_BYTES", 4096)
    forger.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)

    def hang_up() -> None:
        with suppress(OSError):
            while True:
                gateway.accept()[0].close()

    threading.Thread(target=hang_up, daemon=True).start()
    number = 0
    while not forger.over.wait(0.02) and number < 20_000:
        for _ in range(100):
            number += 1
            forger.say(frame(number, OPEN) + frame(number, END))
    assert forger.over.wait(10)
    assert "what is sent to it is not read" in str(forger.relay.ended)


def test_any_bytes_at_all_are_survived(gateway: socket.socket, tmp_path: Path) -> None:
    chance = random.Random(8)
    files = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(200):
        forger = Forger(tmp_path / "gateway.sock")
        stream = b"".join(
            frame(
                chance.choice((1, 1, 2, chance.getrandbits(32))),
                chance.choice((OPEN, DATA, END, CUT, CREDIT, chance.getrandbits(8))),
                chance.randbytes(chance.choice((0, 0, 1, 4, 100))),
            )
            for _ in range(chance.randrange(20))
        )
        forger.say(stream + chance.randbytes(chance.randrange(40)))
        forger.dockers.close()
        assert forger.over.wait(10)
        assert forger.relay.ended
        assert forger.faults == []
        forger.relay.close()
    assert len(list(Path("/proc/self/fd").iterdir())) <= files + 3
