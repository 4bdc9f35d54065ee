"""The forwarder as a process of its own, between a real client and a real Unix socket."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from itertools import pairwise
from pathlib import Path

import pytest

from harness.sandbox.watch import NOTHING
from tests.relayed import relayed, start_forwarder

REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture(params=["socket", "relay"])
def door(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[int, socket.socket]]:
    """The port that the forwarder listens on, and the listening socket at the gateway's end."""
    path = tmp_path / "gateway.sock"
    (tmp_path / "work").mkdir()
    with socket.socket(socket.AF_UNIX) as gateway, ExitStack() as clean_up:
        gateway.bind(str(path))
        gateway.listen()
        gateway.settimeout(10)
        if request.param == "relay":
            yield clean_up.enter_context(relayed(path, tmp_path / "work")).port, gateway
            return
        process = start_forwarder("by_socket", str(path), str(tmp_path / "work"))
        try:
            probe, _ = gateway.accept()
            probe.close()
            assert process.stderr is not None
            word, port = process.stderr.readline().split()
            assert word == b"ready"
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


def exchange(client: socket.socket, served: socket.socket, *pieces: bytes) -> bytes:
    """Send a request in pieces, answer it, and return what the gateway got of it."""
    got = b""
    for piece in pieces:
        client.sendall(piece)
        time.sleep(0.05)
    while REQUEST[-9:] not in got:
        got += served.recv(65536)
    served.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    assert client.recv(100)
    return got


def fingerprint(got: bytes) -> str:
    line, header, *rest = got.split(b"\r\n")
    assert b"\r\n".join([line, *rest]) == REQUEST  # nothing else of it was touched
    name, value = header.decode().split(": ")
    assert name == "X-Harness-Workdir"
    return value


def test_each_request_carries_the_work_directorys_fingerprint(door: tuple[int, socket.socket], tmp_path: Path) -> None:
    client, served = connect(door)
    with closing(client), closing(served):
        seen = [fingerprint(exchange(client, served, REQUEST))]
        (tmp_path / "work" / "file").write_text("1")
        seen += [fingerprint(exchange(client, served, REQUEST)) for _ in range(2)]
        (tmp_path / "work" / "file").unlink()
        seen.append(fingerprint(exchange(client, served, REQUEST)))
    assert seen[0] == seen[3] == NOTHING
    assert seen[1] == seen[2] != NOTHING


@pytest.mark.parametrize("cuts", [(1,), (5, 20), (33, 34), (40, 60)])
def test_a_request_that_comes_in_pieces_carries_it_too(door: tuple[int, socket.socket], cuts: tuple[int, ...]) -> None:
    edges = [0, *cuts, len(REQUEST)]
    client, served = connect(door)
    with closing(client), closing(served):
        pieces = [REQUEST[begin:end] for begin, end in pairwise(edges)]
        assert [fingerprint(exchange(client, served, *pieces)) for _ in range(2)] == [NOTHING, NOTHING]


def test_a_body_that_waits_for_leave_stays_as_it_is(door: tuple[int, socket.socket]) -> None:
    client, served = connect(door)
    head, body = REQUEST[:-2], REQUEST[-2:]
    with closing(client), closing(served):
        client.sendall(head)
        assert b"X-Harness-Workdir" in served.recv(65536)
        served.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert client.recv(100)
        client.sendall(body)
        client.shutdown(socket.SHUT_WR)
        assert read_all(served) == body
