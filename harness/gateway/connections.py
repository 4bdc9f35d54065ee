"""What an agent may do to a door below HTTP: hold connections, and send what is no request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 256
"""Of one door at a time. An agent must not use up the harness's file descriptors: what comes beyond it is closed."""

BACKLOG = 64  # connections that are accepted before the first of them can be closed


def protocol(malformed: Callable[[], None]) -> type[asyncio.Protocol]:
    """Uvicorn's protocol for one door. `malformed` is called for each request that is not HTTP."""

    class Connection(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > MAX_CONNECTIONS:
                self.transport.abort()

        def data_received(self, data: bytes) -> None:
            if not self.transport.is_closing():
                super().data_received(data)

        def send_400_response(self, msg: str) -> None:
            malformed()
            if self.cycle is not None and not self.cycle.response_complete:  # nobody reads on, and nobody is answered
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                super().send_400_response(msg)
            else:
                self.transport.abort()

        def shutdown(self) -> None:
            if self.cycle is not None and self.cycle.more_body:  # half a request: uvicorn would answer it with 500
                self.transport.abort()
            else:
                super().shutdown()

    return Connection
