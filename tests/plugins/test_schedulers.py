"""The baselines run as they say: one at a time, and batch after batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from isotoken.core.batch import Sampled
from isotoken.core.interfaces import RunnerInfo
from isotoken.core.kv_cache import KVCacheConfig
from isotoken.core.scheduler import SchedulerConfig
from isotoken.core.types import DecodeParams, Request
from isotoken.plugins.manager import Plugins

INFO = RunnerInfo(
    vocab_size=100,
    eos_token_ids=frozenset(),
    max_model_len=64,
    max_num_seqs=3,
    max_num_batched_tokens=100,
    max_num_logits=10,
    block_size=4,
    num_blocks=50,
    dtype="none",
    device="none",
)


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    return Plugins.load()


def make(plugins: Plugins, name: str, info: RunnerInfo = INFO) -> Any:
    kv_cache = plugins.kv_caches.get_factory("paged")(info, KVCacheConfig())
    return plugins.schedulers.get_factory(name)(kv_cache, SchedulerConfig.from_info(info))


def add(scheduler: Any, name: str, num_tokens: int, priority: int = 0) -> Request:
    params = DecodeParams(max_tokens=num_tokens)
    request = Request(id=name, token_ids=[1, 2, 3], num_prompt_tokens=3, params=params, priority=priority)
    scheduler.add(request)
    return request


def step(scheduler: Any) -> str:
    """Run a step; returns the ids of the requests in it."""
    plan = scheduler.schedule()
    scheduler.update(plan, Sampled(np.ones(sum(share.num_logits for share in plan), np.int32)))
    return "".join(sorted(share.request.id for share in plan))


def run(scheduler: Any) -> list[str]:
    steps = []
    while scheduler.has_work:
        steps.append(step(scheduler))
    return steps


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("naive", ["a", "b", "b", "b", "c", "c", "d"]),
        ("static", ["abc", "bc", "b", "d"]),
        ("continuous", ["abc", "bcd", "b"]),
        ("adaptive", ["abc", "bcd", "b"]),
    ],
)
def test_who_runs_when(plugins: Plugins, name: str, steps: list[str]) -> None:
    scheduler = make(plugins, name)
    for request_id, num_tokens in [("a", 1), ("b", 3), ("c", 2), ("d", 1)]:
        add(scheduler, request_id, num_tokens)
    assert run(scheduler) == steps


def test_a_static_batch_is_closed_to_late_arrivals_of_any_priority(plugins: Plugins) -> None:
    scheduler = make(plugins, "static")
    add(scheduler, "a", 3)
    assert step(scheduler) == "a"
    add(scheduler, "b", 1)
    add(scheduler, "c", 1, priority=-1)
    assert run(scheduler) == ["a", "a", "bc"]


def test_a_preempted_member_returns_to_its_static_batch(plugins: Plugins) -> None:
    tight = RunnerInfo(**{name: getattr(INFO, name) for name in RunnerInfo.__slots__} | {"num_blocks": 4})
    scheduler = make(plugins, "static", tight)
    a, b = add(scheduler, "a", 8), add(scheduler, "b", 8)
    step(scheduler)
    add(scheduler, "z", 1)
    steps = run(scheduler)
    assert b.num_preemptions > 0 and len(a.token_ids) == len(b.token_ids) == 11
    assert steps[-1] == "z" and "z" not in "".join(steps[:-1])


def test_a_static_batch_goes_on_when_its_members_leave(plugins: Plugins) -> None:
    scheduler = make(plugins, "static")
    for name in "abcd":
        add(scheduler, name, 5)
    step(scheduler)
    for name in "abc":
        assert scheduler.abort(name)
    assert run(scheduler) == ["d"] * 5


def test_the_built_in_names_are_all_there(plugins: Plugins) -> None:
    assert {"continuous", "adaptive", "static", "naive"} <= set(plugins.schedulers)
    assert {"paged", "contiguous"} <= set(plugins.kv_caches)
    assert "host" in set(plugins.samplers) and {"ngram", "model"} <= set(plugins.drafters)
    assert plugins.samplers.get_factory("host")(INFO).sample is not None
