"""An answer that is JSON already, as an ASGI application."""

from __future__ import annotations

from litestar.types import Receive, Scope, Send

_TYPE = (b"content-type", b"application/json")


class JsonAnswer:
    """Status 200 and a body."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        headers = [_TYPE, (b"content-length", b"%d" % len(self._body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self._body, "more_body": False})
