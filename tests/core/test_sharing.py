"""Requests that begin alike and arrive together: one computes, the others come a step later and share."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from isotoken.core.batch import Sampled
from isotoken.core.kv_cache import KVCacheConfig, PagedKVCache
from isotoken.core.scheduler import ContinuousScheduler, SchedulerConfig
from isotoken.core.sharing import MIN_SHARED, PrefixWait, common_prefix
from isotoken.core.types import Request, Scheduled
from isotoken.plugins.kv_caches.contiguous import ContiguousKVCache

from .toy import VOCAB_SIZE, ToyRunner
from .world import ALONE, Setup, World, make_request

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


def test_who_comes_behind_is_not_held_up() -> None:
    """Pairs with a prompt each: all first ones are computed at once, then the second ones share."""
    scheduler = make_scheduler(max_num_batched_tokens=1000)
    for pair in range(3):
        for index in range(2):
            prompt = [3 + (pair + i) % 50 for i in range(100)]
            scheduler.add(make_request(f"{pair}.{index}", prompt, max_tokens=5))
    assert step(scheduler) == [("0.0", 0, 100), ("1.0", 0, 100), ("2.0", 0, 100)]
    decodes = [(f"{pair}.0", 100, 1) for pair in range(3)]
    assert step(scheduler) == [*decodes, *((f"{pair}.1", 96, 4) for pair in range(3))]


@pytest.mark.parametrize("limit", ["blocks", "rows"])
def test_nobody_takes_the_place_of_one_who_waits(limit: str) -> None:
    scheduler = make_scheduler(max_num_batched_tokens=1000, max_num_seqs=2 if limit == "rows" else 8)
    length = 100 if limit == "rows" else 200  # of 400 blocks of 4 tokens
    count = 2 if limit == "rows" else 7
    scheduler.add(make_request("leader", LONG[:length], max_tokens=5))
    for index in range(count - 1):
        scheduler.add(make_request(f"waits{index}", LONG[:length], max_tokens=5))
    for index in range(2):
        scheduler.add(make_request(f"behind{index}", [60 + index] * length, max_tokens=5))
    assert step(scheduler)[1:] == ([] if limit == "rows" else [("behind0", 0, 200)])
    waiting = [f"waits{index}" for index in range(count - 1)]
    assert [name for name, _, _ in step(scheduler) if name.startswith("waits")] == waiting


def test_nobody_waits_for_one_that_comes_after() -> None:
    scheduler = make_scheduler(max_num_batched_tokens=120)
    scheduler.add(make_request("later", LONG, max_tokens=5, priority=1))
    assert step(scheduler) == [("later", 0, 120)]
    scheduler.add(make_request("first", LONG, max_tokens=5))
    assert step(scheduler) == [("later", 120, 80), ("first", 120, 40)]


def test_one_who_was_left_alone_does_not_end_the_sharing() -> None:
    """The one that it waited for is gone before anything is kept: that says nothing about the cache."""
    scheduler = make_scheduler(max_num_batched_tokens=1000)
    for name in ("gone", "left"):
        scheduler.add(make_request(name, LONG, max_tokens=5))
    plan = scheduler.schedule()
    assert [share.request.id for share in plan] == ["gone"]
    scheduler.abort("gone")
    scheduler.update(plan, Sampled(np.ones(1, np.int32)))
    assert step(scheduler) == [("left", 0, 200)]
    scheduler.add(make_request("finds", [*LONG, 4], max_tokens=5))
    assert step(scheduler)[1:] == [("finds", 200, 1)]
    for name in ("one", "other"):
        scheduler.add(make_request(name, LONG[::-1], max_tokens=5))
    assert [name for name, _, _ in step(scheduler)][2:] == ["one"]


class Counted(list[int]):
    """Token ids that count how many of them are looked at."""

    num_read = 0

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        Counted.num_read += len(found) if isinstance(index, slice) else 1
        return found


def make_counted(arrival: int, token_ids: list[int]) -> Request:
    request = make_request(f"r{arrival}", [], max_tokens=5)
    request.token_ids, request.arrival = Counted(token_ids), arrival
    return request


def read_by(wait: PrefixWait, request: Request, leader: Request, start: int, num_tokens: int) -> tuple[bool, int]:
    """Whether it waits, and how many of its and the leader's tokens were looked at."""
    Counted.num_read = 0
    return wait.is_better(request, [Scheduled(leader, start, num_tokens, 0, 0)]), Counted.num_read


def test_what_was_compared_is_not_compared_again() -> None:
    """A prompt of 100,000 tokens in chunks of 2,000: each who waits compares each token once."""
    prompt, chunk = [3 + i % 50 for i in range(100_000)], 2000
    wait = PrefixWait(16, 200_000)
    leader = make_counted(0, [*prompt, 1])
    for arrival in (1, 2, 3):
        request, read = make_counted(arrival, [*prompt, 2]), []
        for start in range(0, len(prompt), chunk):
            waits, num_read = read_by(wait, request, leader, start, chunk)
            assert waits
            read.append(num_read)
        assert read == [2 * MIN_SHARED] + [2 * chunk] * (len(prompt) // chunk - 1)


def test_those_that_differ_behind_what_they_share_are_not_compared_from_the_start() -> None:
    wait = PrefixWait(16, 200_000)
    prompt = [3 + i % 50 for i in range(10_000)]
    leader, request = make_counted(0, prompt + [1] * 200), make_counted(1, prompt + [2] * 200)
    assert read_by(wait, request, leader, len(prompt), 200) == (False, 2 * MIN_SHARED)


def test_those_that_differ_once_differ_for_good() -> None:
    wait = PrefixWait(16, 200_000)
    prompt = [3 + i % 50 for i in range(10_000)]
    leader, request = make_counted(0, [1, *prompt]), make_counted(1, [2, *prompt])
    waits, first = read_by(wait, request, leader, 2000, 2000)
    assert not waits and first < 1000
    assert read_by(wait, request, leader, 4000, 2000) == (False, 2 * MIN_SHARED)


def test_a_leader_that_begins_anew_is_waited_for_again() -> None:
    wait = PrefixWait(16, 200_000)
    prompt = [3 + i % 50 for i in range(10_000)]
    leader, request = make_counted(0, prompt), make_counted(1, prompt)
    for start in (0, 4000, 0, 2000, 4000, 6000):
        assert read_by(wait, request, leader, start, 2000)[0]


def test_what_is_remembered_goes_with_who_waits() -> None:
    scheduler = make_scheduler(max_num_batched_tokens=120)
    for index in range(4):
        scheduler.add(make_request(f"r{index}", [*LONG, 60 + index, 7], max_tokens=5))
    scheduler.schedule()
    assert scheduler._wait._agreed == {}, "no room was left: nobody was asked about"
    scheduler = make_scheduler(max_num_batched_tokens=1000)
    for index in range(4):
        scheduler.add(make_request(f"r{index}", [*LONG, 60 + index, 7], max_tokens=5))
    plan = scheduler.schedule()
    assert list(scheduler._wait._agreed) == [1, 2, 3]
    scheduler.abort("r2")
    assert list(scheduler._wait._agreed) == [1, 3]
    scheduler.update(plan, Sampled(np.ones(1, np.int32)))
    step(scheduler)
    assert scheduler._wait._agreed == {}


@pytest.mark.parametrize("seed", range(20))
def test_who_waits_is_who_shares_enough(seed: int) -> None:
    """Against the definition: of the tokens that the step computes, as many are shared as make waiting worth it."""
    print(f"seed {seed}")
    dice = random.Random(seed)
    wait = PrefixWait(16, 2000)
    base = [dice.randrange(50) for _ in range(600)]
    requests = []
    for arrival in range(8):
        cut = dice.choice([0, 1, 63, 64, 65, 300, 500, 600])
        requests.append(make_counted(arrival, [*base[:cut], *dice.choices(range(50), k=dice.choice([1, 70, 200]))]))
    for _ in range(400):
        one, two = sorted(dice.sample(range(8), 2))
        leader, request = requests[one], requests[two]
        start = dice.randrange(len(leader.token_ids))
        num_tokens = dice.randrange(1, len(leader.token_ids) - start + 1)
        shared = common_prefix(leader.token_ids, request.token_ids, len(request.token_ids) - 1)
        expected = min(start + num_tokens, shared) - start >= MIN_SHARED
        assert read_by(wait, request, leader, start, num_tokens)[0] == expected


@pytest.mark.parametrize("cache", ["paged", "contiguous"])
@pytest.mark.parametrize("seed", range(4))
def test_waiting_changes_no_token_and_ends(seed: int, cache: str) -> None:
    """Whole engines with little room, requests that leave and prompts that begin alike, against each one alone."""
    print(f"seed {seed}")
    dice = random.Random(seed)
    prefixes = [[dice.randrange(VOCAB_SIZE) for _ in range(100)] for _ in range(2)]
    prompts = {
        f"r{index}": [*dice.choice(prefixes)[: dice.choice([70, 90, 100])], *dice.choices(range(VOCAB_SIZE), k=3)]
        for index in range(12)
    }
    parameters = {"max_tokens": 8, "temperature": 1.0, "ignore_eos": True}
    rows = {"kv_cache": ContiguousKVCache, "block_size": 128, "num_blocks": 4}
    setup = Setup(
        **(rows if cache == "contiguous" else {"block_size": 8, "num_blocks": dice.choice([30, 400])}),
        max_num_batched_tokens=dice.choice([150, 300]),
        max_num_seqs=dice.choice([3, 8]),
    )
    world = World.make(setup)
    waited = 0
    is_better = world.scheduler._scheduler._wait.is_better

    def counted(*arguments: Any) -> bool:
        nonlocal waited
        waited += (better := is_better(*arguments))
        return bool(better)

    world.scheduler._scheduler._wait.is_better = counted
    for index, (name, prompt) in enumerate(prompts.items()):
        world.add(make_request(name, prompt, seed=index, **parameters))
        if index % 4 == 3:
            world.step()
    gone = dice.sample(sorted(prompts), 3)
    for name in gone:
        world.engine.abort(name)
        world.step()
    results = world.run()
    assert waited, "nobody waited: this shows nothing"
    for index, (name, prompt) in enumerate(prompts.items()):
        if name in gone:
            continue
        alone = World.make(ALONE)
        alone.add(make_request(name, prompt, seed=index, **parameters))
        assert results[name].token_ids == alone.run()[name].token_ids
