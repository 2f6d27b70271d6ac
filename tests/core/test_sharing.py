"""Requests that begin alike and arrive together: one computes, the others come a step later and share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from isotoken.core.batch import Sampled
from isotoken.core.kv_cache import KVCacheConfig, PagedKVCache
from isotoken.core.scheduler import ContinuousScheduler, SchedulerConfig
from isotoken.core.types import Scheduled
from isotoken.plugins.kv_caches.contiguous import ContiguousKVCache

from .toy import ToyRunner
from .world import make_request

LONG = [3 + i % 50 for i in range(200)]
MAX_MODEL_LEN = 256


def make_scheduler(cache: str = "paged", *, prefix_caching: bool = True, **limits: Any) -> ContinuousScheduler:
    whole_rows = cache == "contiguous"
    sizes = (16, MAX_MODEL_LEN) if whole_rows else (400, 4)
    runner = ToyRunner(num_blocks=sizes[0], block_size=sizes[1], max_model_len=MAX_MODEL_LEN, **limits)
    make = ContiguousKVCache if whole_rows else PagedKVCache
    kv_cache = make(runner.info, KVCacheConfig(prefix_caching=prefix_caching))
    return ContinuousScheduler(kv_cache, SchedulerConfig.from_info(runner.info))


def step(scheduler: ContinuousScheduler) -> list[tuple[str, int, int]]:
    """One step: the id, start and number of tokens of each share."""
    plan: list[Scheduled] = scheduler.schedule()
    scheduler.update(plan, Sampled(np.ones(sum(share.num_logits for share in plan), np.int32)))
    return [(share.request.id, share.start, share.num_tokens) for share in plan]


@pytest.mark.parametrize("cache", ["paged", "contiguous"])
def test_those_that_begin_alike_wait_a_step_and_share(cache: str) -> None:
    scheduler = make_scheduler(cache, max_num_batched_tokens=1000)
    for index in range(4):
        scheduler.add(make_request(f"r{index}", [*LONG, 60 + index, 7], max_tokens=5))
    assert step(scheduler) == [("r0", 0, 202)]
    assert step(scheduler) == [("r0", 202, 1), *((f"r{index}", 200, 2) for index in (1, 2, 3))]


def test_they_wait_for_a_prompt_computed_in_parts() -> None:
    scheduler = make_scheduler(max_num_batched_tokens=120)
    for index in range(2):
        scheduler.add(make_request(f"r{index}", [*LONG, 60 + index, 7], max_tokens=5))
    assert [step(scheduler) for _ in range(3)] == [
        [("r0", 0, 120)],
        [("r0", 120, 82)],
        [("r0", 202, 1), ("r1", 200, 2)],
    ]


@pytest.mark.parametrize(
    "second",
    [
        {"prompt": LONG[::-1]},
        {"prompt": [*LONG[:60], 90, *LONG[:100]]},  # too little to be worth a step
        {"prompt": LONG, "cache_salt": b"another's"},
        {"prompt": LONG, "num_prompt_logprobs": 0},  # computes every position whatever the cache holds
    ],
    ids=["others", "little", "salt", "scoring"],
)
def test_others_do_not_wait(second: dict[str, Any]) -> None:
    scheduler = make_scheduler(max_num_batched_tokens=1000)
    scheduler.add(make_request("r0", LONG, max_tokens=5))
    scheduler.add(make_request("r1", second.pop("prompt"), max_tokens=5, **second))
    assert [share.request.id for share in scheduler.schedule()] == ["r0", "r1"]


def test_nobody_waits_for_long_where_nothing_is_shared() -> None:
    """Without a prefix cache the first that waits finds nothing; from then on all come at once."""
    scheduler = make_scheduler(prefix_caching=False, max_num_batched_tokens=2000)
    for index in range(6):
        scheduler.add(make_request(f"r{index}", LONG, max_tokens=5))
    assert step(scheduler) == [("r0", 0, 200)]
    assert step(scheduler) == [("r0", 200, 1), *((f"r{index}", 0, 200) for index in range(1, 6))]
