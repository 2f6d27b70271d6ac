"""A long prompt is computed in chunks beside the streams that run: each gets its token in every step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from isotoken.core.batch import Sampled
from isotoken.core.kv_cache import KVCacheConfig, PagedKVCache
from isotoken.core.scheduler import ContinuousScheduler, SchedulerConfig
from isotoken.core.types import Request
from isotoken.plugins.schedulers.adaptive import AdaptiveScheduler

from .toy import ToyRunner
from .world import make_request

LONG, BUDGET, CHUNK, NUM_STREAMS = 10_000, 512, 40, 3
SCHEDULERS = {"continuous": ContinuousScheduler, "adaptive": partial(AdaptiveScheduler, chunk=CHUNK)}


def make_scheduler(make: Callable[..., Any], *, prefix_caching: bool = False) -> Any:
    runner = ToyRunner(num_blocks=2000, block_size=16, max_model_len=20_000, max_num_batched_tokens=BUDGET)
    kv_cache = PagedKVCache(runner.info, KVCacheConfig(prefix_caching=prefix_caching))
    return make(kv_cache, SchedulerConfig.from_info(runner.info))


def step(scheduler: Any) -> dict[str, int]:
    """One step: how many tokens of each request it computed."""
    plan = scheduler.schedule()
    scheduler.update(plan, Sampled(np.ones(sum(share.num_logits for share in plan), np.int32)))
    return {share.request.id: share.num_tokens for share in plan}


def start_streams(scheduler: Any) -> list[Request]:
    streams = [make_request(f"stream{index}", [1, 2, 3], max_tokens=LONG) for index in range(NUM_STREAMS)]
    for request in streams:
        scheduler.add(request)
    step(scheduler)
    return streams


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("priority", [0, -1], ids=["behind the streams", "before them"])
def test_streams_get_a_token_in_every_step_of_a_long_prompt(name: str, priority: int) -> None:
    scheduler = make_scheduler(SCHEDULERS[name])
    streams = start_streams(scheduler)
    prompt = make_request("long", [3] * LONG, max_tokens=1, priority=priority)
    scheduler.add(prompt)
    chunk = CHUNK if name == "adaptive" else BUDGET - NUM_STREAMS
    sizes = []
    while prompt.finish_reason is None:
        before = [request.num_output_tokens for request in streams]
        computed = step(scheduler)
        assert [request.num_output_tokens for request in streams] == [count + 1 for count in before]
        assert sum(computed.values()) == computed["long"] + NUM_STREAMS
        sizes.append(computed["long"])
    assert sum(sizes) == LONG
    assert set(sizes[:-1]) == {chunk} and sizes[-1] <= chunk, "one chunk is all that a stream waits for"


@pytest.mark.parametrize("name", SCHEDULERS)
def test_who_waited_to_share_a_prefix_does_not_stall_who_came_later(name: str) -> None:
    """It comes back to its place before a stream that was admitted meanwhile, with much of its own to compute."""
    scheduler = make_scheduler(SCHEDULERS[name], prefix_caching=True)
    scheduler.add(make_request("leads", [4] * 200, max_tokens=1))
    scheduler.add(make_request("waits", [4] * 200 + [5] * 3000, max_tokens=1))
    stream = make_request("stream", [1, 2, 3], max_tokens=LONG)
    scheduler.add(stream)
    assert "waits" not in step(scheduler) and stream.num_output_tokens == 1
    num_steps = 0
    while "waits" in step(scheduler):
        num_steps += 1
        assert stream.num_output_tokens == 1 + num_steps
    assert num_steps > 5


def test_drafts_leave_a_token_for_everybody_behind() -> None:
    scheduler = make_scheduler(ContinuousScheduler)
    streams = start_streams(scheduler)
    streams[0].draft_ids = [1] * (2 * BUDGET)
    assert step(scheduler) == {"stream0": BUDGET - 2, "stream1": 1, "stream2": 1}
