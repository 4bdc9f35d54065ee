"""What a runner prints, kept within bounds: a traceback stands at the end, and the end is never what is lost."""

from __future__ import annotations

from typing import IO

HEAD_BYTES = 12 << 20
TAIL_BYTES = 4 << 20


class Output:
    """What a runner prints: its beginning as it comes, and, of more than fits, its end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._room = HEAD_BYTES
        self._tail = bytearray()
        self.left_out_bytes = 0

    def add(self, chunk: bytes) -> None:
        self._file.write(chunk[: self._room])
        rest = chunk[self._room :]
        self._room -= min(self._room, len(chunk))
        self._tail += rest
        if (excess := len(self._tail) - TAIL_BYTES) > TAIL_BYTES:  # cut now and then, not at every chunk
            self.left_out_bytes += excess
            del self._tail[:excess]

    def close(self) -> None:
        if (excess := len(self._tail) - TAIL_BYTES) > 0:
            self.left_out_bytes += excess
            del self._tail[:excess]
        if self.left_out_bytes:
            self._file.write(f"\n[{self.left_out_bytes} bytes are left out]\n".encode())
        self._file.write(self._tail)
        self._file.close()
