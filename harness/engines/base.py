"""What a model server is to the harness.

An engine is a plain object with the methods of :class:`Engine`. The gateway speaks to `chat` alone; the
sweep starts, prepares and stops it. Every engine streams: prefill ends at the first delta.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from harness.errors import MachineError
from harness.secrets import hidden

Capability = Literal["tools", "thinking"]

EngineErrorKind = Literal[
    "context_overflow",  # the prompt does not fit the window
    "bad_request",  # the engine refused the request for another reason
    "rate_limited",
    "unavailable",  # connection refused, reset, 5xx, half an answer
    "timeout",
]


class EngineError(Exception):
    """A call that the engine did not answer. `status` is its HTTP status, where there was one, `prompt_tokens` the
    size of a prompt that did not fit and `retry_after_s` how long it asks to be left alone, where they are told."""

    def __init__(
        self,
        kind: EngineErrorKind,
        message: str,
        status: int | None = None,
        prompt_tokens: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(hidden(message))  # the agent is shown it
        self.kind: EngineErrorKind = kind
        self.status = status
        self.prompt_tokens = prompt_tokens
        self.retry_after_s = retry_after_s


class EngineAway(MachineError):
    """Nobody answers where the engine should be. It may come back: servers are restarted and updated."""


class EngineStuck(MachineError):
    """The engine did not come to rest after its client left; the caller restarts it and flags the run."""


@dataclass(frozen=True)
class ModelInfo:
    """A model as its engine describes it. Unknown facts are None, never guessed."""

    name: str  # without the engine prefix
    engine: str
    capabilities: frozenset[Capability] = frozenset()
    context_tokens: int | None = None  # the window the model was trained for
    size_bytes: int | None = None
    digest: str | None = None
    parameters: str | None = None  # as the engine words it: "135M"
    quantization: str | None = None


@dataclass(frozen=True)
class ChatRequest:
    """One call, after the harness's own limits and sampling have replaced what the framework asked for.

    `messages` and `tools` are in OpenAI's shape; an engine with another dialect translates.
    """

    model: str
    messages: Sequence[Mapping[str, Any]]
    num_ctx: int
    num_predict: int
    temperature: float
    seed: int
    top_p: float | None = None
    think: bool = False
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: Any = None
    stop: Sequence[str] = ()
    response_format: Mapping[str, Any] | None = None
    fresh: bool = False  # the run's first call: nothing of an earlier run's prompt cache may be used


@dataclass(frozen=True)
class Delta:
    """A piece of the answer. `tool_calls` are whole calls in OpenAI's shape, `arguments` a JSON string."""

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Finish:
    """The end of an answer, with the engine's own counts and timings. What it does not tell is None.

    `input_tokens` is the whole prompt, cached part included.
    """

    reason: Literal["stop", "length", "tool_calls"]
    input_tokens: int | None = None
    cached_tokens: int | None = None
    thinking_tokens: int | None = None
    output_tokens: int | None = None  # thinking included
    load_s: float | None = None
    prefill_s: float | None = None
    decode_s: float | None = None


@dataclass(frozen=True)
class Readiness:
    """How `prepare` left the engine, kept with the run."""

    loaded_context_tokens: int | None  # the window really loaded, as the engine reports it
    load_s: float  # 0.0 when it was loaded already
    clear_s: float  # what clearing the prompt cache took
    digest: str | None = None  # of the model that was loaded
    notes: tuple[str, ...] = field(default=())


Progress = Callable[[str, int, int | None], None]
"""Called as (what is happening, bytes done, bytes in all or None)."""


class Engine(Protocol):
    """A model server. `name` is its prefix on the command line ("ollama" has none there)."""

    name: str

    def version(self) -> str | None:
        """The server's version, or None when it can't be asked."""
        ...

    def list_models(self) -> list[ModelInfo]:
        """The models that can be used at once.

        Raises MachineError when the engine can't be reached; the sentence says how to start it.
        """
        ...

    def describe(self, model: str) -> ModelInfo:
        """One model's capabilities and window.

        Raises UserError for a model it does not have (nearest names, how to get it) and MachineError as
        `list_models` does.
        """
        ...

    def pull(self, model: str, progress: Progress) -> ModelInfo:
        """Fetch a model. Raises UserError for an unknown name, MachineError when it can't be fetched."""
        ...

    def prepare(self, model: str, num_ctx: int) -> Readiness:
        """Bring the engine to the state in which every run starts: model loaded with exactly this window, one
        slot, prompt cache cleared, kept in memory, nothing decoding.

        Raises UserError for a window that the model does not have, and MachineError when it can't be loaded or
        another window was; both with both numbers. Raises EngineAway when nobody answers.
        """
        ...

    def loaded_context_tokens(self, model: str) -> int | None:
        """The window with which a model is in memory now; None when it is not, or the server does not tell.

        Raises MachineError when it does not answer.
        """
        ...

    def chat(self, request: ChatRequest) -> AsyncIterator[Delta | Finish]:
        """Stream one answer: any number of Delta, then exactly one Finish. Closing the iterator aborts the
        generation upstream. Raises EngineError.
        """
        ...

    def settle(self, deadline_s: float = 5.0) -> None:
        """Return when nothing is being generated. Raises EngineStuck at the deadline."""
        ...

    def restart(self) -> None:
        """Stop a generation that will not end, by force. Raises MachineError when that can't be done from here."""
        ...

    def memory_bytes(self) -> int | None:
        """Resident memory of the server's processes now, or None when they can't be seen from here."""
        ...

    def pids(self) -> tuple[int, ...]:
        """The server's processes as far as they can be seen from here: whose CPU time is the engine's."""
        ...

    def location(self) -> str:
        """Where the models run: local, container or remote."""
        ...

    def unload(self, model: str) -> None:
        """Have this model not in memory. The next call, or `prepare`, loads it again. Raises MachineError."""
        ...

    def close(self) -> None:
        """Unload the model and stop what this object started. Safe to call twice."""
        ...
