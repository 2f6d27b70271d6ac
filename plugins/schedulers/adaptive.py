"""AdaptiveScheduler: short steps for smooth streams while few prompts wait, long ones for throughput when many do."""

from __future__ import annotations

import time
from collections.abc import Callable

from ...core.interfaces import KVCache
from ...core.scheduler import ContinuousScheduler, SchedulerConfig

LEAST_CHUNK = 128
"""Prompt tokens in a step at least: fewer would cost a step as much time, for the weights are read in each."""

_PARTS = 16  # max_num_batched_tokens holds as many chunks, unless they would be too small


class AdaptiveScheduler(ContinuousScheduler):
    """Continuous batching that computes a chunk of prompt tokens in a step for each request that lacks its first token.

    A running stream's next token takes as long as the step, and a step as long as its prompt tokens take. With one
    prompt to compute a step is short; with every further one it may be longer by a chunk, up to max_num_batched_tokens,
    where prompts are computed as fast as they can be. Where no stream runs none is held up, and nothing is bounded.
    `chunk` is the number of tokens of one; 0: a sixteenth of max_num_batched_tokens and at least LEAST_CHUNK.
    """

    def __init__(
        self,
        kv_cache: KVCache,
        config: SchedulerConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        chunk: int = 0,
    ) -> None:
        super().__init__(kv_cache, config, clock=clock)
        self._chunk = chunk or max(LEAST_CHUNK, config.max_num_batched_tokens // _PARTS)

    def _budget(self) -> int:
        most = self._config.max_num_batched_tokens
        drafted = [len(r.draft_ids) for r in self._running if len(r.token_ids) - r.num_computed_tokens == 1]
        if not drafted:
            return most
        num_prompts = len(self._waiting) + len(self._running) - len(drafted)
        return min(most, len(drafted) + sum(drafted) + self._chunk * num_prompts)
