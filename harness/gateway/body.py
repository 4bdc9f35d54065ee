"""Requests' bodies, and the memory that those of one run may take together: it is the harness's, not the sandbox's."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.types import Message, Receive

from harness.gateway.wire import Refusal

MAX_BODY_BYTES = 16 << 20

MAX_UNDER_WAY_BYTES = 2 * MAX_BODY_BYTES
"""Of all requests of a run that are being read, or wait for their answer: an agent may open many connections."""


@dataclass
class UnderWay:
    """What a run's bodies come to at the moment."""

    size_bytes: int = 0


class Body:
    """One request's body, as far as there is room for it. Counts as under way until it is freed."""

    def __init__(self, under_way: UnderWay) -> None:
        self.size_bytes = 0
        self._under_way = under_way
        self._held = bytearray()
        self._counted = 0
        self._refusal: Refusal | None = None

    async def read(self, receive: Receive) -> bool:
        """To its end, whatever its size. False when the client left before that."""
        while True:
            message: Message = await receive()
            if message["type"] == "http.disconnect":
                return False
            data = message.get("body", b"")
            self.size_bytes += len(data)
            if self._refusal is None:
                self._keep(data)
            if not message.get("more_body", False):
                return True

    def whole(self) -> bytearray:
        """What was read, given away: what is made of it takes its place. Raises Refusal for one that was too large."""
        if self._refusal is not None:
            raise self._refusal
        held, self._held = self._held, bytearray()
        return held

    def free(self) -> None:
        self._held.clear()
        self._under_way.size_bytes -= self._counted
        self._counted = 0

    def _keep(self, data: bytes) -> None:
        if self.size_bytes > MAX_BODY_BYTES:
            self._refusal = Refusal(413, "too_large", f"the request is larger than {MAX_BODY_BYTES} bytes")
        elif self._under_way.size_bytes + len(data) > MAX_UNDER_WAY_BYTES:
            together = f"the run's requests under way are together larger than {MAX_UNDER_WAY_BYTES} bytes"
            self._refusal = Refusal(413, "too_large", together)
        if self._refusal is not None:
            self.free()
            return
        self._held += data
        self._counted += len(data)
        self._under_way.size_bytes += len(data)
