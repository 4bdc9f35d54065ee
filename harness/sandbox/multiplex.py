"""Many connections over one stream, in frames: what both ends of the relay are made of, the forwarder in the sandbox
and the harness. Copied into the container, so it uses the standard library alone.

A frame has the number of its connection, what it is, the length of its content, and the content. Numbers count from 1;
the sandbox opens, each end says when it has no more to send (END), and either cuts both directions at once (CUT). No
end sends more than WINDOW_BYTES that the other has not passed on (CREDIT), so a connection that nobody reads holds up
itself and no other. What breaks any of this is no frame: the whole stream is given up.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from typing import Any

HEADER = struct.Struct(">IBI")
OPEN, DATA, END, CUT, CREDIT = range(5)
NUMBER = struct.Struct(">I")

PIECE_BYTES = 32 << 10  # the most in one frame
WINDOW_BYTES = 256 << 10
CONNECTIONS = 256
LEFT = 75  # how a forwarder exits whose stream was ended at the other end
READ_BYTES = 64 << 10
HIGH_BYTES = 64 << 10  # waiting to be sent, above which those who have more to send wait
UNREAD_BYTES = 4 << 20  # of frames that the other end does not take


class Malformed(Exception):
    """The other end does not keep to the rules."""


class Wire:
    """The stream underneath: two descriptors that never block, and how to read and write them."""

    def __init__(self, incoming: int, outgoing: int, receive: Callable[[int], bytes], send: Callable[[bytes], int]):
        self._loop = asyncio.get_running_loop()
        self._incoming, self._outgoing = incoming, outgoing
        self._receive, self._send = receive, send
        self._waiting = bytearray()
        self._written = asyncio.Event()
        self._watched = False
        self._broken: OSError | None = None

    @property
    def waiting_bytes(self) -> int:
        return len(self._waiting)

    async def read(self) -> bytes:
        """What has come, as soon as something has; empty at the end."""
        while True:
            try:
                return self._receive(READ_BYTES)
            except BlockingIOError:
                come = asyncio.Event()
                self._loop.add_reader(self._incoming, come.set)
                try:
                    await come.wait()
                finally:
                    self._loop.remove_reader(self._incoming)

    def write(self, data: bytes) -> None:
        """Send at once what goes, the rest when it goes. What breaks is told by `drain` and by the end of `read`."""
        self._waiting += data
        if not self._watched:
            self._flush()

    async def drain(self) -> None:
        """Wait until little is waiting. Raises OSError when nothing goes any more."""
        while len(self._waiting) > HIGH_BYTES and self._broken is None:
            self._written.clear()
            await self._written.wait()
        if self._broken is not None:
            raise self._broken

    def close(self) -> None:
        if self._watched:
            self._loop.remove_writer(self._outgoing)
            self._watched = False

    def _flush(self) -> None:
        try:
            while self._waiting:
                del self._waiting[: self._send(bytes(self._waiting[:READ_BYTES]))]
        except BlockingIOError:
            pass
        except OSError as error:
            self._broken = error
            self._waiting.clear()
        if bool(self._waiting) != self._watched:
            self._watched = not self._watched
            if self._watched:
                self._loop.add_writer(self._outgoing, self._flush)
            else:
                self._loop.remove_writer(self._outgoing)
        self._written.set()


class Multiplex:
    """One end. It opens connections where `opened` is None; else the other end does, and `opened` gets each."""

    def __init__(
        self,
        wire: Wire,
        read: Callable[[], Awaitable[bytes]],
        opened: Callable[[Channel], Awaitable[None]] | None = None,
    ):
        self.wire = wire
        self._read = read
        self._opened = opened
        self._channels: dict[int, Channel] = {}
        self._last = 0
        self._turn = asyncio.Lock()

    def open(self) -> Channel:
        """Raises OSError when as many are open as there may be."""
        if len(self._channels) >= CONNECTIONS:
            raise ConnectionRefusedError(f"{CONNECTIONS} connections are open")
        self._last += 1
        channel = self._channels[self._last] = Channel(self, self._last)
        self.send(self._last, OPEN)
        return channel

    async def run(self) -> None:
        """Take what comes until the stream ends; then every connection is cut. Raises Malformed, OSError."""
        buffer = bytearray()
        try:
            while data := await self._read():
                buffer += data
                begin = 0
                while len(buffer) >= begin + HEADER.size:
                    number, kind, length = HEADER.unpack_from(buffer, begin)
                    if length > PIECE_BYTES:
                        raise Malformed(f"a frame of {length} bytes")
                    end = begin + HEADER.size + length
                    if len(buffer) < end:
                        break
                    await self._take(number, kind, bytes(buffer[begin + HEADER.size : end]))
                    begin = end
                del buffer[:begin]
                if self.wire.waiting_bytes > UNREAD_BYTES:
                    raise Malformed("what is sent to it is not read")
        finally:
            for channel in list(self._channels.values()):
                channel.lose()
            self._channels.clear()

    def send(self, number: int, kind: int, content: bytes = b"") -> None:
        self.wire.write(HEADER.pack(number, kind, len(content)) + content)

    async def send_piece(self, number: int, piece: bytes) -> None:
        """Send data when it is its turn. Raises OSError."""
        async with self._turn:
            await self.wire.drain()
            self.send(number, DATA, piece)

    def forget(self, number: int) -> None:
        self._channels.pop(number, None)

    def knows(self, number: int) -> bool:
        return number in self._channels

    async def _take(self, number: int, kind: int, content: bytes) -> None:
        if kind == OPEN:
            if self._opened is None or content or number != self._last + 1 or len(self._channels) >= CONNECTIONS:
                raise Malformed("a connection is opened that can't be")
            self._last = number
            channel = self._channels[number] = Channel(self, number)
            await self._opened(channel)
        elif kind > CREDIT or not 0 < number <= self._last:
            raise Malformed(f"a frame of kind {kind} for connection {number}")
        elif number in self._channels:  # else it is over here, which the other end did not know yet
            self._channels[number].take(kind, content)


class Channel:
    """One connection, both to read from and to write to as from and to asyncio's streams."""

    def __init__(self, multiplex: Multiplex, number: int) -> None:
        self.cut: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._multiplex = multiplex
        self._number = number
        self._arrived = bytearray()
        self._passed_on = 0  # bytes, of which the other end has not heard
        self._unsent = bytearray()
        self._room = WINDOW_BYTES  # for what may be sent
        self._heard_end = self._said_end = False
        self._readable, self._writable = asyncio.Event(), asyncio.Event()

    async def read(self, limit: int) -> bytes:
        """What has come; empty at the end. Raises ConnectionResetError when it was cut."""
        while not (self._arrived or self._heard_end or self.cut.done()):
            self._readable.clear()
            await self._readable.wait()
        self._raise_if_cut()
        data = bytes(self._arrived[:limit])
        del self._arrived[:limit]
        self._passed_on += len(data)
        if self._passed_on >= WINDOW_BYTES // 2 and not self._heard_end:
            self._multiplex.send(self._number, CREDIT, NUMBER.pack(self._passed_on))
            self._passed_on = 0
        return data

    def write(self, data: bytes) -> None:
        """To be followed by `drain`, which sends it."""
        self._unsent += data

    async def drain(self) -> None:
        """Raises ConnectionResetError when it was cut, OSError when the stream is broken."""
        while self._unsent:
            self._raise_if_cut()
            if not self._room:
                self._writable.clear()
                await self._writable.wait()
                continue
            piece = bytes(self._unsent[: min(self._room, PIECE_BYTES)])
            del self._unsent[: len(piece)]
            self._room -= len(piece)
            await self._multiplex.send_piece(self._number, piece)
        self._raise_if_cut()

    def write_eof(self) -> None:
        if self._said_end or self.cut.done():
            return
        self._said_end = True
        self._multiplex.send(self._number, END)
        if self._heard_end:
            self._multiplex.forget(self._number)

    def abort(self) -> None:
        """Cut both directions. Nothing happens to one that is over."""
        if self._multiplex.knows(self._number):
            self._multiplex.send(self._number, CUT)
            self._multiplex.forget(self._number)
        self.lose()

    def close(self) -> None:
        """For one of which both directions have ended; else it is cut."""
        if not (self._heard_end and self._said_end):
            self.abort()

    def lose(self) -> None:
        if not self.cut.done():
            self.cut.set_result(None)
        self._readable.set()
        self._writable.set()

    def take(self, kind: int, content: bytes) -> None:
        """A frame that came for it. Raises Malformed."""
        if kind == DATA:
            if self._heard_end or not content or len(self._arrived) + self._passed_on + len(content) > WINDOW_BYTES:
                raise Malformed("data that may not be sent")
            self._arrived += content
            self._readable.set()
        elif kind == CREDIT:
            allowed = NUMBER.unpack(content)[0] if len(content) == NUMBER.size else 0
            if not 0 < allowed <= WINDOW_BYTES - self._room:
                raise Malformed("leave to send what was not sent")
            self._room += allowed
            self._writable.set()
        elif content or (kind == END and self._heard_end):
            raise Malformed("an end that is none")
        elif kind == END:
            self._heard_end = True
            self._readable.set()
            if self._said_end:
                self._multiplex.forget(self._number)
        else:
            self._multiplex.forget(self._number)
            self.lose()

    def _raise_if_cut(self) -> None:
        if self.cut.done():
            raise ConnectionResetError("the connection was cut")


class End:
    """One end of a connection that is passed on: what is read from, what is written to, how to cut it."""

    def __init__(self, reader: Any, writer: Any, abort: Callable[[], None], cut: asyncio.Future[None] | None = None):
        self.reader, self.writer, self.abort, self.cut = reader, writer, abort, cut

    @staticmethod
    def of_streams(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> End:
        return End(reader, writer, writer.transport.abort)

    @staticmethod
    def of_channel(channel: Channel) -> End:
        return End(channel, channel, channel.abort, channel.cut)


def as_it_is(data: bytes) -> bytes:
    return data


async def exchange(
    one: End, other: End, there: Callable[[bytes], bytes] = as_it_is, back: Callable[[bytes], bytes] = as_it_is
) -> OSError | None:
    """Pass on in both directions; `there` and `back` say what, of what comes from each. Each direction ends by itself;
    when one breaks, both are cut, so that both ends see it at once. Returns what broke."""
    copies = asyncio.gather(_copy(one.reader, other.writer, there), _copy(other.reader, one.writer, back))
    for end in (one, other):
        if end.cut is not None:  # neither direction need notice, if it waits for the other end
            end.cut.add_done_callback(lambda _: copies.cancel())
    try:
        await copies
    except (OSError, asyncio.CancelledError) as error:
        one.abort()
        other.abort()
        return error if isinstance(error, OSError) else ConnectionResetError("the connection was cut")
    finally:
        one.writer.close()
        other.writer.close()
    return None


async def _copy(source: Any, target: Any, passed_on: Callable[[bytes], bytes]) -> None:
    """Pass on what comes, as it comes, then the end of it."""
    while data := await source.read(READ_BYTES):
        target.write(passed_on(data))
        await target.drain()
    target.write(passed_on(b""))
    await target.drain()
    target.write_eof()
