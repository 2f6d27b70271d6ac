"""Notices that a client has left while its request is still being worked on."""

from __future__ import annotations

import asyncio
from types import TracebackType

from litestar.types import Receive, Scope

from .connection import Departure
from .errors import ClientGone


class UntilDisconnect:
    """Runs its body until it ends or the client disconnects, which cancels it and raises ClientGone.

    The request's body must have been read: what `receive` has to say after that is that the client left.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._departure = Departure.of(scope)
        self._receive = receive
        self._gone = False
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        if self._departure is not None:
            self._departure.call(self._leave)
        else:  # another server than ours: ask it
            self._watcher = asyncio.create_task(self._watch())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._departure is not None:
            self._departure.forget(self._leave)
        if self._watcher is not None:
            self._watcher.cancel()
        if kind is asyncio.CancelledError and self._gone and self._task.uncancel() == 0:
            raise ClientGone from None

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        if not self._gone:
            self._gone = True
            self._task.cancel()
