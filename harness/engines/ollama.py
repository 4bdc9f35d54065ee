"""Ollama, by its native API: its OpenAI route ignores the window and cuts prompts in silence."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import ollama
import psutil

from harness.engines.base import (
    Capability,
    ChatRequest,
    Delta,
    EngineAway,
    EngineError,
    EngineStuck,
    Finish,
    ModelInfo,
    Progress,
    Readiness,
)
from harness.engines.location import of_url
from harness.engines.ollama_shapes import FOREVER, chat_body, error_text, finish, refusal, tool_call
from harness.engines.processes import IDLE_CORES, busy_cores
from harness.engines.streaming import LoopClient, beginning, lines, retry_after_s, text_in, transport_errors
from harness.errors import MachineError, UserError, nearest

_LOAD_LIMIT_S = 600.0
_UNLOAD_LIMIT_S = 10.0
_ASK_LIMIT_S = 5.0  # for what a server knows without its models


def server_url(host: str | None) -> str:
    """OLLAMA_HOST as a URL. A bare host or port is http on 11434; 0.0.0.0 is where a server listens, not
    where a client can count on reaching it."""
    text = (host or "").strip().strip("\"'")
    has_scheme = "://" in text
    parts = urlsplit(text if has_scheme else f"http://{text}")
    address = parts.hostname or "127.0.0.1"
    if address in ("0.0.0.0", "::"):
        address = "127.0.0.1"
    if ":" in address:
        address = f"[{address}]"
    try:
        port = parts.port or ({"http": 80, "https": 443}[parts.scheme] if has_scheme else 11434)
    except (ValueError, KeyError):
        raise UserError(f"OLLAMA_HOST={host} is no address; write host:port or http://host:port") from None
    return f"{parts.scheme}://{address}:{port}{parts.path.rstrip('/')}"


class Ollama:
    """Engine `ollama`, at OLLAMA_HOST or 127.0.0.1:11434."""

    name = "ollama"

    def __init__(self) -> None:
        self._url = server_url(os.environ.get("OLLAMA_HOST"))
        self._local = urlsplit(self._url).hostname in ("127.0.0.1", "localhost", "::1")
        self._library = ollama.Client(host=self._url, timeout=30.0)
        self._control = httpx.Client(base_url=self._url, timeout=_LOAD_LIMIT_S)
        self._streams = LoopClient(keep=4)
        self._loaded: tuple[str, int] | None = None  # what this object loaded, and its window
        self._measured: list[psutil.Process] = []  # the runners that `memory_bytes` found last

    def version(self) -> str | None:
        try:
            return str(self._control.get("/api/version", timeout=5.0).raise_for_status().json()["version"])
        except (httpx.HTTPError, ValueError, KeyError):
            return None

    def list_models(self) -> list[ModelInfo]:
        with self._reachable():
            found = self._library.list().models
            return [self.describe(entry.model) for entry in found if entry.model]

    def describe(self, model: str) -> ModelInfo:
        with self._reachable():
            try:
                shown = self._library.show(model)
            except ollama.ResponseError as error:
                # A name that can't be one ("../x") is answered with 500.
                if error.status_code != 404 and "invalid model" not in error.error:
                    raise
                raise UserError(self._unknown(model)) from None
            listed = {found.model: found for found in self._library.list().models}
        facts = shown.modelinfo or {}
        details = shown.details
        window = facts.get(f"{facts.get('general.architecture')}.context_length")
        entry = next((found for name, found in listed.items() if name and _same(name, model)), None)
        capabilities: set[Capability] = set()
        if "tools" in (shown.capabilities or ()):
            capabilities.add("tools")
        if "thinking" in (shown.capabilities or ()):
            capabilities.add("thinking")
        return ModelInfo(
            name=model,
            engine=self.name,
            capabilities=frozenset(capabilities),
            context_tokens=int(window) if window is not None else None,
            size_bytes=int(entry.size) if entry and entry.size is not None else None,
            digest=f"sha256:{entry.digest}" if entry and entry.digest else None,
            parameters=details.parameter_size if details else None,
            quantization=details.quantization_level if details else None,
        )

    def _unknown(self, model: str) -> str:
        known = [entry.model for entry in self._library.list().models if entry.model]
        return (
            f"Ollama at {self._url} has no model {model}: {nearest(model, known, 'pulled')}; "
            f"get it with `ollama pull {model}` or add --pull"
        )

    def pull(self, model: str, progress: Progress) -> ModelInfo:
        library = ollama.Client(host=self._url, timeout=None)
        with self._reachable():
            try:
                for part in library.pull(model, stream=True):
                    progress(part.status or "pulling", part.completed or 0, part.total)
            except ollama.ResponseError as error:
                text = error.error
                if "file does not exist" in text or "invalid model name" in text:
                    raise UserError(f"Ollama's registry has no model {model} ({text})") from None
                raise MachineError(f"Ollama at {self._url} can't pull {model}: {text}") from None
        return self.describe(model)

    def prepare(self, model: str, num_ctx: int) -> Readiness:
        """Raises also UserError for a window that the model was not trained for."""
        info = self.describe(model)
        if info.context_tokens is not None and num_ctx > info.context_tokens:
            # Ollama would load it without a word.
            raise UserError(
                f"the window {num_ctx} is larger than the {info.context_tokens} tokens that {model} has; "
                f"give --num-ctx {info.context_tokens} or less"
            )
        notes = []
        if self._loaded is not None and self._loaded != (model, num_ctx):
            self._unload(self._loaded[0])
            self._loaded = None
        before = self._windows()
        others = sorted(name for name in before if not _same(name, model))
        if others:
            notes.append(f"also in Ollama's memory, loaded by someone else: {', '.join(others)}")
        load_s = self._load(model, num_ctx)
        if not any(_same(name, model) and window == num_ctx for name, window in before.items()):
            self._loaded = (model, num_ctx)
        loaded = self.loaded_context_tokens(model)
        if loaded is None:
            notes.append("this server does not report the loaded window (/api/ps has no context_length)")
        elif loaded != num_ctx:
            raise MachineError(
                f"Ollama loaded {model} with a window of {loaded} tokens where {num_ctx} were asked for; "
                "is another client using the same model?"
            )
        self.settle()
        began = time.monotonic()
        self._clear(model, num_ctx)
        return Readiness(loaded, load_s, time.monotonic() - began, info.digest, tuple(notes))

    def loaded_context_tokens(self, model: str) -> int | None:
        return next((window for name, window in self._windows().items() if _same(name, model)), None)

    def _windows(self) -> dict[str, int | None]:
        with self._reachable():
            told = self._control.get("/api/ps", timeout=_ASK_LIMIT_S).raise_for_status().json()
            models = ollama.ProcessResponse.model_validate(told).models
        return {entry.model: entry.context_length for entry in models if entry.model}

    def _load(self, model: str, num_ctx: int) -> float:
        """Seconds that loading took, 0.0 when the model was in memory with this window."""
        body = {"model": model, "options": {"num_ctx": num_ctx}, "keep_alive": FOREVER, "stream": False}
        was_loaded = any(_same(name, model) and w == num_ctx for name, w in self._windows().items())
        began = time.monotonic()
        self._generate(body, f"load {model} with a window of {num_ctx} tokens")
        self._measured = []  # a load may have started a runner beside those that are known
        return 0.0 if was_loaded else time.monotonic() - began

    def _clear(self, model: str, num_ctx: int) -> None:
        """Ollama has no call to clear the prompt cache. With one slot, a prompt that shares no beginning with
        any other takes its place; `raw` leaves the chat template out."""
        self._generate(_one_token(model, num_ctx), f"clear the prompt cache of {model}")

    def _generate(self, body: Mapping[str, Any], what: str, limit_s: float = _LOAD_LIMIT_S) -> None:
        with self._reachable():
            response = self._control.post("/api/generate", json=body, timeout=limit_s)
        if response.status_code != 200:
            raise MachineError(f"Ollama at {self._url} can't {what}: {error_text(response.content)}")

    def _unload(self, model: str, limit_s: float = _LOAD_LIMIT_S) -> None:
        """Ollama says yes at once and ends the runner a moment later."""
        self._generate({"model": model, "keep_alive": 0, "stream": False}, f"unload {model}", limit_s)
        end = time.monotonic() + _UNLOAD_LIMIT_S
        while any(_same(name, model) for name in self._windows()):
            if time.monotonic() > end:
                raise MachineError(
                    f"Ollama at {self._url} does not unload {model} within {_UNLOAD_LIMIT_S:g} s; restart the server"
                )
            time.sleep(0.05)

    @contextlib.contextmanager
    def _reachable(self) -> Iterator[None]:
        """Turns "nobody answers" into a sentence that says how to start the server."""
        try:
            yield
        except (ConnectionError, httpx.ConnectError, httpx.ConnectTimeout):
            raise EngineAway(
                f"Ollama does not answer at {self._url}; start it with `ollama serve`, "
                "or set OLLAMA_HOST if it runs elsewhere"
            ) from None
        except httpx.TransportError as error:
            detail = str(error) or type(error).__name__
            raise EngineAway(f"Ollama at {self._url} broke off: {detail}") from error
        except ollama.ResponseError as error:
            raise MachineError(f"Ollama at {self._url}: {error.error} ({error.status_code})") from error
        except (httpx.HTTPStatusError, ValueError) as error:  # of pydantic, of json
            said = " ".join(str(error).split())
            raise MachineError(f"what answers at {self._url} is not Ollama, or is broken: {said[:200]}") from error

    async def chat(self, request: ChatRequest) -> AsyncIterator[Delta | Finish]:
        body = chat_body(request)
        calls = 0
        thinking_chunks = 0
        client = self._streams.get()
        with transport_errors("Ollama"):
            async with client.stream("POST", f"{self._url}/api/chat", json=body) as response:
                if response.status_code != 200:
                    refused = refusal(error_text(await beginning(response)), response.status_code)
                    refused.retry_after_s = retry_after_s(response.headers)
                    raise refused
                async for line in lines(response):
                    chunk = json.loads(line)
                    if "error" in chunk:
                        raise refusal(str(chunk["error"]), None)
                    if not _same(text_in(chunk.get("model")) or request.model, request.model):
                        raise EngineError("unavailable", f"Ollama answers with {chunk['model']}, not {request.model}")
                    message = chunk.get("message") or {}
                    text = text_in(message.get("content"))
                    thinking = text_in(message.get("thinking"))
                    called = message.get("tool_calls") or ()
                    if text or thinking or called:
                        thinking_chunks += bool(thinking)
                        whole = tuple(
                            tool_call(call, calls + offset, request.seed) for offset, call in enumerate(called)
                        )
                        calls += len(whole)
                        yield Delta(text, thinking, whole)
                    if chunk.get("done"):
                        yield finish(chunk, calls > 0, thinking_chunks)
                        return
        raise EngineError("unavailable", "Ollama broke off in the middle of an answer")

    def settle(self, deadline_s: float = 5.0) -> None:
        """Ollama does not say whether it is busy. Here its runners' CPU time tells; elsewhere a request of one
        token, which gets its turn when the only slot is free (and takes the place of the prompt cache).

        Ollama 0.13 notices a lost client only at its next token: a long prefill goes on to its end, unless
        `restart` ends it.
        """
        end = time.monotonic() + deadline_s
        if not self._local:
            self._wait_for_turn(deadline_s)
            return
        while True:
            busy = busy_cores(_runners())
            if busy < IDLE_CORES:
                return
            if time.monotonic() > end:
                raise EngineStuck(f"Ollama still uses {busy:.1f} cores {deadline_s:g} s after its client left")

    def _wait_for_turn(self, deadline_s: float) -> None:
        if self._loaded is None:
            return
        try:
            with self._reachable():
                self._control.post("/api/generate", json=_one_token(*self._loaded), timeout=deadline_s)
        except MachineError as error:
            if isinstance(error.__cause__, httpx.ReadTimeout):
                raise EngineStuck(f"Ollama is still generating {deadline_s:g} s after its client left") from error
            raise

    def restart(self) -> None:
        """Unloads the model, which ends its runner even in the middle of a prefill, and loads it again."""
        loaded = self._loaded
        for name in [loaded[0]] if loaded else list(self._windows()):
            self._unload(name)
        if loaded:
            self._load(*loaded)

    def memory_bytes(self) -> int | None:
        if not self._local:
            return None
        # Asked for several times a second while energy is measured, and looking for the runners reads the command
        # line of every process on the machine: done again only after a load, or when a runner is gone.
        known = _resident_bytes(self._measured)
        if known is None:
            self._measured = _runners()
            known = _resident_bytes(self._measured)
        return known

    def pids(self) -> tuple[int, ...]:
        """The runners that hold the models, and the servers that started them."""
        if not self._local:
            return ()
        runners = _runners()
        parents = {process.ppid() for process in runners}
        return tuple(sorted({process.pid for process in runners} | parents - {0, 1}))

    def location(self) -> str:
        return of_url(self._url).word

    def unload(self, model: str) -> None:
        """What others loaded stays: this may be everybody's server."""
        for name, window in self._windows().items():
            if _same(name, model):
                self._unload(name)
                if window is not None:
                    self._loaded = (model, window)  # the next call loads it with that window: ours to remove at the end

    def close(self) -> None:
        loaded, self._loaded = self._loaded, None
        try:
            if loaded is not None:
                with contextlib.suppress(EngineAway):  # who is gone has nothing in memory, who hangs can't be helped
                    self._unload(loaded[0], _ASK_LIMIT_S)
        finally:
            self._control.close()


def _same(name: str, model: str) -> bool:
    """Ollama adds the tag `latest` where none is given, and does not mind the case."""
    return name.casefold() in (model.casefold(), f"{model}:latest".casefold())


def _one_token(model: str, num_ctx: int) -> dict[str, Any]:
    """A request for /api/generate that does next to nothing."""
    return {
        "model": model,
        "prompt": "\n",
        "raw": True,
        "options": {"num_ctx": num_ctx, "num_predict": 1, "temperature": 0},
        "keep_alive": FOREVER,
        "stream": False,
    }


def _runners() -> list[psutil.Process]:
    """The processes that hold the models: `ollama runner ...`, children of the server."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if "runner" in command[1:3] and Path(command[0]).name.startswith("ollama"):
            found.append(process)
    return found


def _resident_bytes(processes: list[psutil.Process]) -> int | None:
    """None when there is no process, or one is gone or can't be read."""
    sizes = []
    for process in processes:
        try:
            sizes.append(process.memory_info().rss)
        except psutil.Error:
            return None
    # One that has ended and waits for its parent has 0 bytes, without an error.
    return sum(sizes) if sizes and all(sizes) else None
