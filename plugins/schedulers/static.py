"""StaticScheduler: fixed batches, the next of which starts only when the whole batch before it is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice

from ...core.interfaces import KVCache
from ...core.scheduler import ContinuousScheduler, SchedulerConfig
from ...core.types import Request


class StaticScheduler(ContinuousScheduler):
    """Continuous batching without joining: rows of requests that ended stay empty until the slowest one is done.

    A batch is the first max_num_seqs requests that wait when the one before it is done. One that was preempted belongs
    to its batch and may come back.
    """

    def __init__(
        self, kv_cache: KVCache, config: SchedulerConfig, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(kv_cache, config, clock=clock)
        self._batch: set[int] = set()  # arrivals of its members

    def _next_waiting(self, num_passed: int) -> Request | None:
        members = (request for request in self._waiting if request.arrival in self._batch)
        member = next(islice(members, num_passed, None), None)
        if member is None and self._waiting and not self._running:
            self._batch = {request.arrival for request in self._waiting[: self._config.max_num_seqs]}
            return self._waiting[0]
        return member
