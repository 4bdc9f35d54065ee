from __future__ import annotations

import stat
import time
from pathlib import Path

import httpx
import pytest

from harness.engines.scripted import Scripted
from harness.errors import MachineError
from harness.gateway.policy import Policy
from harness.gateway.server import Gateway


@pytest.fixture(params=["socket", "relay"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


HELLO = 'when_exhausted = "repeat"\n[[answers]]\ntext = "hello"\n'
BODY = {"messages": [{"role": "user", "content": "x"}]}


def ask(run, path: str, **headers: str | bytes) -> httpx.Response:
    with run.without_key() as client:
        return client.post(path, json=BODY, headers=headers)


def test_keys(open_run):
    run = open_run(HELLO)
    key = run.door.key
    openai, ollama = "/v1/chat/completions", "/api/chat"
    assert ask(run, openai, authorization=f"Bearer {key}").status_code == 200
    assert ask(run, openai, **{"x-api-key": key}).status_code == 200
    assert ask(run, openai).status_code == 401
    assert ask(run, openai, authorization="Bearer other").status_code == 401
    assert ask(run, openai, authorization=b"Bearer \xff\xfe").status_code == 401
    assert ask(run, ollama, authorization=f"Bearer {key}").status_code == 200
    assert ask(run, ollama).status_code == 200
    wrong = ask(run, ollama, authorization="Bearer other")
    assert (wrong.status_code, wrong.json()) == (401, {"error": "the key is not this run's"})
    assert [record.http_status for record in run.close()] == [200, 200, 401, 401, 401, 200, 200, 401]


def test_each_run_has_a_key_of_its_own(open_run):
    one, other = open_run(HELLO), open_run(HELLO)
    assert one.door.key != other.door.key
    assert ask(other, "/v1/chat/completions", authorization=f"Bearer {one.door.key}").status_code == 401
    one.chat()
    assert (len(one.close()), len(other.close())) == (1, 1)


def test_the_socket_is_open_to_everybody_and_goes_with_the_door(open_run):
    run = open_run(HELLO)
    mode = run.socket.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o666
    assert run.close() == run.close() == []
    assert not run.socket.exists()
    with pytest.raises(httpx.TransportError):
        httpx.Client(transport=httpx.HTTPTransport(uds=str(run.socket))).get("http://gateway/v1/models")


def test_a_kept_connection_is_of_no_use_after_close(open_run):
    run = open_run(HELLO)
    assert run.chat().status_code == 200
    run.close()
    time.sleep(0.3)  # the server's own end
    with pytest.raises(httpx.TransportError):
        run.chat()


def test_a_socket_left_by_a_killed_harness_is_replaced(short_dir: Path):
    path = short_dir / "door"
    script = short_dir / "script.toml"
    script.write_text(HELLO)
    policy = Policy(str(script), 4096, 64, 0.0, None, 7, False, "text", None, None, 30.0)
    for _ in range(2):
        engine = Scripted()
        gateway = Gateway(engine)
        door = gateway.open(path, policy, engine.describe(str(script)), short_dir / "journal")
        door.close()
        path.touch()
        gateway.close()
        gateway.close()
        engine.close()


def test_a_path_that_is_too_long_is_said(open_run, short_dir: Path):
    gateway = Gateway(Scripted())
    policy = Policy("m", 4096, 64, 0.0, None, 7, False, "text", None, None, 30.0)
    model = open_run(HELLO).engine.describe(str(short_dir / "script0.toml"))
    try:
        with pytest.raises(MachineError, match="at most 107 work"):
            gateway.open(short_dir / ("x" * 120), policy, model, short_dir / "j")
        with pytest.raises(MachineError, match="can't listen"):
            gateway.open(short_dir / "no" / "door", policy, model, short_dir / "j")
        (short_dir / "file").touch()
        with pytest.raises(MachineError, match="journal"):
            gateway.open(short_dir / "door9", policy, model, short_dir / "file")
        assert not (short_dir / "door9").exists()
    finally:
        gateway.close()


def test_nothing_is_left_open(open_run, short_dir: Path):
    open_run(HELLO).close()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        run = open_run(HELLO)
        run.chat()
        run.client.close()
        run.close()
        run.relay.close()
    time.sleep(0.3)  # the servers' own end
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 3


def test_large_bodies_and_malformed_http(open_run):
    run = open_run(HELLO)
    assert run.client.post("/v1/chat/completions", content=b" " * (17 * 2**20)).status_code == 413
    assert run.client.put("/v1/chat/completions", json=BODY).status_code == 404
    assert run.client.get("/").status_code == 200
    assert run.chat().status_code == 200


def test_a_path_that_is_not_served_is_refused_and_recorded_without_what_was_said(open_run):
    run = open_run(HELLO)
    response = run.client.post("/v1/responses", json={"model": "m", "input": "a long text"})
    assert response.status_code == 404
    assert "/v1/chat/completions" in response.json()["error"]["message"]
    [record] = run.close()
    assert record.asked == {"model": "m", "tools": 0, "path": "/v1/responses"}


def test_half_a_request_does_not_hold_up_close(open_run):
    run = open_run(HELLO)
    with run.connect() as client:
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        assert run.chat().status_code == 200
        began = time.monotonic()
        assert len(run.close()) == 1
        assert time.monotonic() - began < 0.9


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://127.0.0.1:8080/what"}},
        {"type": "file", "file": {"file_id": "https://example.com/what"}},
        {"type": "text", "text": {"url": "x"}},
        "text",
    ],
)
def test_a_message_is_text_so_that_no_engine_fetches_what_an_agent_names(open_run, part):
    run = open_run(HELLO)
    response = run.chat(messages=[{"role": "user", "content": [{"type": "text", "text": "look"}, part]}])
    assert (response.status_code, run.upstream()) == (400, [])
    assert "messages[0].content[1]" in response.json()["error"]["message"]
    assert run.chat(messages=[{"role": "user", "content": [{"type": "text", "text": "look"}]}]).status_code == 200
