"""Leases: how many requests hold a model, so that it goes when the last of them has been answered."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..server.exchange import Exchange


class Leases:
    """Those of one model. Taking and giving back is counting: nothing is awaited."""

    def __init__(self) -> None:
        self.count = 0
        self.last_used = time.monotonic()
        self._idle = asyncio.Event()
        self._idle.set()

    def hold(self, exchange: Exchange) -> None:
        """Hold the model until an exchange ends."""
        self.take()
        exchange.on_end.append(self._end)

    def take(self) -> None:
        """Hold the model until `release`."""
        self.count += 1
        if self.count == 1:
            self._idle.clear()

    def release(self) -> None:
        """Give it back."""
        self.count -= 1
        self.last_used = time.monotonic()
        if not self.count:
            self._idle.set()

    async def idle(self, timeout: float | None) -> bool:
        """Wait until nobody holds it, at most so many seconds (None: for ever); say whether that came to be."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), timeout)
        return not self.count

    def _end(self, _exchange: Exchange) -> None:
        self.release()
