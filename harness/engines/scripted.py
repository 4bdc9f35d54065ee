"""`scripted/<file>`: plays a list of answers out of a file, faults included. A TEST TOOL, not a model.

It measures nothing: its token counts are counts of words, and its timings are the delays that the file asks
for. It serves to test the harness, frameworks and limits with answers that are known beforehand. The format
of the file is in `harness.engines.scripted_play`. The engine runs a real HTTP server (`scripted_server`) and
talks Ollama's dialect to it over a real socket, so that its faults are what a client meets in the field.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

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
from harness.engines.scripted_play import read_play
from harness.engines.scripted_server import PlayServer
from harness.errors import MachineError

_START_S = 10.0
_CONNECT_S = 5.0


class Scripted:
    """The engine. Every script that exists is a model of it; `script` is the one that it lists.

    With `address` it talks to a server that runs already, else it starts one in a thread. Raises UserError
    for a script that is malformed.
    """

    name = "scripted"

    def __init__(self, script: Path | None = None, address: str | None = None) -> None:
        self._script = script
        if script is not None:
            read_play(script)
        self._given = address
        self._own: _ServerThread | None = None
        self._lock = threading.Lock()
        # verify=False: reading the CA bundle takes 50 ms, and the server speaks plain HTTP.
        self._http = httpx.Client(timeout=_START_S, trust_env=False, verify=False)
        self._clients: dict[asyncio.AbstractEventLoop, httpx.AsyncClient] = {}

    @property
    def address(self) -> str:
        """Where the server listens, `http://127.0.0.1:port`; started when first asked for."""
        if self._given is not None:
            return self._given
        with self._lock:
            if self._own is None:
                self._own = _ServerThread()
            return self._own.address

    def version(self) -> str | None:
        return None

    def list_models(self) -> list[ModelInfo]:
        return [] if self._script is None else [self.describe(str(self._script))]

    def describe(self, model: str) -> ModelInfo:
        play = read_play(Path(model))
        return ModelInfo(
            name=model,
            engine=self.name,
            capabilities=play.capabilities,
            context_tokens=play.context_tokens,
        )

    def pull(self, model: str, progress: Progress) -> ModelInfo:
        return self.describe(model)

    def prepare(self, model: str, num_ctx: int) -> Readiness:
        """Read the file anew and go back to its first answer."""
        info = self.describe(model)
        if info.context_tokens is not None and num_ctx > info.context_tokens:
            raise MachineError(
                f"the script {model} has a window of {info.context_tokens} tokens, {num_ctx} were asked for"
            )
        began = time.monotonic()
        self._call("POST", "/scripted/reset", {"model": model})
        return Readiness(loaded_context_tokens=num_ctx, load_s=0.0, clear_s=time.monotonic() - began)

    def loaded_context_tokens(self, model: str) -> int | None:
        """It takes any."""
        return None

    async def chat(self, request: ChatRequest) -> AsyncIterator[Delta | Finish]:
        """See `Engine.chat`."""
        try:
            async with self._client().stream("POST", f"{self.address}/api/chat", json=_body(request)) as response:
                if response.status_code != 200:
                    raise _refused(response.status_code, await response.aread())
                finish = None
                async for line in response.aiter_lines():
                    event = _event(json.loads(line))
                    if isinstance(event, Finish):
                        finish = event  # told when the response is read to its end: the connection stays usable
                    else:
                        yield event
        except httpx.TimeoutException as error:
            raise EngineError("timeout", f"the scripted server: {error!r}") from error
        except httpx.HTTPError as error:
            raise EngineError("unavailable", f"the scripted server: {error!r}") from error
        except ValueError as error:
            raise EngineError("unavailable", f"the scripted server sent something that isn't JSON: {error}") from error
        if finish is None:
            raise EngineError("unavailable", "the scripted server ended in the middle of an answer")
        yield finish

    def settle(self, deadline_s: float = 5.0) -> None:
        until = time.monotonic() + deadline_s
        while active := self.log()["active"]:
            if time.monotonic() > until:
                raise EngineStuck(f"the scripted server still answers {active} requests after {deadline_s:g} s")
            time.sleep(0.02)

    def restart(self) -> None:
        if self._given is not None:
            raise MachineError(f"the scripted server at {self._given} was not started from here")
        self._stop_server()

    def memory_bytes(self) -> int | None:
        """None: the server is a thread of the harness."""
        return None

    def pids(self) -> tuple[int, ...]:
        """None: the server is a thread of the harness."""
        return ()

    def location(self) -> str:
        return "local"

    def unload(self, model: str) -> None:
        """There is no model."""

    def close(self) -> None:
        for loop, client in self._clients.items():
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(client.aclose(), loop).result(_START_S)
        self._clients.clear()
        self._http.close()
        self._stop_server()

    def log(self) -> dict[str, Any]:
        """What the server was asked since `prepare`; the shape is in `scripted_server`."""
        log: dict[str, Any] = self._call("GET", "/scripted/log")
        return log

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        try:
            response = httpx.request(method, self.address + path, json=body, timeout=_START_S, trust_env=False)
            response.raise_for_status()
        except httpx.HTTPError as error:
            raise MachineError(f"the scripted server at {self.address} does not answer: {error}") from error
        return response.json()

    def _client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            # No read timeout: how long a call may take is the caller's to say.
            timeout = httpx.Timeout(None, connect=_CONNECT_S)
            self._clients[loop] = httpx.AsyncClient(timeout=timeout, trust_env=False, verify=False)
        return self._clients[loop]

    def _stop_server(self) -> None:
        with self._lock:
            if self._own is not None:
                self._own.stop()
                self._own = None


class _ServerThread:
    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scripted", daemon=True)
        self._thread.start()
        self._server = PlayServer()
        self.address = asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result(_START_S)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._server.stop(), self._loop).result(_START_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _body(request: ChatRequest) -> dict[str, Any]:
    options = {
        "num_ctx": request.num_ctx,
        "num_predict": request.num_predict,
        "temperature": request.temperature,
        "seed": request.seed,
        "top_p": request.top_p,
        "stop": list(request.stop),
    }
    return {
        "model": request.model,
        "messages": [dict(message) for message in request.messages],
        "tools": [dict(tool) for tool in request.tools],
        "stream": True,
        "think": request.think,
        "format": request.response_format,
        "truncate": False,
        "shift": False,
        "options": options,
    }


def _event(line: dict[str, Any]) -> Delta | Finish:
    if "error" in line:
        raise EngineError("unavailable", str(line["error"]))
    if not line["done"]:
        message = line["message"]
        calls = tuple(
            {
                "id": call["id"],
                "type": "function",
                "function": {
                    "name": call["function"]["name"],
                    "arguments": _text(call["function"]["arguments"]),
                },
            }
            for call in message.get("tool_calls", ())
        )
        return Delta(text=message["content"], thinking=message.get("thinking", ""), tool_calls=calls)
    return Finish(
        reason=line["scripted"]["reason"],
        input_tokens=line["prompt_eval_count"],
        cached_tokens=line["scripted"]["cached_tokens"],
        thinking_tokens=line["scripted"]["thinking_tokens"],
        output_tokens=line["eval_count"],
        load_s=line["load_duration"] / 1e9,
        prefill_s=line["prompt_eval_duration"] / 1e9,
        decode_s=line["eval_duration"] / 1e9,
    )


def _text(arguments: dict[str, Any] | str) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def _refused(status: int, body: bytes) -> EngineError:
    try:
        message = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        message = body[:200].decode(errors="replace")
    if status == 400 and "exceeds the context length" in message:
        return EngineError("context_overflow", message, status)
    if status == 429:
        return EngineError("rate_limited", message, status)
    return EngineError("bad_request" if status < 500 else "unavailable", message, status)
