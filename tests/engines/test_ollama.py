from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest
from asking import answer, ask, leave_early, question

from harness.engines.base import EngineError, EngineStuck
from harness.engines.ollama import Ollama, _runners, server_url
from harness.errors import MachineError, UserError

LONG = "The quick brown fox jumps over the lazy dog. " * 30


@pytest.fixture(scope="module")
def ollama(smollm2: str) -> Iterator[Any]:
    engine = Ollama()
    engine.prepare(smollm2, 2048)
    yield engine
    engine.close()


def loaded() -> dict[str, int]:
    url = server_url(os.environ.get("OLLAMA_HOST"))
    models = httpx.get(f"{url}/api/ps", trust_env=False).json()["models"]
    return {model["name"]: model["context_length"] for model in models}


@pytest.mark.ollama
def test_describes_the_model(ollama: Any, smollm2: str) -> None:
    info = ollama.describe(smollm2)
    assert (info.context_tokens, info.quantization, info.capabilities) == (8192, "Q4_1", frozenset())
    assert info.digest.startswith("sha256:")
    assert info.size_bytes > 90_000_000
    assert info in ollama.list_models()
    assert ollama.describe(smollm2.upper()).digest == info.digest
    assert ollama.version()


@pytest.mark.ollama
def test_every_run_starts_with_the_whole_prompt_to_read(ollama: Any, smollm2: str) -> None:
    _, _, first = ask(ollama, LONG)
    _, _, warm = ask(ollama, LONG)
    assert warm.input_tokens == first.input_tokens  # the whole prompt, cached or not
    assert ollama.prepare(smollm2, 2048).load_s == 0.0
    _, _, cleared = ask(ollama, LONG)
    # Ollama tells the time of the prefill and not what was cached: 310 tokens against none.
    assert cleared.prefill_s > 3 * warm.prefill_s


@pytest.mark.ollama
def test_the_window_is_the_one_asked_for(ollama: Any, smollm2: str) -> None:
    assert ollama.prepare(smollm2, 1024).loaded_context_tokens == 1024
    assert loaded()[smollm2] == 1024
    readiness = ollama.prepare(smollm2, 2048)
    assert readiness.loaded_context_tokens == loaded()[smollm2] == 2048
    assert readiness.load_s > 0
    ask(ollama, "hi")
    assert loaded()[smollm2] == 2048
    with pytest.raises(UserError, match=r"16384 .* 8192"):
        ollama.prepare(smollm2, 16384)


@pytest.mark.ollama
def test_counts_and_timings(ollama: Any) -> None:
    text, _, finish = ask(ollama, "Count to one hundred.")
    assert text
    assert (finish.reason, finish.output_tokens, finish.thinking_tokens) == ("length", 8, 0)
    assert min(finish.prefill_s, finish.decode_s, finish.load_s) > 0


@pytest.mark.ollama
def test_an_answer_format_reaches_the_model(ollama: Any) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    text, _, _ = ask(ollama, "Pick a number.", response_format=wanted, num_predict=64)
    assert json.loads(text)["n"] in (1, 2)


@pytest.mark.ollama
def test_a_prompt_that_does_not_fit(ollama: Any) -> None:
    with pytest.raises(EngineError, match="context length") as caught:
        ask(ollama, LONG * 10)
    assert (caught.value.kind, caught.value.status) == ("context_overflow", 400)


@pytest.mark.ollama
def test_an_answer_that_fills_the_window_ends_there(ollama: Any) -> None:
    _, _, finish = ask(ollama, LONG * 6, num_predict=4096, temperature=1.5)
    assert finish.input_tokens + finish.output_tokens <= 2048


@pytest.mark.ollama
def test_what_the_model_does_not_have_is_a_bad_request(ollama: Any) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    for changes in ({"tools": [tool]}, {"think": True}, {"model": "nowhere"}):
        with pytest.raises(EngineError) as caught:
            ask(ollama, "hi", **changes)
        assert caught.value.kind == "bad_request"


@pytest.mark.ollama
def test_a_client_that_leaves_stops_the_decoding(ollama: Any) -> None:
    asyncio.run(leave_early(ollama, question("Tell a long story.", num_predict=1900), deltas=3))
    ollama.settle(1.0)


@pytest.mark.ollama
def test_a_prefill_without_a_client_is_noticed_and_ended(ollama: Any, smollm2: str) -> None:
    """Ollama looks after its client only when it has a token for it."""
    ollama.prepare(smollm2, 8192)

    async def leave() -> None:
        task = asyncio.create_task(answer(ollama, question(LONG * 24, num_ctx=8192)))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave())
    with pytest.raises(EngineStuck):
        ollama.settle(0.5)
    began = time.monotonic()
    ollama.restart()
    ollama.settle(2.0)
    assert time.monotonic() - began < 8
    assert ask(ollama, "hi", num_ctx=8192)[2].output_tokens > 0
    ollama.prepare(smollm2, 2048)


@pytest.mark.ollama
def test_only_what_it_loaded_is_unloaded(smollm2: str, ollama: Any) -> None:
    guest = Ollama()
    guest.prepare(smollm2, 2048)  # in memory already
    assert guest.memory_bytes() > 50_000_000
    guest.close()
    assert smollm2 in loaded()
    owner = Ollama()
    owner.prepare(smollm2, 1024)
    owner.close()
    owner.close()
    assert smollm2 not in loaded()
    ollama.prepare(smollm2, 2048)


@pytest.mark.ollama
def test_memory_is_measured_without_a_scan_and_survives_a_restart(
    smollm2: str, ollama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = []

    def counted() -> list[psutil.Process]:
        scans.append(_runners())
        return scans[-1]

    monkeypatch.setattr("harness.engines.ollama._runners", counted)
    ollama.prepare(smollm2, 2048)
    scans.clear()  # `settle` looks for the runners itself
    assert all(ollama.memory_bytes() > 50_000_000 for _ in range(5))
    assert len(scans) == 1
    [runner] = scans[0]
    runner.kill()  # behind the engine's back
    psutil.wait_procs([runner], timeout=5)
    assert ollama.memory_bytes() is None
    assert ask(ollama, "hi", num_ctx=2048)[2].output_tokens > 0  # the server starts a new one
    assert ollama.memory_bytes() > 50_000_000
    assert [process.pid for process in scans[-1]] != [runner.pid]
    ollama.restart()
    assert ollama.memory_bytes() > 50_000_000


@pytest.mark.ollama
def test_a_model_that_was_not_pulled(ollama: Any) -> None:
    with pytest.raises(UserError, match=r"did you mean smollm2:135m\?; get it with `ollama pull smollm3:135m`"):
        ollama.describe("smollm3:135m")
    with pytest.raises(UserError, match="has no model"):
        ollama.describe("../x")


def test_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    engine = Ollama()
    assert engine.version() is None
    for attempt in (engine.list_models, lambda: engine.describe("x"), lambda: engine.prepare("x", 512)):
        with pytest.raises(MachineError, match=r"http://127\.0\.0\.1:9; start it with `ollama serve`"):
            attempt()
    with pytest.raises(EngineError) as caught:
        ask(engine, "hi")
    assert caught.value.kind == "unavailable"
    engine.close()


@pytest.mark.ollama
def test_a_model_that_was_unloaded_is_loaded_by_the_next_call(ollama: Any, smollm2: str) -> None:
    ollama.prepare(smollm2, 2048)
    assert ollama.location() == "local"
    assert set(ollama.pids()) > {process.pid for process in _runners()}
    ollama.unload(smollm2)
    assert loaded() == {}
    _, _, cold = ask(ollama, "Say hello.")
    assert cold.load_s is not None
    assert cold.load_s > 0.05
    assert list(loaded().values()) == [2048]
    _, _, warm = ask(ollama, "Say hello.")
    assert warm.load_s is not None
    assert warm.load_s < cold.load_s
