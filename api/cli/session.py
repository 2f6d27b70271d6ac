"""A started engine for the commands that talk to one model: an event loop in a thread, the keyboard in the main one."""

from __future__ import annotations

import asyncio
import queue
import threading
import uuid
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from ...plugins.build import EngineConfig
from ..engine import AsyncEngine, GenerationDelta, Limits
from ..sampling_params import SamplingParams

_UNBOUNDED = Limits(max_waiting_requests=2**31, max_waiting_prompt_tokens=2**31, request_timeout_s=None)


class Session:
    """An engine of one's own. Blocking calls end with KeyboardInterrupt when Ctrl-C is pressed."""

    def __init__(self, config: EngineConfig) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="isotoken-session", daemon=True)
        self._thread.start()
        try:
            self.engine = self._wait(AsyncEngine.start(config, _UNBOUNDED))
        except BaseException:
            self._end_loop()
            raise

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._wait(self.engine.stop())
        self._end_loop()

    def submit(self, prompt_ids: list[int], params: SamplingParams) -> Answer:
        """Queue a request at once; its deltas come from iterating over the result."""
        return Answer(self._loop, self.engine, prompt_ids, params)

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        if not self._thread.is_alive():
            self._loop.close()


class Answer:
    """The deltas of one request, in the order of their arrival. Closing it (`close`) aborts what is left."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, engine: AsyncEngine, prompt_ids: list[int], params: SamplingParams
    ) -> None:
        self._arrived: queue.SimpleQueue[GenerationDelta | BaseException | None] = queue.SimpleQueue()
        self._future: Future[None] = asyncio.run_coroutine_threadsafe(self._read(engine, prompt_ids, params), loop)

    async def _read(self, engine: AsyncEngine, prompt_ids: list[int], params: SamplingParams) -> None:
        try:
            async with engine.generate(prompt_ids, params, request_id=uuid.uuid4().hex) as stream:
                async for delta in stream:
                    self._arrived.put(delta)
        except BaseException as error:  # handed to the thread that reads
            self._arrived.put(error)
            raise
        self._arrived.put(None)

    def __iter__(self) -> Iterator[GenerationDelta]:
        while (item := self._arrived.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """Abort the request if it has not ended."""
        self._future.cancel()
