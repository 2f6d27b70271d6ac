"""Turnstile: lets so many requests to an engine at once, the others in fair order, and sheds what would wait too long.

The engine's own queue stays empty this way: whoever is let in is computed in the next step, and who is next is decided
at the last moment, when all that wait are known.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import Overloaded
from .fair_queue import FairQueue, Ticket
from .throughput import Throughput

_MAX_RETRY_AFTER_S = 60.0
_PATIENCE = 1.5  # times the longest wait that was foretold: then a request is refused though it was let queue
_SMOOTHING = 0.05  # of means: the weight of the latest


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueBounds:
    """How long the queue may become."""

    max_wait_s: float = 10.0  # that a request may have to wait, as far as can be foretold; half as much again at most
    max_waiting: int = 1024  # requests
    ageing_s: float = 5.0  # that lift a waiting request by one priority


class Turn(Ticket):
    """A request's place: in the queue, then at the engine."""

    __slots__ = ("admitted", "num_choices", "timer", "told")

    def __init__(
        self, tenant: str, cost: float, *, weight: float, priority: int, arrival: float, num_choices: int
    ) -> None:
        super().__init__(tenant, cost, weight=weight, priority=priority, arrival=arrival)
        self.num_choices = num_choices
        self.admitted = 0.0  # seconds, on the turnstile's clock
        self.told: asyncio.Future[None] | None = None
        self.timer: asyncio.TimerHandle | None = None


class Turnstile:
    """The way to one engine."""

    def __init__(
        self,
        capacity: Callable[[], int],
        bounds: QueueBounds | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`capacity()`: how many choices the engine runs at once."""
        self._capacity = capacity
        self._bounds = bounds or QueueBounds()
        self._clock = clock
        self._queue = FairQueue(self._bounds.ageing_s)
        self._throughput = Throughput(clock)
        self._inside = 0  # choices at the engine
        self._mean_cost = 0.0  # of a request, smoothed
        self._mean_stay = 0.0  # seconds at the engine for each token of cost, smoothed
        self._coming: Counter[str] = Counter()  # by tenant: let past `check`, and have not asked for their turn yet
        self.num_shed = 0

    @property
    def num_waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    @property
    def num_inside(self) -> int:
        """Choices at the engine."""
        return self._inside

    def expect(self, tenant: str) -> None:
        """Count a request that is on its way here, and may never come: so it stops nobody else's."""
        self._coming[tenant] += 1

    def expect_no_longer(self, tenant: str) -> None:
        """It is here, or will not come."""
        self._coming[tenant] -= 1
        if not self._coming[tenant]:
            del self._coming[tenant]

    def expected_wait(self, tenant: str, weight: float = 1.0, priority: int = 0) -> float:
        """Return how long a request of this tenant that came now would wait, in seconds."""
        coming = self._coming[tenant]
        if not self._queue and self._inside + coming < self._capacity():
            return 0.0
        rate = self._throughput.rate or self._guessed_rate()
        if rate is None:
            return 0.0
        return (self._queue.cost_before(tenant, weight, priority) + coming * self._mean_cost) / rate

    def check(self, tenant: str, weight: float = 1.0, priority: int = 0) -> None:
        """Refuse a request that would wait for too long, before anything was done for it. Raises Overloaded."""
        wait = self.expected_wait(tenant, weight, priority)
        if self._is_full(self._coming[tenant]) and self._queue.one_too_many(tenant, weight, priority) is None:
            self._shed("too many requests are waiting", wait)
        if wait > self._bounds.max_wait_s:
            self._shed(f"a request would wait {wait:.0f} s", wait)

    async def enter(
        self, tenant: str, cost: float, *, weight: float = 1.0, priority: int = 0, num_choices: int = 1
    ) -> Turn:
        """Wait for a turn. It must be given to `leave`, and to `settle`, in the end. Raises Overloaded."""
        turn = Turn(
            tenant,
            max(1.0, cost),
            weight=weight,
            priority=priority,
            arrival=self._clock(),
            num_choices=min(num_choices, self._capacity()),
        )
        self._mean_cost = _smoothed(self._mean_cost, turn.cost)
        if self._queue or not self._has_room(turn):
            self.check(tenant, weight, priority)
            self._make_room(turn)
        self._queue.push(turn)
        self._let_in()
        if not turn.admitted:
            await self._wait(turn)
        return turn

    def leave(self, turn: Turn) -> None:
        """The engine is done with a request."""
        self._inside -= turn.num_choices
        self._throughput.done(turn.cost)
        self._mean_stay = _smoothed(self._mean_stay, turn.num_choices * (self._clock() - turn.admitted) / turn.cost)
        self._let_in()

    def settle(self, turn: Turn, used: float) -> None:
        """Say how much of its cost a request used: its tenant gets the rest back."""
        self._queue.settle(turn, max(1.0, used))

    async def _wait(self, turn: Turn) -> None:
        loop = asyncio.get_running_loop()
        turn.told = loop.create_future()
        turn.timer = loop.call_later(
            _PATIENCE * self._bounds.max_wait_s, self._give_up, turn, "a request waited for too long"
        )
        try:
            await turn.told
        except BaseException:  # its client left, or it waited for too long
            if turn.admitted:
                self.leave(turn)
                self.settle(turn, 0.0)
            else:
                self._queue.discard(turn)
                self._look_busy()
            raise
        finally:
            turn.timer.cancel()

    def _make_room(self, turn: Turn) -> None:
        """Where the queue is full, let one go of the tenant that has the most in it."""
        if self._is_full():
            latest = self._queue.one_too_many(turn.tenant, turn.weight, turn.priority)
            if isinstance(latest, Turn):
                self._queue.discard(latest)
                self._give_up(latest, "too many requests are waiting")

    def _give_up(self, turn: Turn, reason: str) -> None:
        if turn.told is not None and not turn.told.done():
            self.num_shed += 1
            turn.told.set_exception(Overloaded(reason, self._retry_after(0.0)))

    def _shed(self, reason: str, wait: float) -> None:
        self.num_shed += 1
        raise Overloaded(reason, self._retry_after(wait))

    def _retry_after(self, wait: float) -> float:
        """Return when the queue is likely to have room: in a second at least, or clients would ask all the time."""
        return float(min(_MAX_RETRY_AFTER_S, max(1.0, wait - self._bounds.max_wait_s)))

    def _guessed_rate(self) -> float | None:
        """Return the tokens a second of an engine that is full, before it was seen so for long enough to measure."""
        return self._capacity() / self._mean_stay if self._mean_stay else None

    def _is_full(self, num_coming: int = 0) -> bool:
        free = max(0, self._capacity() - self._inside)
        return len(self._queue) + num_coming >= self._bounds.max_waiting + free

    def _has_room(self, turn: Turn) -> bool:
        return self._inside + turn.num_choices <= self._capacity()

    def _let_in(self) -> None:
        """Let in whose turn it is, as long as there is room. A large one that is next waits: nobody passes it."""
        now = self._clock()
        while (turn := self._queue.peek(now)) is not None:
            assert isinstance(turn, Turn)
            if turn.told is not None and turn.told.done():  # it gave up and has not run yet
                self._queue.discard(turn)
                continue
            if not self._has_room(turn):
                break
            self._queue.pop(now)
            self._inside += turn.num_choices
            turn.admitted = now or 1e-9
            if turn.told is not None:
                turn.told.set_result(None)
        self._look_busy()

    def _look_busy(self) -> None:
        self._throughput.busy(bool(self._queue))


def _smoothed(mean: float, value: float) -> float:
    return mean + _SMOOTHING * (value - mean) if mean else value
