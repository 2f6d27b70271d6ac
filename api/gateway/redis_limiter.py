"""RedisLimiter: counts that several server processes share, in Redis or Valkey."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.resources import files
from typing import Any

from ..errors import NotReady
from .gcra import Rate
from .limiter import Demand, Level, MemoryLimiter, Verdict

log = logging.getLogger("isotoken.gateway")

_KEYS = "isotoken:limit:"  # what redis's keys begin with
TIMEOUT_S = 0.5  # for one answer: a request waits no longer for its limits
_MAX_CONNECTIONS = 16  # of one process: requests beyond wait for one
_REST_S = 2.0  # after a failure, before redis is asked again
_LEASE_S = 60.0  # that the places of a process are kept after its last sign of life
_MAX_LATER = 100_000  # things to tell redis that may pile up

_MICRO = 1_000_000


class RedisLimiter:
    """One for each process. When redis does not answer, it counts in memory, or refuses, as it was told."""

    def __init__(
        self,
        url: str,
        *,
        when_it_fails: str = "local",
        timeout_s: float = TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connect to nothing yet. Raises ImportError without the library and ValueError for a URL that is none."""
        import redis.asyncio as redis  # noqa: PLC0415  (an extra)

        self._pool: Any = redis.BlockingConnectionPool.from_url(
            url,
            max_connections=_MAX_CONNECTIONS,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
        )
        self._redis: Any = redis.Redis(connection_pool=self._pool)
        self._take = self._redis.register_script(files(__package__).joinpath("limiter.lua").read_text())
        self._settle = self._redis.register_script(files(__package__).joinpath("settle.lua").read_text())
        self._local = MemoryLimiter(clock=clock)
        self._refuses = when_it_fails == "refuse"
        self._clock = clock
        self._rests_until = 0.0
        self._process = secrets.token_hex(6)  # whose places these are
        self._places: dict[tuple[str, str], None] = {}  # bucket and holder, held in redis
        self._later: asyncio.Queue[Callable[[], Any]] = asyncio.Queue(_MAX_LATER)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def is_resting(self) -> bool:
        """Whether redis failed a moment ago, and is not asked."""
        return self._clock() < self._rests_until

    async def take(self, demands: Sequence[Demand], holder: str) -> Verdict:
        """Take all or nothing."""
        if not self._tasks:
            self._tasks = [asyncio.create_task(work()) for work in (self._tell_later, self._renew)]
        if not self.is_resting:
            try:
                answer = await self._take(
                    keys=[_KEYS + demand.name for demand in demands],
                    args=[self._name(holder), _LEASE_S, *(arg for demand in demands for arg in _arguments(demand))],
                )
            except Exception as error:
                self._failed(error)
            else:
                return self._verdict(demands, holder, answer)
        if self._refuses:
            raise NotReady("running", "limits cannot be looked up now: redis does not answer")
        return self._local.take_now(demands, holder)

    def settle(self, demand: Demand, used: int) -> None:
        """Correct what was taken: in memory what was taken there would have faded by itself."""
        shift = (used - demand.amount) * Rate(demand.limit, demand.window_s).interval * _MICRO
        if self.is_resting:
            self._local.settle(demand, used)
        elif shift:
            self._do_later(lambda: self._settle(keys=[_KEYS + demand.name], args=[round(shift)]))

    def release(self, demands: Sequence[Demand], holder: str) -> None:
        """Give places back."""
        self._local.release(demands, holder)
        for demand in demands:
            if self._places.pop((demand.name, holder), 0) is None:
                self._do_later(partial(self._redis.zrem, _KEYS + demand.name, self._name(holder)))

    async def close(self) -> None:
        """Give every place back."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(Exception):  # then they fall free by themselves
            while not self._later.empty():
                await self._later.get_nowait()()
            for name, holder in self._places:
                await self._redis.zrem(_KEYS + name, self._name(holder))
        with contextlib.suppress(Exception):
            await self._pool.disconnect(inuse_connections=True)

    def _name(self, holder: str) -> str:
        return f"{self._process}:{holder}"

    def _verdict(self, demands: Sequence[Demand], holder: str, answer: list[int]) -> Verdict:
        number, numbers = answer[0], answer[1:]
        levels = [Level(numbers[3 * i], numbers[3 * i + 1] / _MICRO) for i in range(len(demands))]
        if not number:
            self._places |= {(each.name, holder): None for each in demands if each.kind == "concurrency"}
            return Verdict(levels)
        return Verdict(levels, demands[number - 1], max(numbers[2::3]) / _MICRO)

    def _failed(self, error: Exception) -> None:
        if not self.is_resting:
            policy = "requests are refused" if self._refuses else "each process counts for itself"
            log.error("redis does not answer, and meanwhile %s: %r", policy, error)
        self._rests_until = self._clock() + _REST_S

    def _do_later(self, work: Callable[[], Any]) -> None:
        with contextlib.suppress(asyncio.QueueFull):  # redis was away for long: rates fade, and places fall free
            self._later.put_nowait(work)

    async def _tell_later(self) -> None:
        while True:
            work = await self._later.get()
            if not self.is_resting:
                try:
                    await work()
                except Exception as error:
                    self._failed(error)

    async def _renew(self) -> None:
        """Show that this process lives, so that its places stay its own."""
        while True:
            await asyncio.sleep(_LEASE_S / 3)
            try:
                seconds, _ = await self._redis.time()  # its clock, as in limiter.lua
                until = (seconds + _LEASE_S) * _MICRO
                async with self._redis.pipeline(transaction=False) as pipeline:
                    for name, holder in tuple(self._places):
                        pipeline.zadd(_KEYS + name, {self._name(holder): until}, xx=True)
                        pipeline.pexpire(_KEYS + name, round(_LEASE_S * 1000))
                    await pipeline.execute()
            except Exception as error:
                self._failed(error)


def _arguments(demand: Demand) -> tuple[str, int, int, float]:
    kind = "c" if demand.kind == "concurrency" else "r"
    return kind, demand.limit, demand.amount, demand.window_s
