"""Asking an engine, as the gateway does."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from harness.engines.base import ChatRequest, Delta, Engine, Finish

SMOLLM2 = "smollm2:135m"


def question(text: str, **changes: Any) -> ChatRequest:
    given: dict[str, Any] = {
        "model": SMOLLM2,
        "messages": [{"role": "user", "content": text}],
        "num_ctx": 2048,
        "num_predict": 8,
        "temperature": 0.0,
        "seed": 7,
    }
    return ChatRequest(**{**given, **changes})


async def answer(engine: Engine, request: ChatRequest) -> tuple[str, list[Any], Finish]:
    """Text, tool calls and the end of one answer."""
    text, calls, finish = "", [], None
    async with contextlib.aclosing(engine.chat(request)) as stream:  # type: ignore[type-var]
        async for piece in stream:
            if isinstance(piece, Delta):
                text += piece.text
                calls += piece.tool_calls
            else:
                finish = piece
    assert finish is not None
    return text, calls, finish


def ask(engine: Engine, text: str, **changes: Any) -> tuple[str, list[Any], Finish]:
    return asyncio.run(answer(engine, question(text, **changes)))


async def leave_early(engine: Engine, request: ChatRequest, deltas: int) -> None:
    """A client that goes away in the middle of the answer."""
    async with contextlib.aclosing(engine.chat(request)) as stream:  # type: ignore[type-var]
        seen = 0
        async for _ in stream:
            seen += 1
            if seen == deltas:
                return
    raise AssertionError("the answer ended before the client could leave")
