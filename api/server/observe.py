"""What surrounds every answer: an id that comes back, how long it took, and a line in the metrics."""

from __future__ import annotations

import time

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import Metrics
from .requests import header, new_request_id


class Observer:
    """Wraps an ASGI app from outside, so that it also sees what no route matches."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        state = scope.setdefault("state", {})
        state["request_id"] = new_request_id(header(scope, b"x-request-id"))
        status = 499  # nothing was sent: the client left

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                state["answered"] = True
                milliseconds = (time.monotonic() - started) * 1000
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", state["request_id"].encode()),
                    (b"openai-processing-ms", b"%d" % milliseconds),
                ]
            await send(message)

        self._metrics.num_http_in_flight += 1
        try:
            await self._app(scope, receive, send_observed)
        finally:
            self._metrics.num_http_in_flight -= 1
            route = scope.get("path_template") or "unmatched"
            self._metrics.answered(route, status, time.monotonic() - started)
            if "rejection" in state:
                self._metrics.rejected(state["rejection"])
