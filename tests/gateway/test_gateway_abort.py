"""A client that is gone, or a run that ended, aborts its generation upstream within a second."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from harness.engines.base import ChatRequest, Delta, Finish, ModelInfo
from harness.engines.scripted import Scripted
from harness.gateway.policy import Policy
from harness.gateway.server import Gateway


@pytest.fixture(params=["socket", "relay"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


ENDLESS = '[[answers]]\ntext = "again "\nfault = "endless"\n[[answers]]\ntext = "after"\n'
HANG = '[[answers]]\nfault = "hang"\n[[answers]]\ntext = "after"\n'


def wait_for_upstream(run, count: int = 1) -> None:
    until = time.monotonic() + 5
    while len(run.upstream()) < count:
        assert time.monotonic() < until, "the request did not reach the engine"
        time.sleep(0.01)


def leave_in_the_middle(run, stream: bool) -> None:
    """Send a request, wait until the engine works on it, close the connection."""
    body = json.dumps({"messages": [{"role": "user", "content": "x"}], "stream": stream}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {run.door.key}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with run.connect() as client:
        client.sendall(head.encode() + body)
        wait_for_upstream(run)
        if stream:
            assert client.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(("script", "stream"), [(ENDLESS, True), (ENDLESS, False), (HANG, False), (HANG, None)])
def test_a_client_that_leaves(open_run, script, stream):
    run = open_run(script)
    leave_in_the_middle(run, bool(stream))
    run.engine.settle(1.0)
    [entry] = run.engine.log()["requests"]
    assert entry["ended"] == "client_gone"
    assert run.chat().json()["choices"][0]["message"]["content"] == "after"
    aborted, answered = run.close()
    assert (aborted.status, aborted.http_status, aborted.sent) == ("aborted", None, True)
    assert "client left" in aborted.error
    assert answered.status == "ok"


@pytest.mark.parametrize("how", ["stop", "close"])
@pytest.mark.parametrize("script", [ENDLESS, HANG])
@pytest.mark.parametrize("stream", [False, True])
def test_a_run_that_ends(open_run, how, script, stream):
    run = open_run(script)
    answers: list[httpx.Response] = []
    client = threading.Thread(target=lambda: answers.append(run.chat(stream=stream)))
    client.start()
    wait_for_upstream(run)
    time.sleep(0.05)
    began = time.monotonic()
    if how == "stop":
        run.door.stop("timeout", "30 s were over")
    else:
        run.close()
    run.engine.settle(1.0)
    client.join(5)
    assert time.monotonic() - began < 1.5
    assert "the run ended" in answers[0].text
    if script == HANG:
        assert answers[0].status_code == 403
    [record] = run.close()
    assert record.status == "aborted"


def test_a_client_that_does_not_read_holds_up_neither_close_nor_the_next_call(open_run):
    run = open_run(f'[[answers]]\nchunk_words = 0\ntext = "{"x" * 4_000_000}"\n[[answers]]\ntext = "after"\n')
    body = json.dumps({"messages": [{"role": "user", "content": "x"}]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {run.door.key}\r\n"
    with run.connect() as client:
        client.sendall(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
        wait_for_upstream(run)
        assert run.chat().json()["choices"][0]["message"]["content"] == "after"
        began = time.monotonic()
        records = run.close()
        assert time.monotonic() - began < 3
    assert [record.status for record in records] == ["ok", "ok"]


def test_calls_of_one_run_are_queued(open_run):
    toml = 'when_exhausted = "repeat"\n[[answers]]\ntext = "x"\nfirst_token_delay_s = 0.2\n'
    run = open_run(toml)
    threads = [threading.Thread(target=run.chat) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = run.close()
    for earlier, later in itertools.pairwise(records):
        assert later.offset_s >= earlier.offset_s + earlier.duration_s
    assert records[2].queued_s > 0.3
    assert records[2].first_token_s < 0.4  # without the wait


def test_a_queued_client_that_leaves_costs_nothing(open_run):
    run = open_run('[[answers]]\ntext = "first"\nfirst_token_delay_s = 0.5\n[[answers]]\ntext = "second"\n')
    first = threading.Thread(target=run.chat)
    first.start()
    wait_for_upstream(run)
    with pytest.raises(httpx.ReadTimeout):
        run.client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}]}, timeout=0.1)
    first.join()
    assert run.chat().json()["choices"][0]["message"]["content"] == "second"
    records = run.close()
    assert [(record.status, record.sent) for record in records] == [
        ("ok", True),
        ("aborted", False),
        ("ok", True),
    ]


class Clinging(Scripted):
    """An engine that does not let go of a call when it is told to, or late."""

    seconds = 0

    async def chat(self, request: ChatRequest) -> AsyncIterator[Delta | Finish]:
        yield Delta(text="a word")
        for _ in range(self.seconds):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1)


@pytest.mark.parametrize("seconds", [1, 3, 8])
def test_an_engine_that_does_not_let_go_holds_up_nobody_and_its_call_is_recorded(short_dir: Path, seconds):
    engine = Clinging()
    engine.seconds = seconds
    gateway = Gateway(engine)
    policy = Policy("m", 4096, 64, 0.0, None, 7, False, "text", None, None, 30.0)
    door = gateway.open(short_dir / "door", policy, ModelInfo("m", "scripted"), short_dir / "journal")
    transport = httpx.HTTPTransport(uds=str(short_dir / "door"))
    with httpx.Client(transport=transport, base_url="http://gateway") as client:
        body = {"messages": [{"role": "user", "content": "x"}]}
        with client.stream("POST", "/api/chat", json=body) as response:
            assert "a word" in next(response.iter_text())
            began = time.monotonic()
            records = door.close()
            assert time.monotonic() - began < 3
    assert [record.status for record in records] == ["aborted"]
    assert len((short_dir / "journal" / "calls.jsonl").read_text().splitlines()) == 1
    gateway.close()
    engine.close()
