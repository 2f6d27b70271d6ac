"""The adaptive scheduler: a step's tokens follow the queue, and what comes out is what continuous gives."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from isotoken.core.batch import Sampled
from isotoken.core.kv_cache import KVCacheConfig, PagedKVCache
from isotoken.core.scheduler import ContinuousScheduler, SchedulerConfig
from isotoken.core.types import Request, StepStats
from isotoken.plugins.manager import Plugins
from isotoken.plugins.schedulers.adaptive import LEAST_CHUNK, AdaptiveScheduler

from ..core.chance import WORKLOAD, draw_setup, run_at_random
from ..core.toy import ToyRunner
from ..core.world import Gold, Setup, World, compare, make_gold, make_request

CHUNK, MOST = 20, 100
ADAPTIVE = partial(AdaptiveScheduler, chunk=CHUNK)


@pytest.fixture(scope="module")
def gold() -> Gold:
    return make_gold(WORKLOAD)


def make_scheduler(make: Any = ADAPTIVE, most: int = MOST, rows: int = 16) -> Any:
    runner = ToyRunner(
        num_blocks=4000, block_size=16, max_model_len=9000, max_num_batched_tokens=most, max_num_seqs=rows
    )
    kv_cache = PagedKVCache(runner.info, KVCacheConfig(prefix_caching=False))
    return make(kv_cache, SchedulerConfig.from_info(runner.info))


def step(scheduler: Any) -> int:
    """One step; returns the number of tokens computed."""
    plan = scheduler.schedule()
    scheduler.update(plan, Sampled(np.ones(sum(share.num_logits for share in plan), np.int32)))
    return sum(share.num_tokens for share in plan)


def add(scheduler: Any, name: str, num_prompt_tokens: int, **options: Any) -> Request:
    request = make_request(name, [3] * num_prompt_tokens, **{"max_tokens": 500} | options)
    scheduler.add(request)
    return request


@pytest.mark.parametrize("num_streams", [1, 4])
@pytest.mark.parametrize(("num_prompts", "prompt_tokens"), [(1, 20), (2, 40), (4, 80), (5, 100), (9, 100)])
def test_a_step_grows_with_the_queue_up_to_the_most(num_streams: int, num_prompts: int, prompt_tokens: int) -> None:
    scheduler = make_scheduler()
    for index in range(num_streams):
        add(scheduler, f"stream{index}", 2)
    step(scheduler)
    for index in range(num_prompts):
        add(scheduler, f"prompt{index}", 1000)
    assert step(scheduler) == min(num_streams + prompt_tokens, MOST)


def test_it_shrinks_again_as_prompts_are_done() -> None:
    scheduler = make_scheduler()
    add(scheduler, "stream", 2)
    step(scheduler)
    for index in range(3):
        add(scheduler, f"prompt{index}", 100, max_tokens=1)
    assert [step(scheduler) for _ in range(10)] == [61, 61, 41, 41, 21, 21, 21, 21, 21, 1]


def test_without_a_stream_prompts_are_computed_as_fast_as_can_be() -> None:
    scheduler = make_scheduler()
    add(scheduler, "prompt", 250)
    assert [step(scheduler) for _ in range(3)] == [MOST, MOST, 50]
    add(scheduler, "next", 250)
    assert step(scheduler) == 1 + CHUNK


def test_who_waits_for_a_row_counts_as_well() -> None:
    scheduler = make_scheduler(rows=2)
    add(scheduler, "stream", 2)
    step(scheduler)
    for index in range(3):
        add(scheduler, f"prompt{index}", 1000)
    assert step(scheduler) == 1 + 3 * CHUNK
    assert scheduler.num_waiting == 2


def test_drafts_come_on_top() -> None:
    scheduler = make_scheduler()
    streams = [add(scheduler, f"stream{index}", 2) for index in range(3)]
    step(scheduler)
    for request in streams:
        request.draft_ids = [2] * 7
    add(scheduler, "prompt", 1000)
    assert step(scheduler) == 3 * 8 + CHUNK
    for request in streams:
        request.draft_ids = [2] * 50
    assert step(scheduler) == MOST


@pytest.mark.parametrize(("most", "chunk"), [(64, 63), (2048, LEAST_CHUNK), (8192, 512)])
def test_a_chunk_is_a_part_of_the_most_unless_that_is_too_little(most: int, chunk: int) -> None:
    scheduler = make_scheduler(Plugins.load().schedulers.get_factory("adaptive"), most)
    add(scheduler, "stream", 2)
    step(scheduler)
    add(scheduler, "prompt", 8000)
    assert step(scheduler) == 1 + chunk


@pytest.mark.parametrize("chunk", [1, 7, 30])
def test_tokens_are_those_of_continuous(gold: Gold, chunk: int) -> None:
    """Requests come one after the other, so that prompts meet streams."""
    sizes = []
    for make in (ContinuousScheduler, partial(AdaptiveScheduler, chunk=chunk)):
        stats: list[StepStats] = []
        world = World.make(Setup(scheduler=make), on_step=stats.append)
        for name, (prompt, options) in WORKLOAD.items():
            world.add(make_request(name, prompt, **options))
            world.step()
        for name, result in world.run().items():
            compare(name, result, gold[name])
        sizes.append([one.num_tokens for one in stats])
    assert sizes[0] != sizes[1], "both computed the same steps: this shows nothing"


@pytest.mark.parametrize("seed", range(24))
def test_random_setups_hold_every_invariant_and_change_no_token(gold: Gold, seed: int) -> None:
    print(f"seed {seed}")
    draw = random.Random(seed)
    setup = draw_setup(draw, gold)
    adaptive = partial(AdaptiveScheduler, chunk=draw.choice([1, 5, 20]))
    run_at_random(draw, gold, replace(setup, scheduler=adaptive))
