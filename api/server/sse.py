"""Server-sent events as ready-made bytes, and the ASGI response that streams them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

import msgspec
from litestar.types import Receive, Scope, Send

from .disconnect import UntilDisconnect
from .errors import ClientGone

DONE = b"data: [DONE]\n\n"
HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)

encode = msgspec.json.encode


def event(data: object) -> bytes:
    """Frame one event."""
    return b"data: " + encode(data) + b"\n\n"


class EventStream:
    """An ASGI response that sends events as they come.

    The status line waits for the first event: what fails before it is answered with a proper status. What fails after
    it becomes an error event. The generator is closed whatever happens, which aborts what is still running.
    """

    def __init__(
        self,
        events: AsyncGenerator[bytes],
        *,
        error_event: Callable[[Exception], bytes],
        headers: tuple[tuple[bytes, bytes], ...] = (),
        slow_reader_timeout: float = 30.0,
    ) -> None:
        self._events = events
        self._error_event = error_event
        self._headers = headers
        self._timeout = slow_reader_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the events end, the client leaves or reads nothing for too long."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._events.aclose)
            with contextlib.suppress(ClientGone), UntilDisconnect(scope, receive):
                await self._stream(send)

    async def _stream(self, send: Send) -> None:
        first = await anext(self._events, b"")
        headers = [*HEADERS, *self._headers]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        patience = Patience(self._timeout)
        try:
            with patience:
                await send({"type": "http.response.body", "body": first, "more_body": True})
            async for chunk in self._events:
                with patience:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except ClientGone:
            raise
        except Exception as error:  # the status is out: an event is all that is left
            await send({"type": "http.response.body", "body": self._error_event(error), "more_body": True})
        finally:
            patience.close()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Patience:
    """Gives up on a client that takes nothing for too long. One timer a stream, none a write."""

    def __init__(self, timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout
        self._sending_since = 0.0
        self._gave_up = False
        self._task = asyncio.current_task()
        self._timer = self._loop.call_later(timeout, self._look)

    def __enter__(self) -> None:
        """A write begins."""
        self._sending_since = self._loop.time()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """A write ended. Raises ClientGone when it was this timer that ended it."""
        self._sending_since = 0.0
        if self._gave_up and kind is asyncio.CancelledError and self._task is not None:
            self._task.uncancel()
            raise ClientGone

    def close(self) -> None:
        """Stop the timer."""
        self._timer.cancel()

    def _look(self) -> None:
        waited = self._loop.time() - self._sending_since if self._sending_since else 0.0
        if waited >= self._timeout and self._task is not None:
            self._gave_up = True
            self._task.cancel()
        else:
            self._timer = self._loop.call_later(self._timeout - waited, self._look)
