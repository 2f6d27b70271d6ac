"""The connections of a server: how many, how large, how slow. What goes beyond is answered and closed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from ..engine.limits import Limits
from .connection import Connection

_OTHER_FILES = 256  # that the process has open besides its connections


class Connections:
    """The connections of one server: makes them, and ends those that take up too much of it, or too long."""

    def __init__(self, limits: Limits, on_refused: Callable[[str], None]) -> None:
        self.limits = limits
        self.max_connections = min(limits.max_connections, allow_files(limits.max_connections))
        self.max_message_bytes = 2 * limits.max_body_bytes + 2**20  # on the wire: what surrounds a body counts too
        self.on_refused = on_refused  # called with the reason
        self._open: set[Connection] = set()
        self._sweep_soon: asyncio.TimerHandle | None = None

    def __call__(self, **uvicorns: Any) -> Connection:
        """Make the protocol of one connection."""
        return Connection(self, **uvicorns)

    def opened(self, connection: Connection) -> None:
        """Count one in; the one that has been doing nothing for longest goes where there are too many."""
        if len(self._open) >= self.max_connections:
            idle = [each for each in self._open if each.is_idle]
            if not idle:
                connection.refuse(503, "too many connections", "too_many_connections")
                return
            min(idle, key=lambda each: each.since).refuse(
                408, "another connection needed the room", "too_many_connections"
            )
        self._open.add(connection)
        self._plan_sweep(connection.loop)

    def closed(self, connection: Connection) -> None:
        """Count one out."""
        self._open.discard(connection)

    def _plan_sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._sweep_soon is None:
            interval = min(1.0, self.limits.head_timeout_s / 4, self.limits.body_timeout_s / 4)
            self._sweep_soon = loop.call_later(interval, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """End what has waited too long: one timer for all costs less than one for each request."""
        self._sweep_soon = None
        now = loop.time()
        for connection in tuple(self._open):
            connection.check(now)
        if self._open:
            self._plan_sweep(loop)


def allow_files(wanted: int) -> int:
    """Raise the process's limit of open files to what so many connections need; return how many it allows."""
    if sys.platform == "win32":
        return wanted
    import resource  # noqa: PLC0415  (not on Windows)

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else max(1, soft - _OTHER_FILES)
