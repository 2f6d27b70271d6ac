"""The fair queue: shares follow weights, nobody starves, nothing is lost, and no place stays empty that is wanted."""

from __future__ import annotations

import random
from collections import Counter
from itertools import count

import pytest
from isotoken.api.gateway.fair_queue import FairQueue, Ticket

SEEDS = range(8)


def ticket(tenant: str = "a", cost: float = 1.0, **more: float) -> Ticket:
    return Ticket(tenant, cost, **more)  # type: ignore[arg-type]


def drain(queue: FairQueue, now: float = 0.0) -> list[Ticket]:
    return [popped for _ in range(len(queue)) if (popped := queue.pop(now)) is not None]


def test_one_tenant_is_served_in_order() -> None:
    queue = FairQueue()
    tickets = [ticket(arrival=i) for i in range(10)]
    for each in tickets:
        queue.push(each)
    assert drain(queue) == tickets
    assert queue.pop(0.0) is None
    assert queue.peek(0.0) is None


def test_a_tenant_with_a_long_queue_does_not_keep_another_waiting() -> None:
    queue = FairQueue()
    for _ in range(1000):
        queue.push(ticket("many"))
    queue.pop(0.0)
    late = ticket("few")
    queue.push(late)
    assert late in (queue.pop(0.0), queue.pop(0.0))


@pytest.mark.parametrize("seed", SEEDS)
def test_saturated_tenants_get_tokens_by_their_weights(seed: int) -> None:
    """Whatever the sizes of their requests: within two of the largest requests of their due."""
    draw = random.Random(seed)
    weights = {f"t{i}": draw.choice([0.5, 1, 2, 5]) for i in range(draw.randint(2, 6))}
    sizes = {tenant: draw.choice([10, 100, 1000]) for tenant in weights}
    queue, served = FairQueue(), Counter[str]()
    fresh = count()

    def refill(tenant: str) -> None:
        cost = draw.uniform(0.5, 1.5) * sizes[tenant]
        queue.push(ticket(tenant, cost, weight=weights[tenant], arrival=next(fresh)))

    for tenant in weights:
        for _ in range(3):
            refill(tenant)
    for _ in range(5000):
        popped = queue.pop(float(next(fresh)))
        assert popped is not None
        served[popped.tenant] += popped.cost  # type: ignore[assignment]
        refill(popped.tenant)
    virtual = [served[tenant] / weights[tenant] for tenant in weights]
    largest = max(1.5 * sizes[tenant] / weights[tenant] for tenant in weights)
    assert max(virtual) - min(virtual) <= 2 * largest, f"seed {seed}: {served} for {weights}"


@pytest.mark.parametrize("seed", SEEDS)
def test_shares_follow_what_was_used_and_not_what_was_reserved(seed: int) -> None:
    """A tenant that reserves ten times what it uses gets its share all the same."""
    draw = random.Random(seed)
    queue, used = FairQueue(), Counter[str]()
    running: list[Ticket] = []
    for tenant in ("honest", "careful"):
        for _ in range(20):
            queue.push(ticket(tenant, 100.0 if tenant == "honest" else 1000.0))
    for _ in range(4000):
        while len(running) < 4 and (popped := queue.pop(0.0)) is not None:
            running.append(popped)
        done = running.pop(draw.randrange(len(running)))
        used[done.tenant] += 100
        queue.settle(done, 100.0)
        queue.push(ticket(done.tenant, done.cost))
    assert used["careful"] == pytest.approx(used["honest"], rel=0.05), f"seed {seed}"


def test_being_idle_saves_nothing_up() -> None:
    queue = FairQueue()
    for _ in range(100):
        queue.push(ticket("busy"))
        queue.pop(0.0)
    for _ in range(20):
        queue.push(ticket("busy"))
        queue.push(ticket("back"))
    first = Counter(queue.pop(0.0).tenant for _ in range(10))  # type: ignore[union-attr]
    assert first["back"] <= 6


def test_a_lower_priority_number_goes_first() -> None:
    queue = FairQueue(ageing_s=5.0)
    queue.push(ticket("a", priority=1))
    queue.push(ticket("b", priority=-3))
    queue.push(ticket("c", priority=0))
    assert [each.priority for each in drain(queue)] == [-3, 0, 1]


@pytest.mark.parametrize("seed", SEEDS)
def test_no_flood_of_high_priority_starves_a_low_one(seed: int) -> None:
    """One place, more high priority work than it holds: the low one goes once its wait outweighs the difference."""
    draw = random.Random(seed)
    ageing, difference = draw.uniform(1, 5), draw.randint(1, 4)
    queue = FairQueue(ageing_s=ageing)
    low = ticket("low", priority=difference, arrival=0.0)
    queue.push(low)
    now, waiting = 0.0, 0
    while True:
        for _ in range(2):  # twice what is served
            queue.push(ticket(f"high{draw.randint(0, 3)}", arrival=now))
            waiting += 1
        if queue.pop(now) is low:
            break
        now += 0.05
        # The others' queue grows, and so does their oldest wait: at half of their age the low one has caught up.
        assert now <= 2 * (difference + 2) * ageing, f"seed {seed}"


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_doubled_or_kept_back(seed: int) -> None:
    """Any order of pushes, pops, discards and settlements: what waits comes out once, and always comes at once."""
    draw = random.Random(seed)
    queue, waiting, gone, running = FairQueue(), set[Ticket](), set[Ticket](), []
    now = 0.0
    for _ in range(5000):
        now += draw.expovariate(10)
        match draw.randrange(5):
            case 0 | 1:
                fresh = ticket(
                    f"t{draw.randint(0, 9)}",
                    draw.uniform(1, 100),
                    weight=draw.choice([0.1, 1, 7]),
                    priority=draw.randint(-1, 1),
                    arrival=now,
                )
                queue.push(fresh)
                waiting.add(fresh)
            case 2 | 3:
                expected, popped = queue.peek(now), queue.pop(now)
                assert popped is expected
                assert (popped is not None) == bool(waiting), f"seed {seed}: work was there and nothing came"
                if popped is not None:
                    waiting.remove(popped)
                    gone.add(popped)
                    running.append(popped)
            case _:
                if waiting and draw.random() < 0.5:
                    left = draw.choice(sorted(waiting, key=id))
                    queue.discard(left)
                    queue.discard(left)
                    waiting.remove(left)
                elif running:
                    done = running.pop()
                    queue.settle(done, draw.uniform(0, done.cost))
        assert len(queue) == len(waiting)
    rest = drain(queue, now)
    assert set(rest) == waiting
    assert len(rest) == len(waiting)
    assert not gone & set(rest)


def test_the_cost_before_a_newcomer_is_what_goes_before_it() -> None:
    """Against the truth: push a newcomer, and add up what comes out before it."""
    for seed in range(30):
        draw = random.Random(seed)
        queue = FairQueue(ageing_s=1e9)
        weights = {f"t{i}": draw.choice([0.5, 1, 3]) for i in range(5)}
        for _ in range(60):
            tenant = draw.choice(list(weights))
            queue.push(ticket(tenant, draw.uniform(1, 50), weight=weights[tenant], priority=draw.randint(0, 1)))
        for _ in range(10):
            queue.pop(0.0)
        tenant = draw.choice([*weights, "new"])
        weight = weights.get(tenant, 1.0)
        foretold = queue.cost_before(tenant, weight, 1)
        newcomer = ticket(tenant, 10.0, weight=weight, priority=1)
        queue.push(newcomer)
        before = 0.0
        while (popped := queue.pop(0.0)) is not newcomer:
            assert popped is not None
            before += popped.cost
        assert foretold == pytest.approx(before, abs=5 * 50), f"seed {seed}"  # a request of each tenant, at most


def test_tenants_that_come_and_go_leave_nothing_behind() -> None:
    queue = FairQueue()
    for i in range(20_000):
        queue.push(ticket(f"tenant-{i}"))
        queue.pop(0.0)
    (only,) = queue._classes.values()
    assert len(only._flows) < 3000
    assert len(only._heap) < 10_000
