from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.engines.base import ChatRequest, Delta, EngineError, EngineStuck, Finish
from harness.engines.scripted import Scripted
from harness.engines.scripted_play import read_play, tokens
from harness.errors import MachineError, UserError

MESSAGES = [{"role": "user", "content": "fix it please"}]

FULL = """
context_tokens = 100
capabilities = ["tools", "thinking"]
[[answers]]
text = "one two\\n\\nthree"
thinking = "well well"
tool_calls = [{ name = "bash", arguments = { command = "ls" } }]
chunk_words = 1
first_token_delay_s = 0.1
delay_s = 0.02
"""


@pytest.fixture
def engine() -> Iterator[Scripted]:
    scripted = Scripted()
    yield scripted
    scripted.close()
    scripted.close()


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    def write(toml: str) -> str:
        path = tmp_path / "script.toml"
        path.write_text(toml)
        return str(path)

    return write


def request(model: str, **more: Any) -> ChatRequest:
    return ChatRequest(
        **{
            "model": model,
            "messages": MESSAGES,
            "num_ctx": 100,
            "num_predict": 50,
            "temperature": 0.0,
            "seed": 1,
        }
        | more
    )


def play(engine: Scripted, asked: ChatRequest) -> tuple[list[Delta], Finish]:
    async def collect() -> list[Delta | Finish]:
        return [event async for event in engine.chat(asked)]

    *deltas, finish = asyncio.run(collect())
    assert isinstance(finish, Finish)
    assert all(isinstance(delta, Delta) for delta in deltas)
    return deltas, finish


def error(engine: Scripted, asked: ChatRequest) -> EngineError:
    with pytest.raises(EngineError) as caught:
        play(engine, asked)
    return caught.value


def test_an_answer_with_everything(engine, script):
    model = script(FULL)
    deltas, finish = play(engine, request(model, think=True))
    assert "".join(delta.thinking for delta in deltas) == "well well"
    assert "".join(delta.text for delta in deltas) == "one two\n\nthree"
    [call] = [call for delta in deltas for call in delta.tool_calls]
    assert call["function"] == {"name": "bash", "arguments": '{"command": "ls"}'}
    assert len(deltas) == 6
    assert finish.reason == "tool_calls"
    assert (finish.input_tokens, finish.cached_tokens) == (3, 0)
    assert (finish.thinking_tokens, finish.output_tokens) == (2, 5)
    assert 0.1 <= finish.prefill_s < 1
    assert 0.1 <= finish.decode_s < 1


def test_thinking_is_played_only_when_asked_for(engine, script):
    deltas, finish = play(engine, request(script(FULL)))
    assert not any(delta.thinking for delta in deltas)
    assert (finish.thinking_tokens, finish.output_tokens) == (0, 3)


def test_num_predict_cuts(engine, script):
    deltas, finish = play(engine, request(script(FULL), think=True, num_predict=3))
    assert "".join(delta.thinking + delta.text for delta in deltas) == "well wellone"
    assert (finish.reason, finish.output_tokens) == ("length", 3)


@pytest.mark.parametrize(("rule", "fourth"), [("repeat", "b"), ("loop", "b"), ("error", None)])
def test_when_the_list_is_exhausted(engine, script, rule, fourth):
    model = script(f'when_exhausted = "{rule}"\n[[answers]]\ntext = "a"\n[[answers]]\ntext = "b"\n')
    said = [play(engine, request(model))[0][0].text for _ in range(2)]
    assert said == ["a", "b"]
    if rule == "error":
        assert "exhausted" in str(error(engine, request(model)))
        return
    assert play(engine, request(model))[0][0].text == ("a" if rule == "loop" else "b")
    assert play(engine, request(model))[0][0].text == fourth


def test_prepare_goes_back_to_the_start_with_a_cold_cache(engine, script):
    model = script('[[answers]]\ntext = "a"\n[[answers]]\ntext = "b"\n')
    for _ in range(2):
        ready = engine.prepare(model, 100)
        assert ready.loaded_context_tokens == 100
        first, second = play(engine, request(model)), play(engine, request(model))
        assert (first[0][0].text, first[1].cached_tokens) == ("a", 0)
        assert (second[0][0].text, second[1].cached_tokens) == ("b", 3)


@pytest.mark.parametrize(
    ("fault", "kind", "status"),
    [
        ("http_400", "bad_request", 400),
        ("http_429", "rate_limited", 429),
        ("http_500", "unavailable", 500),
        ("http_503", "unavailable", 503),
        ("context_overflow", "context_overflow", 400),
        ("refuse", "unavailable", None),
        ("reset", "unavailable", None),
        ("cut", "unavailable", None),
        ("invalid_json", "unavailable", None),
    ],
)
def test_faults(engine, script, fault, kind, status):
    caught = error(engine, request(script(f'[[answers]]\ntext = "a b c d"\nchunk_words = 1\nfault = "{fault}"')))
    assert (caught.kind, caught.status) == (kind, status)


def test_a_prompt_that_does_not_fit(engine, script):
    assert error(engine, request(script(FULL), num_ctx=2)).kind == "context_overflow"


def test_tools_without_the_capability(engine, script):
    caught = error(engine, request(script('[[answers]]\ntext = "a"'), tools=[{"type": "function"}]))
    assert (caught.kind, "does not support tools" in str(caught)) == ("bad_request", True)


@pytest.mark.parametrize("fault", ["endless", "hang"])
def test_closing_the_iterator_aborts(engine, script, fault):
    model = script(f'[[answers]]\ntext = "again "\nfault = "{fault}"')

    async def leave() -> None:
        async with aclosing(engine.chat(request(model))) as events:
            try:
                async with asyncio.timeout(0.3):
                    async for _ in events:
                        pass
            except TimeoutError:
                pass

    asyncio.run(leave())
    engine.settle(1.0)
    assert engine.log()["requests"][0]["ended"] == "client_gone"


def test_settle_says_when_it_is_stuck_and_restart_heals(engine, script):
    model = script('[[answers]]\nfault = "hang"\n')

    async def hang() -> None:
        call = asyncio.create_task(anext(engine.chat(request(model))))
        await asyncio.sleep(0.2)
        with pytest.raises(EngineStuck):
            await asyncio.to_thread(engine.settle, 0.1)
        await asyncio.to_thread(engine.restart)
        with pytest.raises(EngineError):
            await call

    asyncio.run(hang())
    engine.settle(1.0)


def test_describe_and_list(script):
    model = script(FULL)
    engine = Scripted(Path(model))
    [listed] = engine.list_models()
    assert listed == engine.describe(model)
    assert (listed.context_tokens, listed.capabilities) == (100, {"tools", "thinking"})
    with pytest.raises(MachineError, match="100 tokens, 200 were asked"):
        engine.prepare(model, 200)
    engine.close()


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("answers = [", "not TOML"),
        ("answers = []", "answers"),
        ('[[answers]]\ntxt = "a"', "answers.0.txt"),
        ('[[answers]]\nfault = "meteor"', "answers.0.fault"),
        ('capabilities = ["flying"]\n[[answers]]', "capabilities"),
    ],
)
def test_a_malformed_script(script, toml, words):
    with pytest.raises(UserError) as caught:
        read_play(Path(script(toml)))
    assert words in str(caught.value)
    with pytest.raises(UserError, match="can't be read"):
        read_play(Path("/nowhere/script.toml"))


def test_tokens_are_words_and_lose_nothing():
    text = "  a b\n\nb  c \n"
    assert tokens(text) == ["  a", " b", "\n\nb", "  c \n"]
    assert "".join(tokens(text)) == text
    assert tokens("") == []


def test_openais_dialect(engine, script):
    openai = pytest.importorskip("openai", reason="the openai package is not installed")
    model = script('when_exhausted = "repeat"\n' + FULL.replace("first_token_delay_s = 0.1", ""))
    client = openai.OpenAI(base_url=f"{engine.address}/v1", api_key="x", max_retries=0)
    answer = client.chat.completions.create(model=model, messages=MESSAGES)
    assert answer.choices[0].message.content == "one two\n\nthree"
    assert answer.choices[0].message.tool_calls[0].function.name == "bash"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 5)
    chunks = list(client.chat.completions.create(model=model, messages=MESSAGES, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two\n\nthree"
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert [entry.id for entry in client.models.list()] == [model]
    client.close()


def test_ollamas_dialect(engine, script):
    ollama = pytest.importorskip("ollama", reason="the ollama package is not installed")
    model = script('when_exhausted = "repeat"\n' + FULL)
    client = ollama.Client(host=engine.address)
    answer = client.chat(model=model, messages=MESSAGES, think=True)
    assert (answer.message.content, answer.message.thinking) == ("one two\n\nthree", "well well")
    parts = client.generate(model=model, prompt="fix it", stream=True)
    assert "".join(part.response for part in parts) == "one two\n\nthree"
    assert set(client.show(model).capabilities) == {"completion", "tools", "thinking"}
    assert client.list().models[0].model == model
    assert client.ps().models[0].model == model


def test_a_plain_answer_that_breaks_off(engine, script):
    model = script('[[answers]]\ntext = "a b c d"\nfault = "reset"\n')
    engine.prepare(model, 100)
    with pytest.raises(httpx.TransportError):
        httpx.post(f"{engine.address}/api/chat", json={"model": model, "messages": MESSAGES, "stream": False})
    began = time.monotonic()
    engine.settle()
    assert time.monotonic() - began < 1
