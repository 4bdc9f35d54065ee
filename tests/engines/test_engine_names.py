from __future__ import annotations

import pytest

from harness.engines import open_engine, split_model
from harness.errors import UserError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gemma3:4b", ("ollama", "gemma3:4b")),
        ("hf.co/user/model:Q4_K_M", ("ollama", "hf.co/user/model:Q4_K_M")),
        ("user/model", ("ollama", "user/model")),
        ("llamacpp/smollm2:135m", ("llamacpp", "smollm2:135m")),
        ("llamacpp//models/a.gguf", ("llamacpp", "/models/a.gguf")),
        ("litellm/openai/gpt-4o-mini", ("litellm", "openai/gpt-4o-mini")),
        ("scripted/plays/one.json", ("scripted", "plays/one.json")),
        ("llamacpp", ("ollama", "llamacpp")),
        ("none", ("none", "none")),
    ],
)
def test_only_the_known_prefixes_count(text: str, expected: tuple[str, str]) -> None:
    assert split_model(text) == expected


@pytest.mark.parametrize("text", ["", "  ", "llamacpp/", "litellm/ "])
def test_a_model_needs_a_name(text: str) -> None:
    with pytest.raises(UserError, match="has no name"):
        split_model(text)


def test_an_unknown_engine() -> None:
    with pytest.raises(UserError, match="unknown engine olama; did you mean ollama"):
        open_engine("olama", ["x"])
