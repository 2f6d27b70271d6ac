"""Counts in Redis: shared between processes, exact under races, and a stated policy when it is gone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from isotoken.api.errors import NotReady
from isotoken.api.gateway.limiter import Demand
from isotoken.api.gateway.redis_limiter import RedisLimiter

from ...services import ServiceProcess

Redis = tuple[ServiceProcess, int]


def patient(url: str, **more: Any) -> RedisLimiter:
    """One that gives a loaded machine the time that it takes."""
    return RedisLimiter(url, **{"timeout_s": 30.0, **more})


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(bounded())


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():
        await asyncio.sleep(0.01)


def requests(limit: int, amount: int = 1, bucket: str = "a") -> Demand:
    return Demand(bucket, "requests", limit, amount)


def test_two_processes_share_a_limit(redis_url: str) -> None:
    async def test() -> None:
        limiters = [patient(redis_url) for _ in range(2)]
        granted = 0
        for i in range(20):
            verdict = await limiters[i % 2].take([requests(10)], "x")
            granted += verdict.refused is None
        assert granted == 10
        assert verdict.refused == requests(10)
        assert 0 < verdict.retry_after <= 6.001
        assert verdict.levels[0].remaining == 0
        assert 50 < verdict.levels[0].reset_s <= 60
        for limiter in limiters:
            await limiter.close()

    run(test)


def test_a_race_grants_no_more_than_there_is(redis_url: str) -> None:
    async def test() -> None:
        limiters = [patient(redis_url) for _ in range(4)]
        day = 86_400.0  # so that nothing grows back meanwhile, however loaded the machine is
        demands = [Demand(bucket, "requests", limit, 1, day) for bucket, limit in (("a", 50), ("b", 1000))]
        verdicts = await asyncio.gather(*(limiters[i % 4].take(demands, f"h{i}") for i in range(200)))
        assert sum(verdict.refused is None for verdict in verdicts) == 50
        (level,) = (await limiters[0].take(demands[1:], "x")).levels
        assert level.remaining == 1000 - 51  # what was refused took nothing of the other bucket
        for limiter in limiters:
            await limiter.close()

    run(test)


@pytest.mark.parametrize("seed", range(3))
def test_it_grants_as_the_one_in_memory_does(redis_url: str, seed: int) -> None:
    """The same demands, given back and taken beyond, with a window so long that no time passes for it."""

    async def test() -> None:
        draw = random.Random(seed)
        shared = patient(redis_url)
        local = shared._local
        for i in range(150):
            demand = Demand(f"b{draw.randint(0, 2)}", "tokens", 1000, draw.randint(1, 300), window_s=1e6)
            here, there = local.take_now([demand], str(i)), await shared.take([demand], str(i))
            assert (here.refused is None) == (there.refused is None), f"seed {seed}, {i}"
            assert abs(here.levels[0].remaining - there.levels[0].remaining) <= 1, f"seed {seed}, {i}"
            if here.refused is None and draw.random() < 0.7:
                used = draw.randint(0, 320)
                local.settle(demand, used)
                shared.settle(demand, used)

                async def told() -> bool:
                    return shared._later.empty()

                await eventually(told)
                await shared._redis.ping()  # whatever was sent before has been done
        await shared.close()

    run(test)


def test_places_are_shared_and_come_back(redis_url: str) -> None:
    async def test() -> None:
        first, second = patient(redis_url), patient(redis_url)
        place = Demand("a", "concurrency", 2)
        assert (await first.take([place], "x")).refused is None
        assert (await second.take([place], "x")).refused is None  # another holder: names are each process's own
        assert (await second.take([place], "y")).refused == place
        first.release([place], "x")
        first.release([place], "x")

        async def free() -> bool:
            return (await second.take([place], "y")).refused is None

        await eventually(free)
        await second.close()  # a process that ends gives its places back
        assert (await first.take([place], "1")).refused is None
        assert (await first.take([place], "2")).refused is None
        await first.close()

    run(test)


def test_places_of_a_process_that_died_fall_free(redis_url: str) -> None:
    async def test() -> None:
        limiter = patient(redis_url)
        place = Demand("a", "concurrency", 1)
        await limiter._redis.zadd("isotoken:limit:concurrency:a", {"dead:x": 1.0})  # its lease ended long ago
        assert (await limiter.take([place], "y")).refused is None
        await limiter.close()

    run(test)


def test_redis_gone_each_process_counts_for_itself_and_shares_again_when_it_is_back(
    redis_server: Redis, redis_url: str
) -> None:
    server, _ = redis_server

    async def test() -> None:
        now = 0.0
        limiter = patient(redis_url, clock=lambda: now)
        place = Demand("a", "concurrency", 1)
        assert (await limiter.take([requests(2), place], "x")).refused is None
        server.stop()
        try:
            verdicts = [await limiter.take([requests(2)], "y") for _ in range(3)]
            assert [verdict.refused is None for verdict in verdicts] == [True, True, False]
            assert limiter.is_resting
            limiter.release([place], "x")
            limiter.settle(requests(2), 0)
        finally:
            server.start()
        now = 10.0
        assert not limiter.is_resting
        assert (await limiter.take([requests(2)], "z")).levels[0].remaining == 1  # redis came back empty
        await limiter.close()

    run(test)


def test_redis_gone_all_is_refused_where_that_was_asked_for(redis_server: Redis, redis_url: str) -> None:
    server, _ = redis_server

    async def test() -> None:
        limiter = patient(redis_url, when_it_fails="refuse")
        assert (await limiter.take([requests(2)], "x")).refused is None
        server.stop()
        try:
            for _ in range(2):
                with pytest.raises(NotReady, match="redis does not answer"):
                    await limiter.take([requests(2)], "x")
        finally:
            server.start()
        await limiter.close()

    run(test)


def test_a_redis_that_hangs_holds_nobody_up(redis_server: Redis, redis_url: str) -> None:
    server, _ = redis_server

    async def test() -> None:
        limiter = patient(redis_url, timeout_s=0.5)
        assert (await limiter.take([requests(5)], "x")).refused is None
        server.pause()
        try:
            assert (await limiter.take([requests(5)], "x")).refused is None  # by its own count, after a timeout
            assert limiter.is_resting
        finally:
            server.resume()
        await limiter.close()

    run(test)
