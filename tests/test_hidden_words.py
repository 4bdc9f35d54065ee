"""What is taken out of words that are said, stored or answered, and what is left in."""

from __future__ import annotations

import pytest

from harness.engines.base import EngineError
from harness.errors import MachineError, UserError
from harness.meter.external import ExternalMeter
from harness.meter.watts import BadReading
from harness.secrets import hidden


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:pass%40word9@proxy:3128")
    monkeypatch.setenv("LOCAL_API_KEY", "ollama")
    monkeypatch.setenv("KEYBOARD", "a-long-word-of-no-secret")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Incorrect API key: sk-0123456789.", "Incorrect API key: ($OPENAI_API_KEY)."),
        ("no way by http://me:pass%40word9@proxy:3128", "no way by http://***@proxy:3128"),
        ("me and pass@word9", "me and ($HTTPS_PROXY)"),
        ("https://a:b@host/x, https://token-1@host/y", "https://***@host/x, https://***@host/y"),
        ("'http://a:b/c@host'", "'http://a:b/c@host'"),
        ("git@host ssh://git@host user@host", "git@host ssh://git@host user@host"),
        ("ollama has a-long-word-of-no-secret", "ollama has a-long-word-of-no-secret"),
    ],
)
def test_secrets_are_replaced_by_what_they_are_called(text: str, said: str) -> None:
    assert hidden(text) == said


def test_no_error_has_one_in_its_words() -> None:
    for error in (UserError, MachineError, BadReading, lambda words: EngineError("bad_request", words)):
        assert "0123456789" not in str(error("key sk-0123456789"))


def test_a_password_is_not_typed_into_a_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_METER", "x")
    with pytest.raises(UserError, match="name a variable") as refused:
        ExternalMeter("http://me:typed@host/#watts")
    assert "typed" not in str(refused.value).replace("what is typed", "")
    ExternalMeter("http://me:$OF_THE_METER@host/#watts")
