"""uvicorn's protocol, made cheaper: an answer's head goes out with its body, and nobody need wait for a departure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from litestar.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_EXTENSION = "isotoken.departure"
_HEAD = b"HTTP/1.1 "


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


class Connection(HttpToolsProtocol):
    """One client's connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        self._departure = Departure()
        super().connection_made(cast("asyncio.Transport", JoiningTransport(transport, self.loop)))

    def connection_lost(self, exc: Exception | None) -> None:
        """It left."""
        super().connection_lost(exc)
        self._departure.happened()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        extensions = cast("dict[str, Any]", self.scope.setdefault("extensions", {}))
        extensions[_EXTENSION] = self._departure
