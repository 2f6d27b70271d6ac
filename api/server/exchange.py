"""Exchange: one HTTP request on its way through the server, with what its stages leave for each other."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from litestar.types import Receive, Scope

from ..gateway.principal import ANONYMOUS, Principal
from .requests import header, new_request_id

if TYPE_CHECKING:
    from ..engine import RequestStats
    from ..engine.recorder import Recorder
    from ..telemetry.tracing import Trace
    from .served import ServedModel

log = logging.getLogger("isotoken.server")


class Exchange:
    """Made by the Observer when a request arrives; ends when its answer is out, or its client has left."""

    __slots__ = (
        "arm",
        "asked",
        "headers",
        "id",
        "model",
        "on_end",
        "principal",
        "receive",
        "recorders",
        "scope",
        "started",
        "stats",
        "status",
        "timings",
        "trace",
    )

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.receive = receive
        self.started = time.monotonic()
        self.id = new_request_id(header(scope, b"x-request-id"))
        self.principal: Principal = ANONYMOUS
        self.model: ServedModel | None = None  # that answers, once it is chosen
        self.asked = ""  # the model's name that the client meant, where another one may answer
        self.arm = ""  # of an experiment that chose it
        self.status = 499  # of the answer; nothing was sent yet: should the client leave now
        self.headers: dict[str, str] = {}  # that the answer's head gets besides its own
        self.timings: dict[str, float] = {}  # seconds that a stage took, by its name
        self.stats: list[RequestStats] = []  # of each prompt that was handed to an engine, as it ends
        self.recorders: list[Recorder] = []  # of the prompts that are under way: what is known so far
        self.trace: Trace | None = None  # where it is traced
        self.on_end: list[Callable[[Exchange], None]] = []

    @staticmethod
    def of(scope: Scope) -> Exchange:
        """Return that of an ASGI scope."""
        exchange: Exchange = scope["state"]["exchange"]
        return exchange

    @property
    def address(self) -> str:
        """The client's IP address; empty where the server was not told."""
        client = self.scope.get("client")
        return client[0] if client else ""

    @property
    def route(self) -> str:
        """The route's path, as declared, once it is known."""
        return self.scope.get("path_template") or "unmatched"

    def end(self) -> None:
        """Tell whoever wants to know. One that fails keeps nobody else from hearing of it."""
        for listener in self.on_end:
            try:
                listener(self)
            except Exception:
                log.exception("what follows a request failed")
        self.on_end = []
