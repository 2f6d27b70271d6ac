"""AsyncEngine: the supervised engine as an event loop sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from ..text import SamplingParams, TextModel
from .limits import Limits
from .types import EngineInfo, EngineStats, GenerationDelta, RequestStats, State

if TYPE_CHECKING:
    from ...plugins.build import EngineConfig


class GenerationStream(AsyncIterator[GenerationDelta]):
    """The deltas of one request. Close it (`aclose`, `async with`, or cancel its reader) to abort what is left."""

    request_id: str
    stats: RequestStats | None  # once it has ended

    async def __aenter__(self) -> GenerationStream:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def __anext__(self) -> GenerationDelta:
        raise NotImplementedError

    async def aclose(self) -> None:
        """Abort what has not ended; the engine frees its blocks within a step. Harmless when repeated."""
        raise NotImplementedError


class AsyncEngine:
    """The engine in a supervised child process, for one event loop."""

    info: EngineInfo
    text: TextModel
    limits: Limits

    @classmethod
    async def start(cls, config: EngineConfig, limits: Limits | None = None) -> AsyncEngine:
        """Spawn the child and wait until it is ready. Raises EngineFailed with the reason when it cannot start."""
        raise NotImplementedError

    @property
    def state(self) -> State:
        """What it is doing now. "ready" and "restarting" accept requests."""
        raise NotImplementedError

    @property
    def stats(self) -> EngineStats:
        """Gauges of the latest step and counters since the start."""
        raise NotImplementedError

    def generate(
        self,
        prompt_ids: list[int],
        params: SamplingParams,
        *,
        request_id: str,
        priority: int = 0,
        deadline_s: float | None = None,
        cache_salt: bytes = b"",
    ) -> GenerationStream:
        """Submit a request at once and return its deltas, the n choices interleaved.

        Raises before anything is submitted: ParameterError, ContextLengthError, Overloaded, NotReady.
        """
        raise NotImplementedError

    async def drain(self, timeout: float) -> None:
        """Take no new requests and wait for those in flight, at most `timeout` seconds."""
        raise NotImplementedError

    async def stop(self) -> None:
        """End the child. Requests in flight fail with EngineFailed."""
        raise NotImplementedError
