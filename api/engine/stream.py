"""GenerationStream: the deltas of one request, merged while their reader is busy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from .recorder import Recorder
from .types import GenerationDelta, RequestStats


class GenerationStream(AsyncIterator[GenerationDelta]):
    """The deltas of one request. Close it (`aclose`, `async with`, or cancel its reader) to abort what is left.

    What a slow reader has not taken yet is kept as one delta for each choice, so it takes no more memory than the text.
    """

    def __init__(self, request_id: str, num_choices: int, abort: Callable[[], None]) -> None:
        self.request_id = request_id
        self.stats: RequestStats | None = None  # once it has ended
        self.recorder: Recorder | None = None  # knows how it goes meanwhile
        self.on_over: Callable[[], None] | None = None  # called when the engine has nothing more to do for it
        self._loop = asyncio.get_running_loop()
        self._abort = abort
        self._num_open = num_choices
        self._pending: dict[int, GenerationDelta] = {}
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_patient = False  # the reader waits for the end

    async def __aenter__(self) -> GenerationStream:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def __anext__(self) -> GenerationDelta:
        """Return the next delta. Raises EngineFailed when the request failed."""
        while not self._pending:
            if self._error is not None:
                raise self._error
            if not self._num_open:
                raise StopAsyncIteration
            await self._wait()
        return self._pending.pop(next(iter(self._pending)))

    async def whole(self) -> list[GenerationDelta]:
        """Wait for the end of all choices and return each as one delta. Raises EngineFailed when the request failed."""
        self._is_patient = True
        while self._num_open:
            await self._wait()
        if self._error is not None:
            raise self._error
        return list(self._pending.values())

    async def aclose(self) -> None:
        """Abort what has not ended; the engine frees its blocks within a step. Harmless when repeated."""
        self._close()

    def push(self, delta: GenerationDelta) -> None:
        """Add what a choice brought."""
        if delta.finish_reason is not None:
            self._num_open -= 1
            self._look_over()
        earlier = self._pending.get(delta.index)
        if earlier is None:
            self._pending[delta.index] = delta
        else:
            _merge(earlier, delta)
        if not self._is_patient or not self._num_open:
            self._wake()

    def fail(self, error: Exception) -> None:
        """End with an error, after what is pending."""
        self._num_open = 0
        self._error = error
        self._look_over()
        self._wake()

    @property
    def is_open(self) -> bool:
        """Whether anything is still to come."""
        return self._num_open > 0

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        except asyncio.CancelledError:
            self._close()
            raise
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _close(self) -> None:
        self._pending.clear()
        if self._num_open:
            self._num_open = 0
            self._abort()
            self._look_over()
            self._wake()

    def _look_over(self) -> None:
        if not self._num_open and self.on_over is not None:
            self.on_over()
            self.on_over = None

    def __del__(self) -> None:
        """Abort too when a reader dropped it without closing."""
        if self._num_open and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._abort)  # not here: the collector may run in the middle of anything


def _merge(into: GenerationDelta, delta: GenerationDelta) -> None:
    into.text += delta.text
    into.token_ids = into.token_ids + delta.token_ids
    if delta.logprobs is not None:
        into.logprobs = (into.logprobs or []) + delta.logprobs
    into.finish_reason, into.stop_reason = delta.finish_reason, delta.stop_reason
    into.prompt_logprobs = into.prompt_logprobs or delta.prompt_logprobs
    into.num_cached_tokens = max(into.num_cached_tokens, delta.num_cached_tokens)
