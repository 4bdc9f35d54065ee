"""What an agent can make the harness hold and write has an end."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time

import pytest
from test_gateway_door import HELLO, ask

from harness.gateway import connections, ledger, limits
from harness.gateway.body import MAX_BODY_BYTES, MAX_UNDER_WAY_BYTES

SLOW = '[[answers]]\ntext = "first"\nfirst_token_delay_s = 1.5\n[[answers]]\ntext = "second"\n'


def held(run, content: bytes) -> socket.socket:
    """A request that waits for its answer."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(run.socket))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {run.door.key}\r\n"
    client.sendall(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
    return client


def until(came) -> None:
    deadline = time.monotonic() + 10
    while not came():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_bodies_of_all_requests_under_way_have_one_bound(open_run):
    run = open_run(SLOW)
    text = "x" * (MAX_BODY_BYTES - 1000)
    large = json.dumps({"messages": [{"role": "user", "content": text}]}).encode()
    clients = [held(run, large) for _ in range(MAX_UNDER_WAY_BYTES // MAX_BODY_BYTES)]
    under_way = run.door._under_way
    until(lambda: under_way.size_bytes > 1.9 * MAX_BODY_BYTES)
    refused = run.client.post("/v1/chat/completions", content=large)
    assert (refused.status_code, "under way" in refused.text) == (413, True)
    assert under_way.size_bytes <= MAX_UNDER_WAY_BYTES
    for client in clients:
        client.close()
    until(lambda: under_way.size_bytes == 0)
    assert run.chat().status_code == 200


def test_connections_beyond_the_most_are_closed_unanswered(open_run, monkeypatch):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 3)
    run = open_run(HELLO)
    idle = []
    for _ in range(3):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(run.socket))
        idle.append(client)
    time.sleep(0.1)
    with socket.socket(socket.AF_UNIX) as fourth:
        fourth.settimeout(5)
        fourth.connect(str(run.socket))
        with contextlib.suppress(ConnectionResetError):  # or an orderly end
            assert fourth.recv(1) == b""
    for client in idle:
        client.close()
    time.sleep(0.1)
    assert run.chat().status_code == 200
    assert len(run.close()) == 1


def test_what_is_not_http_is_on_record_and_counts_as_refused(open_run):
    run = open_run(HELLO)
    for _ in range(limits.REFUSALS + 1):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(run.socket))
            client.sendall(b"this is no HTTP\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 400")
    assert run.door.stop_reason == "crashed"
    records = run.close()
    assert len(records) == limits.REFUSALS + 1
    assert {(record.status, record.http_status) for record in records} == {("refused", 400)}


def test_garbage_behind_a_request_is_not_the_machines_fault(open_run):
    run = open_run(HELLO)
    with held(run, b'{"messages": [{"role": "user", "content": "x"}]}') as client:
        client.sendall(b"\0garbage\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    assert run.chat().status_code == 200
    assert run.door.stop_reason is None


def test_half_a_request_gets_no_500_when_its_door_closes(open_run):
    run = open_run(HELLO)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(run.socket))
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        time.sleep(0.1)
        run.close()
        client.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(100) == b""


def test_parameters_that_are_no_parameters_are_not_kept(open_run):
    run = open_run(HELLO)
    assert run.chat(junk="x" * 200_000, user="me").status_code == 200
    assert run.chat(user="me").status_code == 200
    first, second = run.close()
    assert set(first.asked) == {"left_out_bytes", "tools"}
    assert second.asked["user"] == "me"


def test_a_journal_has_an_end_which_is_the_agents_doing(open_run, monkeypatch):
    monkeypatch.setattr(ledger, "JOURNAL_BYTES", 20_000)
    run = open_run(HELLO)
    for number in range(3):
        run.client.post("/api/generate", json={"prompt": f"{number}" * 9_000, "stream": False})
    until(run.door.stopped.is_set)
    assert (run.door.stop_reason, "said more than" in (run.door.stop_detail or "")) == ("crashed", True)


def test_calls_that_are_given_up_while_they_wait_have_an_end(open_run, monkeypatch):
    monkeypatch.setattr(limits, "GIVEN_UP", 2)
    run = open_run(SLOW)
    first = threading.Thread(target=run.chat)
    first.start()
    until(lambda: run.engine.requests)
    for _ in range(3):
        held(run, b'{"messages": [{"role": "user", "content": "x"}]}').close()
    first.join()
    until(run.door.stopped.is_set)
    assert (run.door.stop_reason, "given up" in (run.door.stop_detail or "")) == ("crashed", True)


def test_requests_that_ask_nothing_of_the_model_have_an_end(open_run, monkeypatch):
    monkeypatch.setattr(limits, "IDLE_REQUESTS", 5)
    run = open_run(HELLO)
    assert [run.client.get("/v1/models").status_code for _ in range(7)] == [200] * 6 + [403]
    assert run.door.stop_reason == "crashed"
    assert run.close() == []


@pytest.mark.parametrize(
    "content", [b'{"a":' * 70 + b"1" + b"}" * 70, b'{"a": [%s0]}' % (b"0," * 300_000), b'{"a": 1e999}']
)
def test_what_can_be_read_and_not_passed_on_is_refused(open_run, content):
    run = open_run(HELLO)
    assert run.client.post("/v1/chat/completions", content=content).status_code in (400, 413)
    assert run.upstream() == []


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": 5},
        {"role": "user", "content": {"a": 1}},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": 5}}]},
        {"role": "tool", "content": "", "tool_call_id": {}},
        {"role": "assistant", "content": "", "reasoning_content": []},
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat"])
def test_a_message_of_other_types_is_refused_and_no_fault_of_the_engine(open_run, path, message):
    run = open_run(HELLO, guard="observe")
    assert run.client.post(path, json={"messages": [message]}).status_code == 400
    [record] = run.close()
    assert record.status == "refused"


def test_an_answer_without_end_is_the_engines_failure(open_run, monkeypatch):
    monkeypatch.setattr(limits, "ANSWER_BYTES", 5_000)
    run = open_run('when_exhausted = "repeat"\n[[answers]]\ntext = "again "\nfault = "endless"\n')
    assert run.chat().status_code == 403
    assert run.door.stop_reason == "model_error"
    assert "an answer of more than" in (run.door.stop_detail or "")


def test_keys_are_good_at_their_own_door_alone_in_every_dialect(open_run):
    one, other = open_run(HELLO), open_run(HELLO)
    for path in ("/v1/chat/completions", "/api/chat", "/api/generate", "/api/show", "/v1/models"):
        assert ask(other, path, authorization=f"Bearer {one.door.key}").status_code == 401
