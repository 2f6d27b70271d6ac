"""What surrounds every answer: an id that comes back, how long it took, and a line in the metrics."""

from __future__ import annotations

import time

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from .exchange import Exchange
from .metrics import Metrics
from .stages import Stages


class Observer:
    """Wraps an ASGI app from outside, so that it also sees what no route matches."""

    def __init__(self, app: ASGIApp, metrics: Metrics, stages: Stages) -> None:
        self._app = app
        self._metrics = metrics
        self._stages = stages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, receive)
        state = scope.setdefault("state", {})
        state["exchange"] = exchange
        telemetry = self._stages.telemetry
        if telemetry is not None:
            telemetry.begin(exchange)

        async def send_observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                state["answered"] = True
                if telemetry is not None:
                    telemetry.head(exchange)
                milliseconds = (time.monotonic() - exchange.started) * 1000
                headers = message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", exchange.id.encode()),
                    (b"openai-processing-ms", b"%d" % milliseconds),
                ]
                if exchange.headers:
                    headers += [(name.encode(), value.encode()) for name, value in exchange.headers.items()]
            await send(message)

        self._metrics.num_http_in_flight += 1
        try:
            await self._app(scope, receive, send_observed)
        finally:
            self._metrics.num_http_in_flight -= 1
            self._metrics.answered(exchange, time.monotonic() - exchange.started)
            exchange.end()
            if telemetry is not None:
                telemetry.end(exchange)
