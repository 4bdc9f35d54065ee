"""The client libraries that frameworks are built on, unmodified, over loopback as in a sandbox: a few lines
forward a port to the door's socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

HELLO = """
capabilities = ["tools"]
when_exhausted = "repeat"
[[answers]]
text = "one two three"
chunk_words = 1
tool_calls = [{ name = "bash", arguments = { command = "ls" } }]
"""

MESSAGES = [{"role": "user", "content": "fix it please"}]
TOOLS = [{"type": "function", "function": {"name": "bash", "parameters": {"type": "object", "properties": {}}}}]


def pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65_536):
            sink.sendall(data)
    except OSError:
        pass
    finally:
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


@pytest.fixture
def forward() -> Iterator[Callable[[Path], str]]:
    listeners: list[socket.socket] = []

    def start(path: Path) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def accept() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                door = socket.socket(socket.AF_UNIX)
                try:
                    door.connect(str(path))
                except OSError:  # the run is over
                    client.close()
                    continue
                for ends in ((client, door), (door, client)):
                    threading.Thread(target=pump, args=ends, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_openai(open_run, forward):
    openai = pytest.importorskip("openai", reason="the openai package is not installed")
    run = open_run(HELLO, protocol="tools")
    client = openai.OpenAI(base_url=f"{forward(run.socket)}/v1", api_key=run.door.key)
    answer = client.chat.completions.create(model="any", messages=MESSAGES, tools=TOOLS, max_tokens=5)
    assert answer.choices[0].message.content == "one two three"
    assert answer.choices[0].message.tool_calls[0].function.name == "bash"
    assert answer.usage.prompt_tokens == 3
    chunks = list(
        client.chat.completions.create(
            model="any", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "one two three"
    assert chunks[-1].usage.completion_tokens == 3
    assert client.models.list().data
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="other").chat.completions.create(model="any", messages=MESSAGES)
    client.close()
    assert len(run.close()) == 3


def test_openai_does_not_retry_what_cannot_heal(open_run, forward):
    openai = pytest.importorskip("openai", reason="the openai package is not installed")
    run = open_run(HELLO, max_calls=0)
    client = openai.OpenAI(base_url=f"{forward(run.socket)}/v1", api_key=run.door.key)
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="any", messages=MESSAGES, n=2)
    with pytest.raises(openai.PermissionDeniedError, match="limit of 0 calls"):
        client.chat.completions.create(model="any", messages=MESSAGES)
    client.close()
    assert [record.status for record in run.close()] == ["refused", "limit"]


def test_a_client_without_retries_meets_a_healed_engine(open_run, forward):
    openai = pytest.importorskip("openai", reason="the openai package is not installed")
    run = open_run('[[answers]]\nfault = "refuse"\n[[answers]]\ntext = "again"\n')
    client = openai.OpenAI(base_url=f"{forward(run.socket)}/v1", api_key=run.door.key, max_retries=0)
    answer = client.chat.completions.create(model="any", messages=MESSAGES)
    assert answer.choices[0].message.content == "again"
    client.close()
    records = run.close()
    assert [record.status for record in records] == ["engine_error", "ok"]
    assert records[0].seed == records[1].seed


@pytest.fixture
def litellm(monkeypatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    module = pytest.importorskip("litellm", reason="the litellm extra is not installed")
    monkeypatch.setattr(module, "suppress_debug_info", True)
    return module


@pytest.mark.parametrize("provider", ["openai", "ollama_chat"])
def test_litellm(open_run, forward, litellm, provider):
    run = open_run(HELLO)
    base = forward(run.socket)
    where = {"api_base": f"{base}/v1" if provider == "openai" else base, "api_key": run.door.key}
    answer = litellm.completion(model=f"{provider}/any", messages=MESSAGES, temperature=1.0, **where)
    assert answer.choices[0].message.content == "one two three"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 3)
    records = run.close()
    assert [record.status for record in records] == ["ok"]


@pytest.mark.parametrize("provider", ["openai", "ollama_chat"])
def test_litellm_knows_a_context_overflow(open_run, forward, litellm, provider):
    run = open_run(HELLO, num_ctx=2)
    base = forward(run.socket)
    where = {"api_base": f"{base}/v1" if provider == "openai" else base, "api_key": run.door.key}
    # Of Ollama's errors litellm makes nothing finer than a bad request.
    kind = litellm.ContextWindowExceededError if provider == "openai" else litellm.BadRequestError
    with pytest.raises(kind) as caught:
        litellm.completion(model=f"{provider}/any", messages=MESSAGES, num_retries=0, **where)
    assert "maximum context length is 2 tokens" in str(caught.value)


def test_ollama(open_run, forward):
    ollama = pytest.importorskip("ollama", reason="the ollama package is not installed")
    run = open_run(HELLO, protocol="tools")
    client = ollama.Client(host=forward(run.socket))  # without a key, as most of its users are
    answer = client.chat(model="any", messages=MESSAGES, tools=TOOLS)
    assert answer.message.content == "one two three"
    assert answer.message.tool_calls[0].function.arguments == {"command": "ls"}
    assert (answer.prompt_eval_count, answer.eval_count) == (3, 3)
    parts = list(client.chat(model="any", messages=MESSAGES, stream=True))
    assert "".join(part.message.content for part in parts) == "one two three"
    assert client.generate(model="any", prompt="fix it").response == "one two three"
    assert client.list().models[0].model.endswith("script0.toml")
    assert client.show("any").capabilities == ["completion", "tools"]
    keyed = ollama.Client(host=forward(run.socket), headers={"authorization": "Bearer other"})
    with pytest.raises(ollama.ResponseError) as caught:
        keyed.chat(model="any", messages=MESSAGES)
    assert caught.value.status_code == 401
    assert len(run.close()) == 4


def test_a_client_that_leaves_through_the_forwarder(open_run, forward):
    run = open_run('[[answers]]\nfault = "hang"\n')
    address = forward(run.socket)
    headers = {"authorization": f"Bearer {run.door.key}"}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{address}/v1/chat/completions", json={"messages": MESSAGES}, headers=headers, timeout=0.5)
    run.engine.settle(1.0)
    assert [record.status for record in run.close()] == ["aborted"]
