"""The embedded engine: llama.cpp's server out of the xllamacpp wheel, in a process of its own."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import httpx
import psutil

from harness.engines import gguf, weights
from harness.engines.base import (
    ChatRequest,
    Delta,
    EngineError,
    EngineStuck,
    Finish,
    ModelInfo,
    Progress,
    Readiness,
)
from harness.engines.llamacpp_shapes import body, finish, refusal
from harness.engines.processes import IDLE_CORES, busy_cores
from harness.engines.streaming import CallPieces, LoopClient, beginning, lines, transport_errors
from harness.errors import MachineError, UserError

# llama.cpp's words for an answer that begins like a tool call and is none, or was cut within one. The answer is
# the model's, so it ends there instead of failing.
_NO_TOOL_CALL = "does not match the expected"

_START_LIMIT_S = 600.0  # a model of many gigabytes on a slow disk


@dataclass
class _Server:
    """A running child process, its address and its log (a file without a name: nothing stays behind)."""

    process: subprocess.Popen[bytes]
    log: IO[bytes]
    url: str
    path: Path
    num_ctx: int

    def alive(self) -> bool:
        return self.process.poll() is None

    def busy(self) -> bool:
        try:
            return busy_cores([psutil.Process(self.process.pid)]) > IDLE_CORES
        except psutil.NoSuchProcess:
            return False

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            if stream is not None:
                stream.close()


class LlamaCpp:
    """Engine `llamacpp`. A model is a name from `weights.BUILTIN` or a path that ends in .gguf."""

    name = "llamacpp"

    def __init__(self) -> None:
        if importlib.util.find_spec("xllamacpp") is None:
            raise UserError(
                "the engine llamacpp needs the package xllamacpp; "
                "install it with `pip install 'agent-energy-harness[llamacpp]'`"
            )
        self._server: _Server | None = None
        self._cold: tuple[Path, int] | None = None  # unloaded: what the next call has to load
        # llama.cpp's server says keep-alive and closes the connection after a streamed answer all the same:
        # a kept connection would break off the next call.
        self._streams = LoopClient(keep=0)
        self._control = httpx.Client(timeout=10.0, limits=httpx.Limits(max_keepalive_connections=0), trust_env=False)
        self._digests: dict[Path, str] = {}

    @property
    def url(self) -> str | None:
        """Where the server listens (its OpenAI routes are below /v1); another port after each start."""
        return self._server.url if self._server else None

    def version(self) -> str | None:
        return f"xllamacpp {importlib.metadata.version('xllamacpp')}"

    def list_models(self) -> list[ModelInfo]:
        return [self.describe(name) for name in weights.BUILTIN if weights.is_fetched(name)]

    def describe(self, model: str) -> ModelInfo:
        path = weights.locate(model)
        header = gguf.read(path)
        return ModelInfo(
            name=model,
            engine=self.name,
            capabilities=gguf.template_capabilities(header.chat_template),
            context_tokens=header.context_tokens,
            size_bytes=path.stat().st_size,
            digest=f"sha256:{self._digest(model, path)}",
            parameters=header.parameters,
            quantization=header.quantization,
        )

    def _digest(self, model: str, path: Path) -> str:
        if model in weights.BUILTIN:
            return weights.BUILTIN[model].sha256
        if path not in self._digests:
            with path.open("rb") as file:
                self._digests[path] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._digests[path]

    def pull(self, model: str, progress: Progress) -> ModelInfo:
        if not model.endswith(".gguf"):
            weights.fetch(model, progress)
        return self.describe(model)

    def prepare(self, model: str, num_ctx: int) -> Readiness:
        """Raises also UserError for a window that the model was not trained for."""
        path = weights.locate(model)
        header = gguf.read(path)
        if header.context_tokens is not None and num_ctx > header.context_tokens:
            # llama.cpp would cap the window in silence.
            raise UserError(
                f"the window {num_ctx} is larger than the {header.context_tokens} tokens that "
                f"llamacpp/{model} has; give --num-ctx {header.context_tokens} or less"
            )
        load_s = 0.0
        server = self._server
        if server is None or not server.alive() or (server.path, server.num_ctx) != (path, num_ctx):
            self._stop()
            began = time.monotonic()
            server = self._server = _start(path, num_ctx)
            self._cold = None
            load_s = time.monotonic() - began
        else:
            self.settle()
        props = self._get(server, "/props")
        loaded = int(props["default_generation_settings"]["n_ctx"])
        if loaded != num_ctx:
            raise MachineError(
                f"llama.cpp loaded {model} with a window of {loaded} tokens where {num_ctx} were asked for"
            )
        began = time.monotonic()
        self._erase(server)
        clear_s = time.monotonic() - began
        return Readiness(loaded, load_s, clear_s, notes=_notes(header, props))

    def loaded_context_tokens(self, model: str) -> int | None:
        server = self._server
        if server is None or server.path != weights.locate(model):
            return None
        return int(self._get(server, "/props")["default_generation_settings"]["n_ctx"])

    async def chat(self, request: ChatRequest) -> AsyncIterator[Delta | Finish]:
        load_s = await self._load_if_cold()
        server = self._server
        if server is None:
            raise EngineError("unavailable", "llama.cpp is not running: the model was never prepared")
        calls = CallPieces()
        reason: str | None = None
        thought: list[str] = []
        timings: Mapping[str, Any] = {}
        client = self._streams.get()
        with transport_errors("llama.cpp", self._why):
            url = f"{server.url}/v1/chat/completions"
            async with client.stream("POST", url, json=body(request)) as response:
                if response.status_code != 200:
                    refused = refusal(await beginning(response), response.status_code)
                    if _NO_TOOL_CALL not in str(refused):
                        raise refused
                    yield Finish("stop")
                    return
                async for line in lines(response):
                    # A colon begins the comment that keeps a connection open.
                    if line[0] == ":" or line == "data: [DONE]":
                        continue
                    event = line.removeprefix("data: ")
                    chunk = json.loads(event)
                    if "error" in chunk:
                        refused = refusal(event.encode(), None)
                        if _NO_TOOL_CALL not in str(refused):
                            raise refused
                        yield finish("stop", False, timings, None, whole=False)
                        return
                    timings = chunk.get("timings", timings)
                    if chunk["choices"]:
                        choice = chunk["choices"][0]
                        reason = choice["finish_reason"] or reason
                        delta = choice["delta"]
                        text = delta.get("content") or ""
                        thinking = delta.get("reasoning_content") or ""
                        if thinking:
                            thought.append(thinking)
                        if text or thinking:
                            yield Delta(text, thinking)
                        for piece in delta.get("tool_calls", ()):
                            function = piece.get("function") or {}
                            # Its own ids are drawn at random and would differ between repetitions.
                            calls.add(
                                piece.get("index", 0), function.get("name") or "", function.get("arguments") or ""
                            )
        if reason is None:
            raise EngineError("unavailable", f"llama.cpp broke off in the middle of an answer{self._why()}")
        if whole := calls.whole(request.seed, cut=reason == "length"):
            yield Delta(tool_calls=whole)
        with transport_errors("llama.cpp", self._why):
            thinking_tokens = await _count(client, server.url, "".join(thought)) if thought else 0
        yield replace(finish(reason, bool(whole), timings, thinking_tokens, whole=True), load_s=load_s)

    async def _load_if_cold(self) -> float:
        """Seconds that loading took: 0.0 for a model in memory."""
        if self._server is not None or self._cold is None:
            return 0.0
        began = time.monotonic()
        cold, self._cold = self._cold, None
        try:
            self._server = await asyncio.to_thread(_start, *cold)
        except MachineError as error:
            raise EngineError("unavailable", str(error)) from error
        return time.monotonic() - began

    def settle(self, deadline_s: float = 5.0) -> None:
        """llama.cpp looks after its client every second during a prefill, and starts that second anew at each
        answer to anybody: polling it would keep alive what should end. So its CPU time is watched instead.
        """
        server = self._server
        if server is None:
            return
        end = time.monotonic() + deadline_s
        while self._is_generating(server, deadline_s):
            while server.busy() and time.monotonic() < end:
                pass  # each look takes a tenth of a second
            if time.monotonic() >= end:
                raise EngineStuck(f"llama.cpp is still generating {deadline_s:g} s after its client left")

    def _is_generating(self, server: _Server, limit_s: float) -> bool:
        try:
            slots = self._control.get(f"{server.url}/slots", timeout=limit_s).raise_for_status().json()
        except httpx.TimeoutException:
            return True  # it answers between two batches
        except httpx.HTTPError as error:
            raise EngineStuck(f"llama.cpp does not answer: {error}{self._why()}") from error
        return any(slot["is_processing"] for slot in slots)

    def restart(self) -> None:
        server = self._server
        if server is None:
            return
        self._stop()
        self._server = _start(server.path, server.num_ctx)

    def memory_bytes(self) -> int | None:
        server = self._server
        if server is None:
            return None
        try:
            return int(psutil.Process(server.process.pid).memory_info().rss)
        except psutil.Error:
            return None

    def pids(self) -> tuple[int, ...]:
        return (self._server.process.pid,) if self._server else ()

    def location(self) -> str:
        return "local"

    def unload(self, model: str) -> None:
        """The process ends: it has one model, and starting it is what loading costs."""
        if self._server is None or self._server.path != weights.locate(model):
            return
        self._cold = (self._server.path, self._server.num_ctx)
        self._stop()

    def close(self) -> None:
        self._stop()
        self._control.close()

    def _stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    def _get(self, server: _Server, path: str) -> Any:
        try:
            return self._control.get(server.url + path).raise_for_status().json()
        except httpx.HTTPError as error:
            raise MachineError(f"llama.cpp does not answer {path}: {error}{self._why()}") from error

    def _erase(self, server: _Server) -> None:
        """An empty slot, as after loading: no later prompt finds a beginning to share."""
        try:
            self._control.post(f"{server.url}/slots/0?action=erase").raise_for_status()
        except httpx.HTTPError as error:
            raise MachineError(f"llama.cpp can't clear its prompt cache: {error}{self._why()}") from error

    def _why(self) -> str:
        """A tail for an error sentence: how the server ended and the last lines of its log, if it did end."""
        server = self._server
        if server is None or server.alive():
            return ""
        return f"; its server ended with code {server.process.returncode}, last words: {_tail(server.log)}"


def _start(path: Path, num_ctx: int) -> _Server:
    """Raises MachineError with the end of the log when the server does not come up."""
    command = [sys.executable, "-m", "harness.engines.llamacpp_server", str(path), "--num-ctx", str(num_ctx)]
    log = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the server)
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        # Ctrl-C in the terminal is for the sweep, which still has calls to end.
        start_new_session=True,
    )
    server = _Server(process, log, "", path, num_ctx)
    try:
        assert process.stdout is not None
        answered, _, _ = select.select([process.stdout], [], [], _START_LIMIT_S)
        line = process.stdout.readline() if answered else b""
        if not line:
            ended = process.poll() if answered else None
            what = f"ended with code {ended}" if answered else f"was not ready after {_START_LIMIT_S:g} s"
            raise MachineError(
                f"llama.cpp can't load {path} with a window of {num_ctx} tokens: its server {what}; "
                f"last words: {_tail(log)}"
            )
        server.url = json.loads(line)["url"]
    except BaseException:
        server.stop()
        raise
    return server


def _tail(log: IO[bytes], size_bytes: int = 1500) -> str:
    """Read at an offset of its own: the file position is shared with the process that writes."""
    end = os.fstat(log.fileno()).st_size
    text = os.pread(log.fileno(), size_bytes, max(0, end - size_bytes)).decode("utf-8", "replace")
    return " | ".join(text.strip().splitlines()[-6:]) or "(nothing was logged)"


def _notes(header: gguf.Header, props: Mapping[str, Any]) -> tuple[str, ...]:
    notes = []
    if header.chat_template is None:
        notes.append("the model file has no chat template: llama.cpp uses ChatML")
    probed = "tools" in gguf.template_capabilities(header.chat_template)
    if probed != bool(props["chat_template_caps"]["supports_tools"]):
        notes.append(f"tools: the template probe says {probed}, llama.cpp the opposite")
    return tuple(notes)


async def _count(client: httpx.AsyncClient, url: str, text: str) -> int:
    """The thinking's share of the output: the server counts both together, its tokenizer can tell."""
    response = await client.post(f"{url}/tokenize", json={"content": text})
    return len(response.raise_for_status().json()["tokens"])
