from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from asking import answer, ask, leave_early, question

from harness.engines import gguf, weights
from harness.engines.base import EngineError, EngineStuck
from harness.errors import MachineError, UserError

pytestmark = pytest.mark.model

LONG = "The quick brown fox jumps over the lazy dog. " * 30


def test_describes_the_model_without_loading_it(smollm2: str) -> None:
    from harness.engines.llamacpp import LlamaCpp

    engine = LlamaCpp()
    info = engine.describe(smollm2)
    assert (info.context_tokens, info.quantization, info.capabilities) == (8192, "Q4_1", frozenset())
    assert info.digest == f"sha256:{weights.BUILTIN[smollm2].sha256}"
    assert engine.describe(str(weights.locate(smollm2))).digest == info.digest
    assert engine.memory_bytes() is None
    assert smollm2 in [model.name for model in engine.list_models()]


def test_every_run_starts_without_the_last_ones_prompt(llamacpp: Any, smollm2: str) -> None:
    _, _, first = ask(llamacpp, LONG)
    _, _, warm = ask(llamacpp, LONG)
    assert warm.cached_tokens == warm.input_tokens - 1
    assert warm.input_tokens == first.input_tokens
    _, _, fresh = ask(llamacpp, LONG, fresh=True)
    assert fresh.cached_tokens == 0
    assert llamacpp.prepare(smollm2, 2048).load_s == 0.0
    _, _, cleared = ask(llamacpp, LONG)
    assert cleared.cached_tokens == 0


def test_counts_and_timings(llamacpp: Any) -> None:
    text, calls, finish = ask(llamacpp, "Count to one hundred.", num_predict=8)
    assert text
    assert not calls
    assert (finish.reason, finish.output_tokens, finish.thinking_tokens) == ("length", 8, 0)
    assert finish.load_s == 0.0
    assert finish.prefill_s is not None
    assert finish.prefill_s > 0
    assert finish.decode_s is not None
    assert finish.decode_s > 0


def test_stop_words_and_answer_formats_reach_the_model(llamacpp: Any) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    text, _, _ = ask(llamacpp, "Pick a number.", response_format=wanted, num_predict=64)
    assert json.loads(text)["n"] in (1, 2)
    text, _, finish = ask(llamacpp, "Say hello.", stop=["e"], num_predict=64)
    assert finish.reason == "stop"
    assert "e" not in text


def test_a_prompt_that_does_not_fit(llamacpp: Any) -> None:
    with pytest.raises(EngineError, match="2048 tokens") as caught:
        ask(llamacpp, LONG * 10)
    assert (caught.value.kind, caught.value.status) == ("context_overflow", 400)


def test_an_answer_that_fills_the_window_ends_there(llamacpp: Any) -> None:
    """Nothing is shifted out: the counts can't exceed the window."""
    _, _, finish = ask(llamacpp, LONG * 6, num_predict=4096, temperature=1.5)
    assert finish.input_tokens + finish.output_tokens <= 2048
    assert finish.reason in ("length", "stop")


@pytest.mark.parametrize("role", ["nonsense", None])
def test_what_the_server_refuses_is_a_bad_request(llamacpp: Any, role: Any) -> None:
    with pytest.raises(EngineError) as caught:
        ask(llamacpp, "x", messages=[{"role": role}])
    assert caught.value.kind in ("bad_request", "unavailable")
    assert str(caught.value).startswith("llama.cpp: ")


@pytest.mark.parametrize("response_format", [None, {"type": "json_object"}])
def test_an_answer_at_the_end_is_followed_by_another(llamacpp: Any, response_format: Any) -> None:
    """As with OpenAI's and Ollama's servers: frameworks send such conversations, with several answers too."""
    said = [{"role": "user", "content": "Hello"}, *({"role": "assistant", "content": text} for text in ("one", "two"))]
    text, _, finish = ask(llamacpp, "x", messages=said, num_predict=8, response_format=response_format)
    assert finish.input_tokens > 10
    assert text


def test_a_client_that_leaves_stops_the_decoding(llamacpp: Any) -> None:
    asyncio.run(leave_early(llamacpp, question("Tell a long story.", num_predict=1900), deltas=3))
    llamacpp.settle(1.0)


def test_a_client_that_leaves_stops_the_prefill(llamacpp: Any, smollm2: str) -> None:
    llamacpp.prepare(smollm2, 8192)

    async def leave() -> None:
        task = asyncio.create_task(answer(llamacpp, question(LONG * 24, num_ctx=8192, fresh=True)))
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave())
    llamacpp.settle(4.0)  # it looks after its client once a second
    llamacpp.prepare(smollm2, 2048)


def test_a_generation_that_goes_on_is_noticed(llamacpp: Any) -> None:
    async def watch() -> None:
        task = asyncio.create_task(answer(llamacpp, question("Tell a long story.", num_predict=1900)))
        await asyncio.sleep(0.3)
        with pytest.raises(EngineStuck, match="still generating"):
            await asyncio.to_thread(llamacpp.settle, 0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(watch())
    llamacpp.settle()


def test_many_calls_in_one_loop(llamacpp: Any) -> None:
    """llama.cpp closes connections that it promised to keep."""

    async def several() -> list[str]:
        return [(await answer(llamacpp, question("hi", num_predict=2)))[0] for _ in range(8)]

    assert len(set(asyncio.run(several()))) == 1


def test_a_window_that_the_model_does_not_have(llamacpp: Any, smollm2: str) -> None:
    with pytest.raises(UserError, match=r"16384 .* 8192"):
        llamacpp.prepare(smollm2, 16384)


def test_another_window_is_another_server(smollm2: str) -> None:
    from harness.engines.llamacpp import LlamaCpp

    engine = LlamaCpp()
    try:
        assert engine.prepare(smollm2, 1024).loaded_context_tokens == 1024
        small = engine.memory_bytes()
        again = engine.prepare(smollm2, 4096)
        assert again.loaded_context_tokens == 4096
        assert again.load_s > 0
        assert engine.memory_bytes() > small > 50_000_000
    finally:
        engine.close()
        engine.close()
    assert engine.memory_bytes() is None


def test_a_server_that_died_is_explained_and_replaced(smollm2: str) -> None:
    from harness.engines.llamacpp import LlamaCpp

    engine = LlamaCpp()
    try:
        others = psutil.Process().children()
        engine.prepare(smollm2, 1024)
        [child] = [child for child in psutil.Process().children() if child not in others]
        child.kill()
        while child.status() != psutil.STATUS_ZOMBIE:  # waiting for it would take its exit code away
            time.sleep(0.01)
        with pytest.raises(EngineError, match="ended with code -9") as caught:
            ask(engine, "hi")
        assert caught.value.kind == "unavailable"
        with pytest.raises(EngineStuck):
            engine.settle(0.5)
        engine.restart()
        assert ask(engine, "hi")[2].output_tokens > 0
    finally:
        engine.close()


def test_a_file_that_is_no_model(tmp_path: Path, smollm2: str) -> None:
    from harness.engines.llamacpp import LlamaCpp

    cut = tmp_path / "cut.gguf"
    cut.write_bytes(weights.locate(smollm2).read_bytes()[:20_000_000])
    engine = LlamaCpp()
    others = psutil.Process().children()
    with pytest.raises(MachineError, match=r"can't load .*cut\.gguf with a window of 512"):
        engine.prepare(str(cut), 512)
    assert psutil.Process().children() == others


def test_the_server_dies_with_a_killed_parent(smollm2: str) -> None:
    script = (
        "from harness.engines.llamacpp import LlamaCpp\n"
        "import psutil, time\n"
        f"engine = LlamaCpp(); engine.prepare({smollm2!r}, 512)\n"
        "print(psutil.Process().children()[0].pid, flush=True); time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    server = psutil.Process(int(parent.stdout.readline()))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 5
    while server.is_running() and server.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end, "the server outlived its parent"
        time.sleep(0.05)


TOOLS_TEMPLATE = (
    "{% if tools %}<|im_start|>system\n<tools>{{ tools | tojson }}</tools><|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls %}{{ c.function | tojson }}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

SHELL = {
    "type": "function",
    "function": {
        "name": "shell",
        "description": "Run",
        "parameters": {
            "type": "object",
            "properties": {"command": {"type": "string", "enum": ["ls", "pwd"]}},
            "required": ["command"],
        },
    },
}


# Its tool calls begin like any list: prose that holds one is taken for a call, and is none.
LISTS_TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@contextmanager
def retold(template: str, folder: Path) -> Iterator[Any]:
    """SmolLM2's weights with another chat template, written over the old one byte for byte."""
    from harness.engines.llamacpp import LlamaCpp

    path = weights.locate("smollm2:135m")
    old = gguf.read(path).chat_template.encode()
    new = template.encode()
    assert len(new) <= len(old)
    copy = folder / "retold.gguf"
    copy.write_bytes(path.read_bytes().replace(old, new + b" " * (len(old) - len(new))))
    engine = LlamaCpp()
    try:
        assert engine.describe(str(copy)).capabilities == {"tools"}
        assert engine.prepare(str(copy), 2048).notes == ()
        yield engine
    finally:
        engine.close()
        copy.unlink()


@pytest.fixture(scope="module")
def with_tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with retold(TOOLS_TEMPLATE, tmp_path_factory.mktemp("tools")) as engine:
        yield engine


def called_before() -> list[dict[str, Any]]:
    """A history with a tool call in it: it tests the way in, and shows the model how it is done."""
    call = {"id": "000000001", "type": "function"}
    call["function"] = {"name": "shell", "arguments": '{"command": "ls"}'}
    user = {"role": "user", "content": "List the files."}
    return [user, {"role": "assistant", "content": "", "tool_calls": [call]}, user]


def test_tool_calls_arrive_whole_and_alike(with_tools: Any) -> None:
    asked = {"messages": called_before(), "tools": [SHELL], "tool_choice": "required", "num_predict": 128}
    for seed in range(8):  # the model may talk before it calls, until the limit
        asked |= {"seed": seed, "temperature": 0.8 if seed else 0.0, "fresh": True}
        _, calls, finish = ask(with_tools, "", **asked)
        if calls:
            break
    assert finish.reason == "tool_calls"
    assert finish.output_tokens > 10
    assert calls[0]["function"]["name"] == "shell"
    assert json.loads(calls[0]["function"]["arguments"])["command"] in ("ls", "pwd")
    assert ask(with_tools, "", **asked)[1] == calls


def test_a_call_that_the_limit_cut_was_not_made(with_tools: Any) -> None:
    asked = {"messages": called_before(), "tools": [SHELL], "tool_choice": "required", "fresh": True}
    for limit in range(20, 44, 2):
        _, calls, finish = ask(with_tools, "", num_predict=limit, **asked)
        for call in calls:
            assert json.loads(call["function"]["arguments"])
        assert calls or finish.reason == "length"


def test_an_answer_that_llamacpp_can_not_read_as_a_call_is_still_an_answer(tmp_path: Path) -> None:
    """llama.cpp reports a server error there; the fault is the model's."""
    with retold(LISTS_TEMPLATE, tmp_path) as engine:
        for seed in range(20):
            asked = {"seed": seed, "temperature": 0.8 if seed else 0.0, "num_predict": 40, "tools": [SHELL]}
            text, calls, finish = ask(engine, "List the files.", tool_choice="required", **asked)
            if finish.output_tokens is None:
                break
        assert (finish.reason, calls, finish.output_tokens) == ("stop", [], None)
        assert text
        assert finish.input_tokens > 50


def test_a_model_that_was_unloaded_is_loaded_by_the_next_call(smollm2: str) -> None:
    from harness.engines.llamacpp import LlamaCpp

    engine = LlamaCpp()
    try:
        engine.unload(smollm2)  # nothing is loaded yet
        engine.prepare(smollm2, 2048)
        [before] = engine.pids()
        assert engine.location() == "local"
        engine.unload(smollm2)
        assert engine.pids() == ()
        assert not psutil.pid_exists(before)
        assert engine.memory_bytes() is None
        _, _, cold = ask(engine, "Say hello.")
        _, _, warm = ask(engine, "Say hello.")
        assert cold.load_s is not None
        assert cold.load_s > 0
        assert cold.cached_tokens == 0
        assert warm.load_s == 0.0
        assert len(engine.pids()) == 1
    finally:
        engine.close()
