"""What a limiter is asked, and the one that counts in this process's memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from .gcra import Rate

MAX_BUCKETS = 100_000
"""Buckets kept at once: addresses are free to an attacker. Some 20 MB."""


@dataclass(frozen=True, slots=True)
class Demand:
    """So much of one bucket: of its rate, or places among those that may be taken at once."""

    bucket: str  # whose, such as "key_8f3a" or an address
    kind: Literal["requests", "tokens", "concurrency"]
    limit: int
    amount: int = 1
    window_s: float = 60.0  # of rates

    @property
    def name(self) -> str:
        """What the bucket is called where it is kept."""
        return f"{self.kind}:{self.bucket}"


@dataclass(frozen=True, slots=True)
class Level:
    """How a bucket stands."""

    remaining: int
    reset_s: float  # until it is full again


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether all that was demanded is granted; if not, nothing was taken."""

    levels: Sequence[Level]  # of each demand, as it is now
    refused: Demand | None = None  # the first that is not granted
    retry_after: float = 0.0  # seconds until the demands can be met


class Limiter(Protocol):
    """Keeps count. One for each server process, which may share its counts with others."""

    async def take(self, demands: Sequence[Demand], holder: str) -> Verdict:
        """Take all that is demanded or nothing. `holder` names who holds the places, unique in this process."""
        ...

    def settle(self, demand: Demand, used: int) -> None:
        """Say how much of a rate's demand was really used: the rest is given back, or what is more is taken. At once.

        Must not block; what it has to wait for it does later.
        """
        ...

    def release(self, demands: Sequence[Demand], holder: str) -> None:
        """Give places back. Likewise; harmless when repeated."""
        ...

    async def close(self) -> None:
        """Give everything back."""
        ...


class MemoryLimiter:
    """Counts in this process."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, max_buckets: int = MAX_BUCKETS) -> None:
        self._clock = clock
        self._max_buckets = max_buckets
        self._full_at: dict[str, float] = {}  # the one that was not used for longest first
        self._holders: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._full_at) + len(self._holders)

    async def take(self, demands: Sequence[Demand], holder: str) -> Verdict:
        """Take all or nothing."""
        return self.take_now(demands, holder)

    def take_now(self, demands: Sequence[Demand], holder: str) -> Verdict:
        """Do as `take`."""
        now = self._clock()
        waits = [self._wait(demand, now, holder) for demand in demands]
        refused = next((demand for demand, wait in zip(demands, waits, strict=True) if wait > 0), None)
        if refused is None:
            for demand in demands:
                self._take(demand, now, holder)
        levels = [self._level(demand, now) for demand in demands]
        return Verdict(levels, refused, max(waits, default=0.0))

    def settle(self, demand: Demand, used: int) -> None:
        """Correct what was taken."""
        if demand.name in self._full_at:  # else it was forgotten, or counted elsewhere
            rate = Rate(demand.limit, demand.window_s)
            self._full_at[demand.name] += (used - demand.amount) * rate.interval

    def release(self, demands: Sequence[Demand], holder: str) -> None:
        """Give places back."""
        for demand in demands:
            holders = self._holders.get(demand.name)
            if holders is not None:
                holders.discard(holder)
                if not holders:
                    del self._holders[demand.name]

    async def close(self) -> None:
        """There is nothing that outlives the process."""

    def _wait(self, demand: Demand, now: float, holder: str) -> float:
        if demand.kind != "concurrency":
            rate = Rate(demand.limit, demand.window_s)
            return rate.wait(self._full_at.get(demand.name, now), now, demand.amount)
        holders = self._holders.get(demand.name, ())
        return 1.0 if len(holders) >= demand.limit and holder not in holders else 0.0

    def _take(self, demand: Demand, now: float, holder: str) -> None:
        name = demand.name
        if demand.kind == "concurrency":
            self._holders.setdefault(name, set()).add(holder)
            return
        if name not in self._full_at and len(self._full_at) >= self._max_buckets:
            self._make_room(now)
        rate = Rate(demand.limit, demand.window_s)
        self._full_at[name] = rate.after(self._full_at.pop(name, now), now, demand.amount)

    def _level(self, demand: Demand, now: float) -> Level:
        if demand.kind == "concurrency":
            return Level(max(0, demand.limit - len(self._holders.get(demand.name, ()))), 0.0)
        rate = Rate(demand.limit, demand.window_s)
        full_at = self._full_at.get(demand.name, now)
        return Level(rate.remaining(full_at, now), rate.reset(full_at, now))

    def _make_room(self, now: float) -> None:
        """Forget buckets that are full, which changes nothing; if there are none, the tenth longest out of use."""
        for name in [name for name, full_at in self._full_at.items() if full_at <= now]:
            del self._full_at[name]
        if len(self._full_at) >= self._max_buckets:
            for name in _first(self._full_at, 1 + self._max_buckets // 10):
                del self._full_at[name]


def _first(names: Iterable[str], count: int) -> list[str]:
    return [name for name, _ in zip(names, range(count), strict=False)]
