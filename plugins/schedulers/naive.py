"""The naive scheduler, a baseline: one request at a time, from its prompt to its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from ...core.interfaces import KVCache
from ...core.scheduler import ContinuousScheduler, SchedulerConfig


def naive_scheduler(
    kv_cache: KVCache, config: SchedulerConfig, *, clock: Callable[[], float] = time.monotonic
) -> ContinuousScheduler:
    """First come first served with a single place to run in."""
    return ContinuousScheduler(kv_cache, replace(config, max_num_seqs=1), clock=clock)
