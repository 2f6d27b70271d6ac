"""ContiguousKVCache: rows taken, copied and found again (tests/core/test_identity.py proves the tokens)."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from isotoken.core.batch import Batch
from isotoken.core.interfaces import RunnerInfo
from isotoken.core.kv_cache import KVCacheConfig
from isotoken.core.types import DecodeParams, Request
from isotoken.plugins.kv_caches.contiguous import ContiguousKVCache
from isotoken.plugins.manager import Plugins

from ..core.toy import ToyRunner
from ..core.world import MAX_MODEL_LEN, Setup, World
from ..core.world import make_request as make_world_request

TOKENS = list(range(40))


def make_info(num_blocks: int, block_size: int = 64) -> RunnerInfo:
    return RunnerInfo(
        vocab_size=100,
        eos_token_ids=frozenset(),
        max_model_len=64,
        max_num_seqs=num_blocks,
        max_num_batched_tokens=64,
        max_num_logits=64,
        block_size=block_size,
        num_blocks=num_blocks,
        dtype="none",
        device="none",
    )


def make_cache(num_blocks: int = 3, **config: Any) -> ContiguousKVCache:
    return ContiguousKVCache(make_info(num_blocks), KVCacheConfig(**config))


def make_request(tokens: list[int], salt: bytes = b"") -> Request:
    return Request(
        id="r", token_ids=list(tokens), num_prompt_tokens=len(tokens), params=DecodeParams(), cache_salt=salt
    )


def fill(cache: ContiguousKVCache, tokens: list[int], salt: bytes = b"") -> Request:
    request = make_request(tokens, salt)
    cache.match_prefix(request)
    assert cache.allocate(request, len(tokens))
    cache.take_block_copies()
    request.num_computed_tokens = len(tokens)
    return request


def test_a_prefix_is_copied_from_a_running_row() -> None:
    cache = make_cache()
    first, second = fill(cache, TOKENS), make_request([*TOKENS[:30], 99])
    assert cache.match_prefix(second) == 30 == second.num_computed_tokens
    assert second.block_ids != first.block_ids
    assert cache.take_block_copies() == [(first.block_ids[0], second.block_ids[0], 30)]
    assert cache.take_block_copies() == []
    cache.check([first, second])


def test_only_what_is_computed_is_copied() -> None:
    cache = make_cache()
    first = fill(cache, TOKENS)
    first.num_computed_tokens = 20
    assert cache.match_prefix(make_request(TOKENS)) == 20


def test_a_whole_free_row_is_gone_on_with_in_place() -> None:
    cache = make_cache()
    first = fill(cache, TOKENS)
    row = first.block_ids[0]
    cache.free(first)
    second = make_request([*TOKENS, 50, 51])
    assert cache.match_prefix(second) == 40 and second.block_ids == [row]
    assert cache.take_block_copies() == []


def test_part_of_a_free_row_is_copied_and_the_row_stays_until_the_copy_is_done() -> None:
    cache = make_cache(num_blocks=2)
    first = fill(cache, TOKENS)
    cache.free(first)
    second, third = make_request([*TOKENS[:20], 99]), make_request([7] * 5)
    assert cache.match_prefix(second) == 20
    assert cache.num_free_blocks == 0 and not cache.allocate(third, 5), "the source may not be overwritten yet"
    cache.take_block_copies()
    assert cache.num_free_blocks == 1 and cache.allocate(third, 5)


def test_the_last_free_row_is_taken_in_place() -> None:
    cache = make_cache(num_blocks=1)
    cache.free(fill(cache, TOKENS))
    second = make_request([*TOKENS[:20], 99])
    assert cache.match_prefix(second) == 20 and cache.take_block_copies() == []


def test_a_row_still_waiting_for_its_copy_is_no_source() -> None:
    cache = make_cache(num_blocks=3)
    first = fill(cache, TOKENS)
    second, third = make_request([*TOKENS[:30], 1, 2]), make_request([*TOKENS[:30], 1, 3])
    cache.match_prefix(second)
    second.num_computed_tokens = 31
    assert cache.match_prefix(third) == 30
    assert {source for source, _, _ in cache.take_block_copies()} == {first.block_ids[0]}


def test_a_row_freed_before_its_copy_holds_nothing() -> None:
    cache = make_cache(num_blocks=2)
    first = fill(cache, TOKENS)
    second = make_request([*TOKENS, 1])
    assert cache.match_prefix(second) == 40
    cache.free(second)
    assert cache.take_block_copies() == []
    cache.free(first)
    third = make_request([*TOKENS, 2])
    assert cache.match_prefix(third) == 40 and third.block_ids == [0]


@pytest.mark.parametrize("tokens", [TOKENS[:15], [99, *TOKENS]], ids=["short", "other"])
def test_what_is_not_worth_it_or_not_there_is_not_copied(tokens: list[int]) -> None:
    cache = make_cache()
    fill(cache, TOKENS)
    assert cache.match_prefix(make_request(tokens)) == 0


def test_salts_and_the_switch_are_obeyed() -> None:
    cache = make_cache()
    fill(cache, TOKENS, b"one")
    assert cache.match_prefix(make_request(TOKENS, b"two")) == 0
    assert cache.match_prefix(make_request(TOKENS, b"one")) == 39
    cache = make_cache(prefix_caching=False)
    fill(cache, TOKENS)
    assert cache.match_prefix(make_request(TOKENS)) == 0


def test_rows_must_hold_the_context() -> None:
    with pytest.raises(ValueError, match="blocks of max_model_len=64 tokens, the runner has block_size=16"):
        ContiguousKVCache(make_info(4, block_size=16), KVCacheConfig())


def test_its_factory_asks_for_whole_rows() -> None:
    factories = Plugins.load().kv_caches
    assert factories.get_factory("contiguous").whole_rows
    assert not getattr(factories.get_factory("paged"), "whole_rows", False)


def test_check_notices_a_stolen_row() -> None:
    cache = make_cache()
    first, second = fill(cache, TOKENS), fill(cache, [5])
    second.block_ids = first.block_ids
    with pytest.raises(AssertionError):
        cache.check([first, second])


# --- in an engine whose runner stumbles ---------------------------------------------------------

POISON = 13
OPTIONS = {"max_tokens": 16, "ignore_eos": True, "logit_bias": {POISON: -100.0}}
PROMPT = list(range(20, 60))


class Stumbling(ToyRunner):
    """Raises before it does anything; a copy wipes what is behind it, as whole tiles are copied elsewhere."""

    def forward(self, batch: Batch) -> Any:
        if POISON in batch.input_ids:
            raise RuntimeError("the device does not like 13")
        for _, target, num_tokens in batch.block_copies.tolist():
            for cache in (array for pair in self.caches for array in pair):
                cache[target, num_tokens:] = 0.0
        return super().forward(batch)


def make_world(num_rows: int, runner_class: type[ToyRunner] = Stumbling) -> World:
    runner = runner_class(num_blocks=num_rows, block_size=MAX_MODEL_LEN, max_model_len=MAX_MODEL_LEN)
    return World.make(Setup(kv_cache=ContiguousKVCache, block_size=MAX_MODEL_LEN), runner)


def alone(prompt: list[int]) -> list[int]:
    world = make_world(1, ToyRunner)
    world.add(make_world_request("r", prompt, **OPTIONS))
    return world.run()["r"].token_ids


def test_a_row_whose_copy_was_never_carried_out_is_not_found() -> None:
    world = make_world(2)
    for name, prompt in [("first", PROMPT), ("bad", [*PROMPT[:30], POISON]), ("other", [1, 2, 3])]:
        world.add(make_world_request(name, prompt, **OPTIONS))
        if name != "other":
            world.run()
    world.step()  # the other takes the first one's row, whose tokens would have been found before those of the copy
    prompt = [*PROMPT[:30], 7, 8]
    world.add(make_world_request("late", prompt, **OPTIONS))
    assert world.run()["late"].token_ids == alone(prompt)


def test_copies_are_not_repeated_when_the_requests_of_a_step_are_run_apart() -> None:
    world = make_world(6)
    world.add(make_world_request("first", PROMPT, **OPTIONS))
    world.step()
    prompt = [*PROMPT[:30], 7, 8, 9, 10, 11, 12, 14, 15]
    for name, tokens in [("copied", prompt), ("next", [1, 2, 3]), ("bad", [POISON])]:
        world.add(make_world_request(name, tokens, **OPTIONS))
    results = world.run()
    assert results["copied"].num_cached_tokens == 30 and results["bad"].error is not None
    assert results["copied"].token_ids == alone(prompt)


# --- rows for more tokens than memory ------------------------------------------------------------


def bounded_cache(max_cached_tokens: int, num_blocks: int = 6) -> ContiguousKVCache:
    return ContiguousKVCache(replace(make_info(num_blocks), max_cached_tokens=max_cached_tokens), KVCacheConfig())


def growing(tokens: list[int], max_num_tokens: int) -> Request:
    request = make_request(tokens)
    request.max_num_tokens = max_num_tokens
    return request


def test_a_request_is_let_in_with_room_for_all_that_it_may_grow_to() -> None:
    cache = bounded_cache(100)
    requests = [growing([i] * 10, 30) for i in range(4)]
    assert [cache.allocate(request, 10) for request in requests] == [True, True, True, False]
    cache.free(requests[0])
    assert cache.allocate(requests[3], 10)
    cache.check(requests[1:])


def test_free_rows_forget_their_tokens_oldest_first_and_the_runner_is_told() -> None:
    cache = bounded_cache(100)
    held = [fill_to(cache, [i] * 30, 30) for i in range(3)]
    for request in held:
        cache.free(request)
    assert cache.allocate(growing([9] * 5, 50), 5)
    assert cache.take_block_copies() == [(0, 0, 0), (1, 1, 0)]
    assert cache.take_block_copies() == []
    assert cache.match_prefix(growing([0] * 30, 31)) == 0
    assert cache.match_prefix(growing([2] * 31, 31)) == 30


def test_the_row_that_a_prefix_is_copied_from_is_not_forgotten_for_it() -> None:
    cache = bounded_cache(100)
    cache.free(fill_to(cache, [1] * 40, 40))
    cache.free(fill_to(cache, [2] * 40, 40))
    request = growing([*[1] * 30, 5], 60)
    assert cache.match_prefix(request) == 30
    assert cache.take_block_copies() == [(0, request.block_ids[0], 30), (1, 1, 0)]


def test_a_prefix_is_gone_on_with_in_place_where_a_copy_has_no_room() -> None:
    cache = bounded_cache(64)
    cache.free(fill_to(cache, [1] * 40, 40))
    request = growing([*[1] * 30, 5], 60)
    assert cache.match_prefix(request) == 30 and request.block_ids == [0]
    assert cache.take_block_copies() == [(0, 0, 30)]


def test_what_is_left_behind_of_a_longer_row_is_given_back() -> None:
    """It was counted as 60 tokens and is now as 35, so the runner may not go on holding the 60."""
    cache = bounded_cache(64)
    cache.free(fill_to(cache, [1] * 60, 60))
    request = growing([*[1] * 30, 5], 35)
    assert cache.match_prefix(request) == 30 and request.block_ids == [0]
    assert cache.take_block_copies() == [(0, 0, 30)]
    assert cache.allocate(growing([2] * 5, 29), 5)
    assert cache.take_block_copies() == []


def test_a_row_taken_again_at_once_is_not_reported_as_forgotten() -> None:
    cache = bounded_cache(64, num_blocks=2)
    for token in (1, 2):
        cache.free(fill_to(cache, [token] * 30, 30))
    one, other = growing([3] * 5, 40), growing([4] * 5, 20)
    assert cache.allocate(one, 5) and cache.allocate(other, 5)
    assert cache.take_block_copies() == []


def fill_to(cache: ContiguousKVCache, tokens: list[int], max_num_tokens: int) -> Request:
    request = growing(tokens, max_num_tokens)
    assert cache.allocate(request, len(tokens))
    cache.take_block_copies()
    request.num_computed_tokens = len(tokens)
    return request


@pytest.mark.parametrize("seed", range(10))
def test_room_is_kept_by_any_run_of_requests(seed: int) -> None:
    """Random requests through a real engine: what rows hold never exceeds the room, and tokens stay right."""
    print(f"seed {seed}")
    dice = random.Random(seed)
    runner = ToyRunner(num_blocks=6, block_size=MAX_MODEL_LEN, max_model_len=MAX_MODEL_LEN)
    room = dice.randint(MAX_MODEL_LEN, 3 * MAX_MODEL_LEN)
    runner.info = replace(runner.info, max_cached_tokens=room)
    world = World.make(Setup(kv_cache=ContiguousKVCache, block_size=MAX_MODEL_LEN), runner)
    prompts = {f"r{i}": [*PROMPT[: dice.randint(1, 40)], dice.randint(20, 60)] for i in range(8)}
    for name, prompt in prompts.items():
        world.add(make_world_request(name, prompt, **OPTIONS))
        for _ in range(dice.randint(0, 6)):
            world.step()
    results = world.run()
    for name, prompt in prompts.items():
        assert results[name].token_ids == alone(prompt)


class Sliced(list[int]):
    """Tokens that note how much of them is copied."""

    copied = 0

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        if isinstance(index, slice):
            Sliced.copied += len(found)
        return found


def test_an_admission_looks_at_other_rows_no_further_than_they_agree() -> None:
    """However long the others' contexts are: a row that begins otherwise costs the same few tokens."""
    info = replace(make_info(8, block_size=60_000), max_model_len=60_000)
    cache = ContiguousKVCache(info, KVCacheConfig())
    for row in range(4):
        fill(cache, [row] * 50_000).token_ids = Sliced([row] * 50_000)
    Sliced.copied = 0
    request = make_request([])
    request.token_ids = Sliced([9] * 1000)
    assert cache.match_prefix(request) == 0
    assert Sliced.copied <= 2 * 8 * 256
    near = make_request([2] * 300 + [9])
    assert cache.match_prefix(near) == 300
