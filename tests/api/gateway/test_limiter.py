"""Counting in memory: no more than the limit in any window beside what a full bucket holds, all or nothing, bounded."""

from __future__ import annotations

import random

import pytest
from isotoken.api.gateway.gcra import Rate
from isotoken.api.gateway.limiter import Demand, MemoryLimiter


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def requests(bucket: str = "a", limit: int = 3, amount: int = 1, window_s: float = 60.0) -> Demand:
    return Demand(bucket, "requests", limit, amount, window_s)


def places(bucket: str = "a", limit: int = 2) -> Demand:
    return Demand(bucket, "concurrency", limit)


def test_a_full_bucket_gives_its_limit_at_once_and_refills_evenly() -> None:
    clock = Clock()
    limiter = MemoryLimiter(clock=clock)
    remaining = [limiter.take_now([requests()], "x").levels[0].remaining for _ in range(3)]
    assert remaining == [2, 1, 0]
    verdict = limiter.take_now([requests()], "x")
    assert verdict.refused == requests()
    assert verdict.retry_after == pytest.approx(20, abs=1e-3)
    assert verdict.levels[0].reset_s == pytest.approx(60)
    clock.now += verdict.retry_after
    assert limiter.take_now([requests()], "x").refused is None
    assert limiter.take_now([requests()], "x").refused is not None


@pytest.mark.parametrize("seed", range(5))
def test_no_window_sees_more_than_the_limit_beside_a_full_bucket(seed: int) -> None:
    draw = random.Random(seed)
    clock = Clock()
    limiter = MemoryLimiter(clock=clock)
    limit, window = draw.randint(1, 50), draw.uniform(0.5, 90)
    granted: list[tuple[float, int]] = []
    for _ in range(2000):
        clock.now += draw.expovariate(3 * limit / window)
        amount = draw.randint(1, max(1, limit // 3))
        if limiter.take_now([requests(limit=limit, amount=amount, window_s=window)], "x").refused is None:
            granted.append((clock.now, amount))
    for i in range(0, len(granted), 7):
        start, total = granted[i][0], 0
        for at, amount in granted[i:]:
            total += amount
            assert total <= limit * (1 + (at - start) / window) + 1e-3, f"seed {seed}"
    total = sum(amount for _, amount in granted)
    assert total > 0.8 * limit * (granted[-1][0] - granted[0][0]) / window, f"seed {seed}: less than what was due"


def test_several_demands_are_granted_together_or_not_at_all() -> None:
    limiter = MemoryLimiter(clock=Clock())
    assert limiter.take_now([requests("a"), requests("b", limit=1)], "x").refused is None
    verdict = limiter.take_now([requests("a"), requests("b", limit=1)], "x")
    assert verdict.refused == requests("b", limit=1)
    assert verdict.levels[0].remaining == 2  # nothing was taken of the first


def test_what_was_not_used_is_given_back_and_what_was_used_beyond_is_taken() -> None:
    limiter = MemoryLimiter(clock=Clock())
    demand = Demand("a", "tokens", 100, 80)
    limiter.take_now([demand], "x")
    limiter.settle(demand, 10)
    assert limiter.take_now([Demand("a", "tokens", 100, 90)], "x").refused is None
    limiter.settle(Demand("a", "tokens", 100, 90), 150)
    verdict = limiter.take_now([Demand("a", "tokens", 100, 1)], "x")
    assert verdict.retry_after == pytest.approx(60 * 61 / 100, abs=1e-3)


def test_a_request_larger_than_the_limit_waits_for_a_full_bucket_and_those_after_it_pay() -> None:
    clock = Clock()
    limiter = MemoryLimiter(clock=clock)
    large = Demand("a", "tokens", 100, 250)
    assert limiter.take_now([large], "x").refused is None
    verdict = limiter.take_now([Demand("a", "tokens", 100, 1)], "x")
    assert verdict.retry_after == pytest.approx(151 * 0.6, abs=1e-3)
    clock.now += verdict.retry_after + 1e-3
    assert limiter.take_now([Demand("a", "tokens", 100, 1)], "x").refused is None


def test_places_are_held_until_they_are_given_back() -> None:
    limiter = MemoryLimiter(clock=Clock())
    for holder in "xy":
        assert limiter.take_now([places()], holder).refused is None
    assert limiter.take_now([places()], "z").refused == places()
    limiter.release([places()], "x")
    limiter.release([places()], "x")  # harmless
    assert limiter.take_now([places()], "z").refused is None
    for holder in "yz":
        limiter.release([places()], holder)
    assert len(limiter) == 0


def test_many_addresses_take_bounded_memory_and_forgive_nobody_who_is_active() -> None:
    clock = Clock()
    limiter = MemoryLimiter(clock=clock, max_buckets=100)
    for i in range(10_000):
        clock.now += 1.0
        limiter.take_now([requests(f"address-{i}", limit=60)], "x")
        assert len(limiter) <= 100
    active = requests("active", limit=3000)
    for i in range(1000):  # all at once: none is full again, and those out of use go
        limiter.take_now([requests(f"burst-{i}", limit=1)], "x")
        assert limiter.take_now([active], "x").levels[0].remaining == 2999 - i
        assert len(limiter) <= 100
    limiter.settle(requests("address-1", limit=60), 0)  # one that was forgotten
    assert len(limiter) <= 100
    assert limiter.take_now([requests("burst-999", limit=1)], "x").refused is not None


def test_the_arithmetic_has_no_drift() -> None:
    rate, full_at = Rate(7, 60.0), 0.0
    for i in range(100_000):
        now = i * rate.interval
        assert rate.wait(full_at, now, 1) == 0
        full_at = rate.after(full_at, now, 1)
    assert rate.remaining(full_at, 100_000 * rate.interval) == 7
