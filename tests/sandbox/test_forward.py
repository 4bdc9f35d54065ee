"""The forwarder as a process of its own, between a real client and a real Unix socket."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from harness.sandbox import forward

START = (
    "import asyncio, importlib.util, sys;"
    "spec = importlib.util.spec_from_file_location('forward', sys.argv[1]);"
    "forward = importlib.util.module_from_spec(spec); spec.loader.exec_module(forward);"
    "asyncio.run(forward.serve(0, sys.argv[2]))"
)


@pytest.fixture
def door(tmp_path: Path) -> Iterator[tuple[int, socket.socket]]:
    """The port that the forwarder listens on, and the listening socket at the gateway's end."""
    path = tmp_path / "gateway.sock"
    with socket.socket(socket.AF_UNIX) as gateway:
        gateway.bind(str(path))
        gateway.listen()
        gateway.settimeout(10)
        # -I -S: with nothing but the standard library, as in a sandbox.
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", START, forward.__file__, str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            word, port = process.stdout.readline().split()
            assert word == "ready"
            yield int(port), gateway
        finally:
            process.kill()
            process.communicate()


def connect(door: tuple[int, socket.socket]) -> tuple[socket.socket, socket.socket]:
    port, gateway = door
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    served, _ = gateway.accept()
    served.settimeout(10)
    return client, served


def read_all(end: socket.socket) -> bytes:
    parts = []
    while part := end.recv(65536):
        parts.append(part)
    return b"".join(parts)


def in_background(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_what_is_said_arrives_at_once_in_both_directions(door: tuple[int, socket.socket]) -> None:
    client, served = connect(door)
    with closing(client), closing(served):
        for word in (b"a", b"bb"):
            client.sendall(word)
            assert served.recv(100) == word
            served.sendall(word.upper())
            assert client.recv(100) == word.upper()


def test_an_end_that_stops_sending_still_hears(door: tuple[int, socket.socket]) -> None:
    client, served = connect(door)
    with closing(client), closing(served):
        client.sendall(b"request")
        client.shutdown(socket.SHUT_WR)
        assert read_all(served) == b"request"
        served.sendall(b"answer")
        served.close()
        assert read_all(client) == b"answer"


def test_more_than_any_buffer_holds_arrives_whole(door: tuple[int, socket.socket]) -> None:
    content = bytes(range(256)) * 40_000
    client, served = connect(door)
    with closing(client), closing(served):
        for source, target in ((client, served), (served, client)):

            def send(source: socket.socket = source) -> None:
                source.sendall(content)
                source.shutdown(socket.SHUT_WR)

            sender = in_background(send)
            assert read_all(target) == content
            sender.join(10)


def test_a_client_that_leaves_is_seen_at_once(door: tuple[int, socket.socket]) -> None:
    client, served = connect(door)
    with closing(served):
        client.sendall(b"request")
        assert served.recv(100) == b"request"
        client.close()
        assert served.recv(100) == b""


def test_a_client_that_is_killed_in_the_middle_of_an_answer_cuts_the_gateway_off(
    door: tuple[int, socket.socket],
) -> None:
    client, served = connect(door)
    with closing(served):
        served.sendall(b"x" * 1000)
        assert client.recv(1)
        client.close()  # with bytes unread: the kernel answers with a reset
        with pytest.raises(OSError):
            served.sendall(bytes(100_000_000))


def test_one_broken_connection_does_not_hurt_the_next(door: tuple[int, socket.socket]) -> None:
    client, served = connect(door)
    client.close()
    served.close()
    client, served = connect(door)
    with closing(client), closing(served):
        client.sendall(b"still there?")
        assert served.recv(100) == b"still there?"


def test_without_a_gateway_the_client_is_sent_away(door: tuple[int, socket.socket]) -> None:
    port, gateway = door
    gateway.close()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client, suppress(ConnectionResetError):
        assert client.recv(100) == b""
