"""A client that costs little itself: HTTP/1.1 over kept-open connections, answers read without being parsed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import cast

END_OF_HEAD = b"\r\n\r\n"
LENGTH = b"content-length: "
EVENT = b"data: {"
END_OF_STREAM = b"\r\n0\r\n\r\n"


class Connection(asyncio.Protocol):
    """One connection. A request at a time; whole answers go to a callback, with their status."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._buffer = bytearray()
        self._need = 0  # bytes of the answer that is coming, once its head is there
        self._head = 0
        self._on_answer: Callable[[int, bytes], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self._transport = cast("asyncio.Transport", transport)

    def ask(self, request: bytes, on_answer: Callable[[int, bytes], None]) -> None:
        """Send a whole request; `on_answer(status, body)` gets what comes. 0 stands for a closed connection."""
        self._on_answer = on_answer
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Put an answer together."""
        self._buffer += data
        if not self._need:
            end = self._buffer.find(END_OF_HEAD)
            if end < 0:
                return
            at = self._buffer.index(LENGTH) + len(LENGTH)
            self._head = end + len(END_OF_HEAD)
            self._need = self._head + int(self._buffer[at : self._buffer.index(b"\r", at)])
        if len(self._buffer) >= self._need:
            status, body = int(self._buffer[9:12]), bytes(self._buffer[self._head : self._need])
            self._buffer.clear()
            self._need = 0
            self._answer(status, body)

    def connection_lost(self, error: Exception | None) -> None:
        """The server has closed the connection."""
        self._answer(0, b"")

    def close(self) -> None:
        """Close it."""
        self._on_answer = None
        self._transport.close()

    def _answer(self, status: int, body: bytes) -> None:
        callback, self._on_answer = self._on_answer, None
        if callback is not None:
            callback(status, body)


class Stream(asyncio.Protocol):
    """One streamed answer: when its events came, and everything that came, to be looked at afterwards."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._transport: asyncio.Transport
        self.arrivals: list[tuple[float, int]] = []  # time.perf_counter(), events in that piece
        self.pieces: list[bytes] = []
        self._tail = b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask at once."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Note when what came."""
        num_events = data.count(EVENT)
        if num_events:
            self.arrivals.append((time.perf_counter(), num_events))
            if not self.started.done():
                self.started.set_result(None)
        self.pieces.append(data)
        self._tail = (self._tail + data)[-len(END_OF_STREAM) :]  # the end may come by itself
        if self._tail == END_OF_STREAM:
            self._transport.close()
            self._end()

    def connection_lost(self, error: Exception | None) -> None:
        """It is over."""
        self._end()

    def close(self) -> None:
        """Leave."""
        self._transport.close()

    def _end(self) -> None:
        for future in (self.started, self.ended):
            if not future.done():
                future.set_result(None)

    def body(self) -> bytes:
        """Return the whole body, its chunks put together. Raises ValueError when it is not a complete 200."""
        head, _, rest = b"".join(self.pieces).partition(END_OF_HEAD)
        if not head.startswith(b"HTTP/1.1 200"):
            raise ValueError(f"a stream was answered with {head[:200]!r} {rest[:200]!r}")
        body, at = bytearray(), 0
        while at < len(rest):
            end = rest.index(b"\r\n", at)
            count = int(rest[at:end], 16)
            if not count:
                return bytes(body)
            body += rest[end + 2 : end + 2 + count]
            at = end + 4 + count
        raise ValueError("a stream ended early")


async def connect(host: str, port: int) -> Connection:
    """Open a connection."""
    _, connection = await asyncio.get_running_loop().create_connection(Connection, host, port)
    return connection


async def stream(host: str, port: int, request: bytes) -> Stream:
    """Begin a streamed answer."""
    _, opened = await asyncio.get_running_loop().create_connection(lambda: Stream(request), host, port)
    return opened


async def ask(host: str, port: int, request: bytes, timeout: float = 60.0) -> tuple[int, bytes]:
    """Send one request over a connection of its own and return the answer's status and body."""
    connection = await connect(host, port)
    answered: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
    connection.ask(request, lambda *answer: answered.set_result(answer))
    try:
        return await asyncio.wait_for(answered, timeout)
    finally:
        connection.close()
