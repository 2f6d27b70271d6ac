"""PagedKVCache: sharing, publishing, eviction and its own check."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from isotoken.core.kv_cache import KVCacheConfig, PagedKVCache
from isotoken.core.types import Request

from .toy import ToyRunner
from .world import make_request


def make_cache(num_blocks: int = 8, block_size: int = 4, **config: Any) -> PagedKVCache:
    return PagedKVCache(ToyRunner(num_blocks=num_blocks, block_size=block_size).info, KVCacheConfig(**config))


def fill(cache: PagedKVCache, tokens: list[int], **options: Any) -> Request:
    """A request whose tokens are all computed and published where full."""
    request = make_request("r", tokens, **options)
    cache.match_prefix(request)
    assert cache.allocate(request, len(tokens))
    request.num_computed_tokens = len(tokens)
    cache.commit(request)
    return request


TOKENS = list(range(10))


def test_full_blocks_are_shared_and_partial_ones_are_not() -> None:
    cache = make_cache()
    first = fill(cache, TOKENS)
    second = make_request("s", TOKENS)
    assert cache.match_prefix(second) == 8 == second.num_computed_tokens
    assert second.block_ids == first.block_ids[:2]
    assert cache.num_free_blocks == 5
    cache.check([first, second])


def test_a_fully_cached_prompt_leaves_a_token_to_compute() -> None:
    cache = make_cache()
    fill(cache, TOKENS[:8])
    assert cache.match_prefix(make_request("s", TOKENS[:8])) == 4


def test_a_block_is_found_by_all_that_is_before_it() -> None:
    cache = make_cache()
    fill(cache, TOKENS)
    assert cache.match_prefix(make_request("s", [99, *TOKENS[1:]])) == 0
    assert cache.match_prefix(make_request("t", [*TOKENS[:4], *TOKENS[:4], 1])) == 4


def test_salts_keep_tenants_apart() -> None:
    cache = make_cache()
    fill(cache, TOKENS, cache_salt=b"one")
    assert cache.match_prefix(make_request("s", TOKENS, cache_salt=b"two")) == 0
    assert cache.match_prefix(make_request("t", TOKENS)) == 0
    assert cache.match_prefix(make_request("u", TOKENS, cache_salt=b"one")) == 8


def test_a_salt_that_equals_a_hash_does_not_enter_its_chain() -> None:
    cache = make_cache()
    victim = fill(cache, TOKENS)
    assert cache.match_prefix(make_request("s", TOKENS[4:], cache_salt=victim.block_hashes[0])) == 0


def test_freed_blocks_are_found_until_they_are_needed_tails_first() -> None:
    cache = make_cache(num_blocks=3)
    cache.free(fill(cache, TOKENS))
    assert cache.num_free_blocks == 3
    other = make_request("o", [50] * 8)
    assert cache.allocate(other, 8)  # takes the partial block, then the tail
    late = make_request("late", TOKENS)
    assert cache.match_prefix(late) == 4
    cache.check([other, late])


def test_the_least_recently_freed_is_evicted_first() -> None:
    cache = make_cache(num_blocks=4)
    a, b = fill(cache, [1] * 4), fill(cache, [2] * 4)
    cache.free(a)
    cache.free(b)
    cache.allocate(make_request("o", [3] * 12), 12)  # two blank blocks and the oldest
    assert cache.match_prefix(make_request("s", [1] * 5)) == 0
    assert cache.match_prefix(make_request("t", [2] * 5)) == 4


def test_allocation_is_all_or_nothing() -> None:
    cache = make_cache(num_blocks=2)
    request = make_request("r", [1])
    assert not cache.allocate(request, 9)
    assert request.block_ids == [] and cache.num_free_blocks == 2
    assert cache.allocate(request, 8) and cache.allocate(request, 3) and len(request.block_ids) == 2


def test_twins_computed_at_once_are_published_once() -> None:
    cache = make_cache()
    twins = [make_request(name, TOKENS) for name in "ab"]
    for twin in twins:
        assert cache.allocate(twin, 10)
    for twin in twins:
        twin.num_computed_tokens = 10
        cache.commit(twin)
    assert not set(twins[0].block_ids) & set(twins[1].block_ids)
    cache.check(twins)
    cache.free(twins[0])
    cache.free(twins[1])
    assert cache.match_prefix(make_request("s", TOKENS)) == 8


def test_without_prefix_caching_nothing_is_found() -> None:
    cache = make_cache(prefix_caching=False)
    cache.free(fill(cache, TOKENS))
    assert cache.match_prefix(make_request("s", TOKENS)) == 0


def test_free_gives_a_new_list() -> None:
    """Whoever mirrors a block table sees by its identity that it began anew."""
    cache = make_cache()
    request = fill(cache, TOKENS)
    before = request.block_ids
    cache.free(request)
    assert request.block_ids is not before and before and request.num_computed_tokens == 0


@pytest.mark.parametrize(
    "harm",
    [
        lambda cache, request: cache._num_refs.__setitem__(request.block_ids[0], 2),
        lambda cache, request: cache._free.__setitem__(request.block_ids[0], None),
        lambda cache, request: cache._free.popitem(),
        lambda cache, request: cache._hashes.__setitem__(request.block_ids[0], None),
        lambda cache, request: request.block_ids.pop(),
        lambda cache, request: setattr(request, "num_computed_tokens", 3),
    ],
    ids=["references", "free and used", "lost", "hash", "table", "uncomputed"],
)
def test_check_notices(harm: Any) -> None:
    cache = make_cache()
    request = fill(cache, TOKENS)
    cache.check([request])
    harm(cache, request)
    with pytest.raises(AssertionError):
        cache.check([request])


class Pool(RuleBasedStateMachine):
    """Requests that come, grow and go; tokens remembered by block prove what a match returns."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = make_cache(num_blocks=7, block_size=3)
        self.held: list[Request] = []
        self.contents: dict[int, tuple[int, ...]] = {}  # block: its whole prefix

    @rule(tokens=st.lists(st.integers(0, 1), min_size=1, max_size=15))
    def admit(self, tokens: list[int]) -> None:
        request = make_request("r", tokens)
        matched = self.cache.match_prefix(request)
        assert matched < len(tokens)
        for index in range(matched // 3):
            assert self.contents[request.block_ids[index]] == tuple(tokens[: 3 * index + 3])
        if not self.cache.allocate(request, len(tokens)):
            self.cache.free(request)
            return
        self.held.append(request)
        self.compute(request)

    @precondition(lambda self: self.held)
    @rule(pick=st.integers(0, 99), token=st.integers(0, 1))
    def grow(self, pick: int, token: int) -> None:
        request = self.held[pick % len(self.held)]
        if self.cache.allocate(request, len(request.token_ids) + 1):
            request.token_ids.append(token)
            self.compute(request)

    def compute(self, request: Request) -> None:
        for index in range(request.num_computed_tokens // 3, len(request.block_ids)):
            self.contents[request.block_ids[index]] = tuple(request.token_ids[: 3 * index + 3])
        request.num_computed_tokens = len(request.token_ids)
        self.cache.commit(request)

    @precondition(lambda self: self.held)
    @rule(pick=st.integers(0, 99))
    def leave(self, pick: int) -> None:
        self.cache.free(self.held.pop(pick % len(self.held)))

    @invariant()
    def adds_up(self) -> None:
        self.cache.check(self.held)
        for request in self.held:
            for index, block in enumerate(request.block_ids):
                assert self.contents[block] == tuple(request.token_ids[: 3 * index + 3])


Pool.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestPool = Pool.TestCase
