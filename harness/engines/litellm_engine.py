"""Everything else that litellm reaches: `litellm/<provider>/<model>`, keys and addresses from its own
environment variables. Such engines tell counts but no timings, and what they run on can't be measured from here."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

from harness.engines.base import (
    Capability,
    ChatRequest,
    Delta,
    EngineError,
    EngineErrorKind,
    Finish,
    ModelInfo,
    Progress,
    Readiness,
)
from harness.engines.location import Location, of_url
from harness.engines.streaming import CallPieces, finish_reason, retry_after_s
from harness.errors import MachineError, UserError

_CALL_LIMIT_S = 1800.0  # litellm's own is 6,000 s; a run's limit comes first


class LiteLLM:
    """Engine `litellm`. Nothing is started, loaded, cleared or unloaded: that is the provider's business."""

    name = "litellm"

    def __init__(self) -> None:
        if importlib.util.find_spec("litellm") is None:
            raise UserError(
                "the engine litellm needs the package litellm; "
                "install it with `pip install 'agent-energy-harness[litellm]'`"
            )
        # Otherwise the import fetches a price list from the internet.
        os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
        import litellm

        litellm.suppress_debug_info = True
        litellm.telemetry = False
        self._litellm: Any = litellm
        # litellm's errors have this one base, and it is not its own.
        self._failure: Any = importlib.import_module("openai").OpenAIError

    def version(self) -> str | None:
        return f"litellm {importlib.metadata.version('litellm')}"

    def list_models(self) -> list[ModelInfo]:
        """Empty: what a provider offers depends on the account."""
        return []

    def describe(self, model: str) -> ModelInfo:
        """By litellm's own table; a model that is not in it has no capabilities and an unknown window.

        Raises UserError for a name without a known provider.
        """
        self._provider(model)
        facts = self._facts(model)
        capabilities: set[Capability] = set()
        if facts.get("supports_function_calling"):
            capabilities.add("tools")
        if facts.get("supports_reasoning"):
            capabilities.add("thinking")
        window = facts.get("max_input_tokens")
        return ModelInfo(
            name=model,
            engine=self.name,
            capabilities=frozenset(capabilities),
            context_tokens=int(window) if window is not None else None,
        )

    def _provider(self, model: str) -> str:
        try:
            return str(self._litellm.get_llm_provider(model)[1])
        except self._litellm.exceptions.BadRequestError:
            raise UserError(
                f"litellm does not know the provider of litellm/{model}; "
                "write litellm/<provider>/<model>, as in litellm/openai/gpt-4o-mini"
            ) from None

    def _facts(self, model: str) -> Mapping[str, Any]:
        try:
            return dict(self._litellm.get_model_info(model))
        except Exception as error:  # a bare one in litellm's older versions
            if "isn't mapped yet" not in str(error):
                raise MachineError(f"litellm can't describe {model}: {error}") from error
            return {}

    def pull(self, model: str, progress: Progress) -> ModelInfo:
        """Nothing to fetch: the model is the provider's."""
        return self.describe(model)

    def prepare(self, model: str, num_ctx: int) -> Readiness:
        """Nothing can be set from here; the window is checked against litellm's table where it is known."""
        info = self.describe(model)
        if info.context_tokens is not None and num_ctx > info.context_tokens:
            raise UserError(
                f"the window {num_ctx} is larger than the {info.context_tokens} tokens that "
                f"litellm/{model} has; give --num-ctx {info.context_tokens} or less"
            )
        missing = self._litellm.validate_environment(model)
        if not missing["keys_in_environment"] and missing["missing_keys"]:
            raise UserError(f"litellm/{model} needs {' and '.join(missing['missing_keys'])} in the environment")
        note = "the provider sets the window and keeps its own prompt cache"
        return Readiness(loaded_context_tokens=None, load_s=0.0, clear_s=0.0, notes=(note,))

    def loaded_context_tokens(self, model: str) -> int | None:
        """Nobody tells."""
        return None

    async def chat(self, request: ChatRequest) -> AsyncIterator[Delta | Finish]:
        calls = CallPieces()
        reason: str | None = None
        usage: Any = None
        stream: Any = None
        try:
            stream = await self._litellm.acompletion(**_arguments(request))
            async for chunk in stream:
                usage = getattr(chunk, "usage", None) or usage
                if not chunk.choices:
                    continue
                choice = chunk.choices[0]
                reason = choice.finish_reason or reason
                text = choice.delta.content or ""
                thinking = getattr(choice.delta, "reasoning_content", None) or ""
                if text or thinking:
                    yield Delta(text, thinking)
                for piece in choice.delta.tool_calls or ():
                    function = piece.function
                    # The provider's id is kept: some check it when the call comes back in the history.
                    calls.add(piece.index or 0, function.name or "", function.arguments or "", piece.id or "")
        except self._failure as error:
            raise self._error(error) from error
        finally:
            if stream is not None:
                await stream.aclose()
        if reason is None:
            raise EngineError("unavailable", f"{request.model} broke off in the middle of an answer")
        if whole := calls.whole(request.seed, cut=reason == "length"):
            yield Delta(tool_calls=whole)
        yield _finish(reason, bool(whole), usage)

    def _error(self, error: Any) -> EngineError:
        known = self._litellm.exceptions
        status = getattr(error, "status_code", None)
        kind: EngineErrorKind = "unavailable"
        # Servers that litellm does not know by name word it their own way; the second is llama.cpp's.
        if isinstance(error, known.ContextWindowExceededError) or "exceed_context_size" in str(error):
            kind = "context_overflow"
        elif isinstance(error, known.RateLimitError):
            kind = "rate_limited"
        elif isinstance(error, known.Timeout):
            kind = "timeout"
        elif isinstance(status, int) and 400 <= status < 500:
            kind = "bad_request"
        headers = getattr(getattr(error, "response", None), "headers", {})
        return EngineError(kind, str(error), status, retry_after_s=retry_after_s(headers))

    def settle(self, deadline_s: float = 5.0) -> None:
        """The provider's server can't be watched from here; closing the connection is all there is."""

    def restart(self) -> None:
        raise MachineError("a model server behind litellm can't be restarted from here; restart it by hand")

    def memory_bytes(self) -> int | None:
        return None

    def pids(self) -> tuple[int, ...]:
        return self._where().pids

    def location(self) -> str:
        return self._where().word

    def unload(self, model: str) -> None:
        """What the provider has in memory is its own business."""

    def _where(self) -> Location:
        """By the one address that is set for a provider; without one, or with several, it is elsewhere."""
        addresses = {value for name, value in os.environ.items() if name.endswith(("_API_BASE", "_BASE_URL")) and value}
        return of_url(addresses.pop()) if len(addresses) == 1 else Location("remote", "no address of its own is set")

    def close(self) -> None:
        """Nothing was started."""


def _arguments(request: ChatRequest) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "model": request.model,
        "messages": [dict(message) for message in request.messages],
        "max_tokens": request.num_predict,
        "temperature": request.temperature,
        "seed": request.seed & 0x7FFFFFFF,
        "stream": True,
        "stream_options": {"include_usage": True},
        "num_retries": 0,
        "max_retries": 0,  # the provider's own client would try twice more
        "timeout": _CALL_LIMIT_S,
        "drop_params": True,  # not every provider takes a seed
    }
    if request.top_p is not None:
        arguments["top_p"] = request.top_p
    if request.stop:
        arguments["stop"] = list(request.stop)
    if request.think:
        arguments["reasoning_effort"] = "medium"
    if request.tools:
        arguments["tools"] = [dict(tool) for tool in request.tools]
        if request.tool_choice is not None:
            arguments["tool_choice"] = request.tool_choice
    if request.response_format is not None:
        arguments["response_format"] = dict(request.response_format)
    return arguments


def _finish(reason: str, called: bool, usage: Any) -> Finish:
    ended = finish_reason(reason, called)
    if usage is None:
        return Finish(ended)
    prompt = getattr(usage, "prompt_tokens_details", None)
    completion = getattr(usage, "completion_tokens_details", None)
    return Finish(
        ended,
        input_tokens=usage.prompt_tokens,
        cached_tokens=getattr(prompt, "cached_tokens", None),
        thinking_tokens=getattr(completion, "reasoning_tokens", None),
        output_tokens=usage.completion_tokens,
    )
