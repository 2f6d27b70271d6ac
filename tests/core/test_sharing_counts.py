"""What is shared is computed once: tokens counted step by step, in one submission, across them, after preemption."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from isotoken.core.batch import Batch
from isotoken.core.kv_cache import PagedKVCache
from isotoken.core.sharing import MIN_SHARED
from isotoken.core.types import StepStats
from isotoken.plugins.kv_caches.contiguous import ContiguousKVCache

from .toy import VOCAB_SIZE, ToyRunner
from .world import Setup, World, make_request

NUM_REQUESTS, SHARED, OWN, OUTPUT = 32, 512, 16, 16  # W4 of the benchmarks
DECODED = OUTPUT - 1  # computed in steps of one token: a prompt's step brings the first token
MAX_MODEL_LEN = 560

DICE = random.Random(0)
PREFIX = [DICE.randrange(VOCAB_SIZE) for _ in range(SHARED)]
TAILS = [[index, *(DICE.randrange(VOCAB_SIZE) for _ in range(OWN - 1))] for index in range(2 * NUM_REQUESTS)]


class Counting(ToyRunner):
    """Any token is as likely as any other: what is counted does not depend on what is said."""

    def forward(self, batch: Batch) -> Any:
        return np.zeros((len(batch.logits_indices), VOCAB_SIZE), np.float32)


class Counted:
    """A world, and the tokens that it computed since it was last asked."""

    def __init__(
        self, cache: str = "paged", *, num_blocks: int = 0, num_rows: int = NUM_REQUESTS, **limits: Any
    ) -> None:
        block_size = MAX_MODEL_LEN if cache == "contiguous" else 16
        self.stats: list[StepStats] = []
        runner = Counting(
            num_blocks=num_blocks or (num_rows if cache == "contiguous" else 300),
            block_size=block_size,
            max_num_seqs=num_rows,
            max_model_len=MAX_MODEL_LEN,
            **{"max_num_batched_tokens": 2048} | limits,
        )
        kv_cache = ContiguousKVCache if cache == "contiguous" else PagedKVCache
        setup = Setup(block_size=block_size, kv_cache=kv_cache)
        self.world = World.make(setup, runner, on_step=self.stats.append)

    def add(self, start: int = 0, count: int = NUM_REQUESTS, prefix: list[int] = PREFIX, **options: Any) -> None:
        for index in range(start, start + count):
            options = {"max_tokens": OUTPUT, "ignore_eos": True, "temperature": 0.8, "seed": index} | options
            self.world.add(make_request(f"{index}", [*prefix, *TAILS[index]], **options))

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            self.world.step()

    def run(self) -> int:
        self.world.run()
        return self.take()

    def take(self) -> int:
        found = sum(stats.num_tokens for stats in self.stats)
        self.stats.clear()
        return found


ONCE = SHARED + NUM_REQUESTS * (OWN + DECODED)
"""The shared tokens once, the others of each."""


@pytest.mark.parametrize("cache", ["paged", "contiguous"])
@pytest.mark.parametrize("budget", [2048, 600, 128])
def test_one_submission_computes_what_is_shared_once(cache: str, budget: int) -> None:
    counted = Counted(cache, max_num_batched_tokens=budget)
    counted.add()
    assert counted.run() == ONCE


def test_the_rest_is_computed_in_the_next_step() -> None:
    """Nobody waits longer than the prefix takes: 32 prompts are through in two steps."""
    counted = Counted()
    counted.add()
    counted.step(2)
    assert [stats.num_tokens for stats in counted.stats] == [SHARED + OWN, 1 + (NUM_REQUESTS - 1) * OWN]
    assert [stats.num_prefix_hits for stats in counted.stats] == [0, (NUM_REQUESTS - 1) * SHARED]
    counted.world.run()


@pytest.mark.parametrize("cache", ["paged", "contiguous"])
def test_a_later_submission_finds_it(cache: str) -> None:
    counted = Counted(cache)
    counted.add()
    counted.run()
    counted.add(NUM_REQUESTS)
    assert counted.run() == NUM_REQUESTS * (OWN + DECODED)


@pytest.mark.parametrize("cache", ["paged", "contiguous"])
def test_a_submission_while_it_is_computed_finds_it_too(cache: str) -> None:
    counted = Counted(cache, max_num_batched_tokens=200)
    counted.add(0, 1)
    counted.step()  # 200 of the 528
    counted.add(1, NUM_REQUESTS - 1)
    assert counted.run() == ONCE


def test_tenants_compute_each_their_own() -> None:
    counted = Counted()
    for tenant in range(2):
        counted.add(tenant * 4, 4, cache_salt=b"tenant %d" % tenant)
    assert counted.run() == 2 * (SHARED + 4 * (OWN + DECODED))


def test_after_preemption_what_is_shared_is_found_again() -> None:
    """Blocks for the prefix and some tails: requests take turns, and none computes the prefix a second time."""
    counted = Counted(num_blocks=SHARED // 16 + NUM_REQUESTS + 8)
    counted.add()
    computed = counted.run()
    preempted = sum(request.num_preemptions for request in counted.world.requests.values())
    assert preempted > 5
    assert ONCE <= computed <= ONCE + preempted * (OWN + OUTPUT)


def test_when_all_are_preempted_only_what_was_taken_is_computed_again() -> None:
    """Two that share nothing and do not fit together: the one that comes back finds the blocks that nobody took."""
    counted = Counted(num_blocks=(MAX_MODEL_LEN + 512) // 16)
    counted.add(0, 1, prefix=PREFIX[::-1])
    counted.add(1, 1, prefix=PREFIX)
    alone = 2 * (SHARED + OWN + DECODED)
    computed = counted.run()
    preempted = sum(request.num_preemptions for request in counted.world.requests.values())
    assert preempted == 1
    assert alone <= computed <= alone + 3 * 16 + OUTPUT, "its last blocks were taken, the first were found"


def start_behind_another(num_steps: int, **limits: Any) -> Counted:
    """One that grows, then a leader that computes a long prompt in parts, and three that wait for it."""
    counted = Counted(max_num_batched_tokens=100, **limits)
    counted.world.add(make_request("grows", [1, 2, 3], max_tokens=100, ignore_eos=True))
    counted.step()
    counted.add(0, 4)
    counted.step(num_steps)
    running = [request for request in counted.world.requests.values() if request.row_id >= 0]
    assert [request.id for request in running] == ["grows", "0"], "the others wait"
    return counted


ALONE = 3 + 99  # what "grows" computes
FOUR = SHARED + 4 * (OWN + DECODED)
UNWORTHY = 3 * MIN_SHARED  # nobody waits for the last few tokens


def test_if_the_one_that_computes_is_preempted_nobody_begins_anew() -> None:
    counted = start_behind_another(4, num_blocks=-(-(SHARED + OWN) // 16) + 1)
    leader = counted.world.requests["0"]
    while not leader.num_preemptions:
        counted.step()
    done = sum(stats.num_tokens for stats in counted.stats)
    assert leader.num_computed_tokens == 0 and done > 400
    assert counted.run() <= ALONE + FOUR + 6 * 16 + UNWORTHY, "a few blocks that the first one grew into"


@pytest.mark.parametrize("num_steps", [1, 3, 5])
def test_if_the_one_that_computes_is_aborted_the_next_goes_on_from_there(num_steps: int) -> None:
    counted = start_behind_another(num_steps)
    gone = counted.world.requests["0"].num_computed_tokens
    assert counted.world.engine.abort("0")
    least = ALONE + gone + SHARED - gone // 16 * 16 + 3 * (OWN + DECODED)
    assert least <= counted.run() <= least + UNWORTHY


def test_if_it_is_aborted_before_a_block_was_full_the_next_leads() -> None:
    """The first of those that waited finds nothing; that says nothing about the cache, and the others wait for it."""
    counted = Counted()
    counted.add(0, 4)
    engine = counted.world.engine
    plan = engine._scheduler.schedule()
    assert [share.request.id for share in plan] == ["0"]
    engine.abort("0")
    assert counted.run() == SHARED + 3 * (OWN + DECODED)
    counted.add(4, 4, prefix=PREFIX[::-1])
    assert counted.run() == FOUR


def test_if_it_is_aborted_with_nobody_else_left_later_ones_wait_again() -> None:
    counted = Counted()
    counted.add(0, 2)
    engine = counted.world.engine
    engine._scheduler.schedule()
    engine.abort("0")
    counted.step()  # "1" finds nothing, alone
    counted.take()
    counted.add(2, 4, prefix=PREFIX[::-1])
    counted.step()
    assert counted.stats[-1].num_tokens == 1 + SHARED + OWN
    counted.world.run()
