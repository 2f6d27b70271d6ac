"""uvicorn's protocol, cheaper and bounded: heads go out with bodies, and no client takes more than its share of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import httptools
import msgspec
from litestar.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from .errors import Failure

if TYPE_CHECKING:
    from .connections import Connections

_EXTENSION = "isotoken.departure"
_HEAD = b"HTTP/1.1 "
_HEADER_MARKS = 4  # ": " and the end of the line


class Departure:
    """Tells who asks when a client's connection is lost."""

    def __init__(self) -> None:
        self._callbacks: set[Callable[[], None]] = set()
        self._has_left = False

    @classmethod
    def of(cls, scope: Scope) -> Departure | None:
        """Return that of a request; None where another server runs the application."""
        extensions: dict[str, Any] = scope.get("extensions") or {}
        return extensions.get(_EXTENSION)

    def call(self, callback: Callable[[], None]) -> None:
        """Call this when the client leaves, soon if it has already left."""
        if self._has_left:
            asyncio.get_running_loop().call_soon(callback)
        self._callbacks.add(callback)

    def forget(self, callback: Callable[[], None]) -> None:
        """Do not call this any more."""
        self._callbacks.discard(callback)

    def happened(self) -> None:
        """The connection is lost."""
        self._has_left = True
        for callback in tuple(self._callbacks):
            callback()


class JoiningTransport:
    """A transport that holds an answer's head back for the body that follows at once; the rest passes."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write data, or hold it for a moment."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(_HEAD):
            self._head = data
            self._loop.call_soon(self._flush)  # should nothing follow
            return
        self._transport.write(data)

    def close(self) -> None:
        """Write what is held, and close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)


class Refused(Exception):
    """A request whose head is not taken: it has been answered."""


class Phase(Enum):
    """What a connection waits for."""

    HEAD = "a request's head"
    BODY = "a request's body"
    NOTHING = "nothing of the client's"


class Connection(HttpToolsProtocol):
    """One client's connection."""

    def __init__(self, connections: Connections, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._all = connections
        self._limits = connections.limits
        self._max_headers = connections.limits.max_headers
        self._phase = Phase.HEAD
        self._now = self.since = self.loop.time()  # of the last bytes; when the phase began
        self._num_bytes = 0  # of this request
        self._is_refused = False

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        self._departure = Departure()
        super().connection_made(cast("asyncio.Transport", JoiningTransport(transport, self.loop)))
        self._all.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It left."""
        self._all.closed(self)
        super().connection_lost(exc)
        self._departure.happened()

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        if self._is_refused:
            return
        self._unset_keepalive_if_required()
        self._now = self.loop.time()
        if self._phase is Phase.NOTHING and self.is_idle:
            self._enter(Phase.HEAD)
        self._num_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # nobody here speaks another protocol: it is answered as it stands
        except httptools.HttpParserError:
            self.refuse(400, "this is no valid HTTP request", "invalid_http")
            return
        if self._phase is Phase.HEAD and self._num_bytes > self._limits.max_header_bytes:
            self.refuse(431, f"more than {self._limits.max_header_bytes} bytes of headers", "headers_too_large")
        elif self._num_bytes > self._all.max_message_bytes:
            self.refuse(413, "the request body is too large", "content_too_large")

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        if self._phase is not Phase.HEAD:  # it came together with the one before
            self._enter(Phase.HEAD)
            self._num_bytes = 0
        extensions = cast("dict[str, Any]", self.scope.setdefault("extensions", {}))
        extensions[_EXTENSION] = self._departure

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or one of the trailers of a body."""
        headers = self.headers
        if len(headers) >= self._max_headers:
            self.refuse(431, f"more than {self._max_headers} headers", "headers_too_large")
            raise Refused
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Take a request on, unless its head is too large."""
        limits = self._limits
        if len(self.url) > limits.max_url_bytes:
            self.refuse(414, f"a URL of more than {limits.max_url_bytes} bytes", "url_too_long")
            raise Refused
        if self._num_bytes > limits.max_header_bytes and self._head_size() > limits.max_header_bytes:
            self.refuse(431, f"more than {limits.max_header_bytes} bytes of headers", "headers_too_large")
            raise Refused
        self._enter(Phase.BODY)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request is here whole."""
        self._enter(Phase.NOTHING)
        self._num_bytes = 0
        super().on_message_complete()

    def check(self, now: float) -> None:
        """End a connection that has waited for its client for too long."""
        waited = now - self.since
        if self._phase is Phase.HEAD and waited > self._limits.head_timeout_s and self.is_idle:
            self.refuse(408, "the request's head did not come in time", "timeout")
        elif self._phase is Phase.BODY and waited > self._limits.body_timeout_s:
            self.refuse(408, "the request's body did not come in time", "timeout")

    def refuse(self, status: int, message: str, code: str) -> None:
        """Answer for the application where nothing of an answer is out, and close."""
        if self._is_refused:
            return
        self._is_refused = True
        self._all.on_refused(code)
        self._unset_keepalive_if_required()
        if self.is_idle or not self.cycle.response_started:
            self.transport.write(_error_answer(status, message, code))
        self.transport.close()

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self.since = self._now

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + _HEADER_MARKS for name, value in self.headers)


def _error_answer(status: int, message: str, code: str) -> bytes:
    body = msgspec.json.encode(Failure(status, message, None, code).openai())
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body
