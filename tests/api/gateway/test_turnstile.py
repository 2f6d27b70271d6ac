"""The turnstile: never more inside than there is room, fair order outside, and whoever would wait too long is told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from isotoken.api.errors import Overloaded
from isotoken.api.gateway.turnstile import QueueBounds, Turn, Turnstile


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(bounded())


async def settled() -> None:
    """Let everything run that can."""
    for _ in range(5):
        await asyncio.sleep(0)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def over(turnstile: Turnstile, turn: Turn, used: float = 1.0) -> None:
    turnstile.leave(turn)
    turnstile.settle(turn, used)


def test_as_many_as_there_is_room_for_go_in_at_once() -> None:
    async def test() -> None:
        turnstile = Turnstile(lambda: 3)
        turns = [await turnstile.enter("a", 10.0) for _ in range(3)]
        waiting = asyncio.create_task(turnstile.enter("a", 10.0))
        await settled()
        assert not waiting.done()
        assert (turnstile.num_inside, turnstile.num_waiting) == (3, 1)
        over(turnstile, turns[0])
        await waiting
        assert (turnstile.num_inside, turnstile.num_waiting) == (3, 0)

    run(test)


def test_a_request_of_many_choices_takes_as_many_places_and_is_not_passed_by() -> None:
    async def test() -> None:
        turnstile = Turnstile(lambda: 4)
        first = [await turnstile.enter("a", 1.0, num_choices=2) for _ in range(2)]
        large = asyncio.create_task(turnstile.enter("b", 1.0, num_choices=99))  # as many as there are, at most
        await settled()
        small = asyncio.create_task(turnstile.enter("c", 1.0))
        await settled()
        over(turnstile, first[0])
        await settled()
        assert not large.done()
        assert not small.done()
        over(turnstile, first[1])
        over(turnstile, await large)
        await small

    run(test)


def test_places_go_to_tenants_in_turn() -> None:
    async def test() -> None:
        turnstile = Turnstile(lambda: 1)
        order: list[str] = []

        async def ask(tenant: str) -> None:
            turn = await turnstile.enter(tenant, 10.0)
            order.append(tenant)
            await asyncio.sleep(0)
            over(turnstile, turn, 10.0)

        async with asyncio.TaskGroup() as group:
            for tenant in "aaaaaabbb":
                group.create_task(ask(tenant))
        assert sorted(order[1:7]) == ["a", "a", "a", "b", "b", "b"], order  # the first had nobody beside it

    run(test)


def test_one_that_leaves_the_queue_gives_its_place_to_nobody_and_one_that_leaves_at_the_door_to_the_next() -> None:
    async def test() -> None:
        turnstile = Turnstile(lambda: 1)
        inside = await turnstile.enter("a", 1.0)
        first, second, third = (asyncio.create_task(turnstile.enter("a", 1.0)) for _ in range(3))
        await settled()
        first.cancel()
        await settled()
        assert turnstile.num_waiting == 2
        over(turnstile, inside)  # lets the second in,
        second.cancel()  # which leaves before it has run
        turn = await third
        assert (turnstile.num_inside, turnstile.num_waiting) == (1, 0)
        over(turnstile, turn)
        assert turnstile.num_inside == 0

    run(test)


def test_a_full_queue_refuses() -> None:
    async def test() -> None:
        turnstile = Turnstile(lambda: 1, QueueBounds(max_waiting=2))
        await turnstile.enter("a", 1.0)
        waiting = [asyncio.create_task(turnstile.enter("a", 1.0)) for _ in range(2)]
        await settled()
        with pytest.raises(Overloaded) as refused:
            await turnstile.enter("a", 1.0)
        assert refused.value.retry_after >= 1
        with pytest.raises(Overloaded):
            turnstile.check("a")
        for task in waiting:
            task.cancel()

    run(test)


def test_a_tenant_that_fills_the_queue_makes_room_for_another() -> None:
    async def test() -> None:
        turnstile = Turnstile(lambda: 1, QueueBounds(max_waiting=4))
        inside = await turnstile.enter("many", 1.0)
        crowd = [asyncio.create_task(turnstile.enter("many", 1.0)) for _ in range(4)]
        await settled()
        turnstile.check("few")
        with pytest.raises(Overloaded):
            turnstile.check("many")
        few = [asyncio.create_task(turnstile.enter("few", 1.0)) for _ in range(3)]
        await settled()
        assert turnstile.num_waiting == 4
        assert [task.done() for task in crowd] == [False, False, True, True]  # the latest left
        assert [task.done() for task in few] == [False, False, True]  # as many of each: nobody makes room any more
        for task in (*crowd[2:], few[2]):
            assert isinstance(task.exception(), Overloaded)
        over(turnstile, inside)
        for task in (*crowd[:2], *few[:2]):
            task.cancel()

    run(test)


def test_whoever_would_wait_too_long_is_told_at_once_and_a_tenant_with_a_short_queue_is_not() -> None:
    async def test() -> None:
        clock = Clock()
        turnstile = Turnstile(lambda: 1, QueueBounds(max_wait_s=5.0), clock=clock)
        turn = await turnstile.enter("many", 10.0)
        tasks = [asyncio.create_task(turnstile.enter("many", 10.0)) for _ in range(3)]
        await settled()
        for _ in range(2):  # 10 tokens a second
            clock.now += 1.0
            over(turnstile, turn, 10.0)
            await settled()
            turn = next(task.result() for task in tasks if task.done())
            tasks = [task for task in tasks if not task.done()]
            tasks.append(asyncio.create_task(turnstile.enter("many", 10.0)))
            await settled()
        tasks += [asyncio.create_task(turnstile.enter("many", 10.0)) for _ in range(4)]
        await settled()
        assert turnstile.expected_wait("many") == pytest.approx(6.0, rel=0.2)
        with pytest.raises(Overloaded, match="would wait"):
            turnstile.check("many")
        with pytest.raises(Overloaded):
            await turnstile.enter("many", 10.0)
        turnstile.check("few")
        assert turnstile.expected_wait("few") < 2.0
        for task in tasks:
            task.cancel()

    run(test)


def test_nobody_waits_longer_than_the_bound_whatever_was_foretold() -> None:
    async def test() -> None:
        turnstile = Turnstile(lambda: 1, QueueBounds(max_wait_s=0.01))
        inside = await turnstile.enter("a", 1.0)
        with pytest.raises(Overloaded, match="waited for too long"):
            await turnstile.enter("a", 1.0)
        assert turnstile.num_waiting == 0
        over(turnstile, inside)
        over(turnstile, await turnstile.enter("a", 1.0))

    run(test)


def test_requests_on_their_way_count() -> None:
    """A thousand that come at once may not all be let past the check before the first of them queues."""

    async def test() -> None:
        turnstile = Turnstile(lambda: 1, QueueBounds(max_waiting=2))
        let_past = 0
        for _ in range(10):
            try:
                turnstile.check("a")
            except Overloaded:
                continue
            turnstile.expect("a")
            let_past += 1
        assert let_past == 3
        for _ in range(3):
            turnstile.expect_no_longer("a")
        turnstile.check("a")

    run(test)


def test_requests_of_one_tenant_that_never_come_stop_nobody_else() -> None:
    """Whoever opens connections and sends no body holds no place in the queue that another tenant could have."""

    async def test() -> None:
        turnstile = Turnstile(lambda: 1, QueueBounds(max_wait_s=5.0, max_waiting=2))
        over(turnstile, await turnstile.enter("slow", 1000.0), 1000.0)  # something to foretell from
        for _ in range(50):
            turnstile.expect("slow")
        with pytest.raises(Overloaded):
            turnstile.check("slow")
        turnstile.check("quick")
        assert turnstile.expected_wait("quick") == 0
        over(turnstile, await turnstile.enter("quick", 1.0))

    run(test)


@pytest.mark.parametrize("seed", range(4))
def test_any_traffic_leaves_it_as_it_was(seed: int) -> None:
    """Arrivals, departures, cancellations and refusals at random: never too many inside, none left in the end."""

    async def test() -> None:
        draw = random.Random(seed)
        turnstile = Turnstile(lambda: 5, QueueBounds(max_wait_s=30.0, max_waiting=40))
        served = 0

        async def ask() -> None:
            nonlocal served
            turn = await turnstile.enter(
                f"t{draw.randint(0, 4)}",
                draw.uniform(1, 50),
                weight=draw.choice([1, 3]),
                priority=draw.randint(0, 2),
                num_choices=draw.choice([1, 1, 1, 2, 9]),
            )
            assert turnstile.num_inside <= 5
            try:
                for _ in range(draw.randint(0, 20)):
                    await asyncio.sleep(0)
                served += 1
            finally:
                over(turnstile, turn, draw.uniform(0, 50))

        tasks = []
        for _ in range(600):
            tasks.append(asyncio.create_task(ask()))
            for _ in range(draw.randint(0, 6)):
                await asyncio.sleep(0)
            if draw.random() < 0.1:
                draw.choice(tasks).cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        unexpected = [r for r in results if r is not None and not isinstance(r, Overloaded | asyncio.CancelledError)]
        assert not unexpected, f"seed {seed}"
        assert served > 100
        assert (turnstile.num_inside, turnstile.num_waiting) == (0, 0), f"seed {seed}"
        over(turnstile, await turnstile.enter("last", 1.0))

    run(test)
