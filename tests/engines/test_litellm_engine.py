from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from asking import ask, leave_early, question

from harness.engines.base import EngineError
from harness.errors import MachineError, UserError

MODEL = "openai/smollm2"


@pytest.fixture(scope="module")
def litellm() -> Any:
    from harness.engines.litellm_engine import LiteLLM

    return LiteLLM()


@pytest.fixture
def served(llamacpp: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The embedded server as a provider that litellm reaches."""
    monkeypatch.setenv("OPENAI_API_BASE", f"{llamacpp.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    yield llamacpp
    llamacpp.settle()


def test_describes_by_litellms_own_table(litellm: Any) -> None:
    known = litellm.describe("openai/gpt-4o-mini")
    assert (known.context_tokens, known.capabilities) == (128_000, {"tools"})
    unknown = litellm.describe(MODEL)
    assert (unknown.context_tokens, unknown.capabilities, unknown.size_bytes) == (None, frozenset(), None)
    assert litellm.list_models() == []


def test_mistakes_are_named(litellm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="does not know the provider of litellm/nothing/x"):
        litellm.describe("nothing/x")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match="needs OPENAI_API_KEY"):
        litellm.prepare(MODEL, 2048)
    with pytest.raises(UserError, match=r"200000 .* 128000"):
        litellm.prepare("openai/gpt-4o-mini", 200_000)
    with pytest.raises(MachineError, match="by hand"):
        litellm.restart()


def test_no_server(litellm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_BASE", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with pytest.raises(EngineError) as caught:
        ask(litellm, "hi", model=MODEL)
    assert caught.value.kind == "unavailable"


@pytest.mark.model
def test_an_answer_has_counts_but_no_timings(litellm: Any, served: Any) -> None:
    litellm.prepare(MODEL, 2048)
    text, _, finish = ask(litellm, "Count to one hundred.", model=MODEL)
    assert text
    assert (finish.reason, finish.output_tokens) == ("length", 8)
    assert finish.input_tokens > 0
    assert (finish.load_s, finish.prefill_s, finish.decode_s) == (None, None, None)


@pytest.mark.model
def test_a_prompt_that_does_not_fit(litellm: Any, served: Any) -> None:
    with pytest.raises(EngineError) as caught:
        ask(litellm, "hello world " * 3000, model=MODEL)
    assert caught.value.kind == "context_overflow"


@pytest.mark.model
def test_a_client_that_leaves_stops_the_decoding(litellm: Any, served: Any) -> None:
    asyncio.run(leave_early(litellm, question("Tell a long story.", model=MODEL, num_predict=1900), deltas=3))
    served.settle(1.0)
