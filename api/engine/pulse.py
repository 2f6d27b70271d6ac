"""Pulse: whether an engine that has work gets on with it, judged from outside its process."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil

from ...core.types import StepStats

LOOK_S = 1.0
"""Seconds between looks. Nothing is done for them while messages come."""

_UNMEASURED_S = 60.0  # for steps of an engine of which nothing is known: it may be compiling
_MARGIN = 4.0  # times the slowest step of its size, of late
_DECAY = 0.98  # by which the memory of a slow step fades with each faster one
_IDLE = 0.01  # of a core: what uses less computes nothing


class StepTimes:
    """What steps take: the slowest of late, by powers of two of their tokens."""

    def __init__(self) -> None:
        self._slowest: dict[int, float] = {}  # seconds, by the bit length of the number of tokens

    def add(self, num_tokens: int, seconds: float) -> None:
        """Note a step."""
        size = num_tokens.bit_length()
        self._slowest[size] = max(seconds, self._slowest.get(size, 0.0) * _DECAY)

    def expected(self, num_tokens: int) -> float | None:
        """Return what a step of so many tokens may take; None: nothing was measured yet.

        A size that was never seen is judged by a larger one, which takes no less, or in proportion to the largest.
        """
        if not self._slowest:
            return None
        size = num_tokens.bit_length()
        smaller = max((seconds for known, seconds in self._slowest.items() if known <= size), default=0.0)
        larger = [known for known in self._slowest if known >= size]
        if larger:
            return max(smaller, self._slowest[min(larger)])
        largest = max(self._slowest)
        return max(smaller, self._slowest[largest] * 2.0 ** (size - largest))


class Pulse:
    """Tells an engine that is stuck from one that is slow.

    Silence alone proves nothing, since a step over a long prompt may rightly take long. It is held against what this
    engine's steps have taken, and against whether its process computes at all: on a CPU, one that has work and uses
    no CPU time waits for something that will not come.
    """

    def __init__(self, patience: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self._clock = clock
        self.reset(None)

    def reset(self, process: CpuMeter | None, *, computes_on_cpu: bool = True) -> None:
        """A new process, of which nothing is known yet; None: there is none."""
        self.times = StepTimes()
        self.is_stuck = False
        self._process = process
        self._computes_on_cpu = computes_on_cpu
        self._since: float | None = None
        self._idle_since: float | None = None
        self._last_look = self._clock()

    @property
    def silence(self) -> float:
        """Seconds for which it has owed a message; 0: it owes none."""
        return 0.0 if self._since is None else self._clock() - self._since

    def asked(self) -> None:
        """Something was sent to it, which it will answer."""
        if self._since is None:
            self._since = self._clock()

    def heard(self, stats: StepStats | None, *, has_work: bool) -> None:
        """A message came: it got on."""
        if stats is not None and stats.num_tokens:
            self.times.add(stats.num_tokens, stats.duration)
        self._since = self._clock() if has_work else None
        self._idle_since = None
        self.is_stuck = False

    def look(self, num_tokens: Callable[[], int]) -> bool:
        """Return whether it is stuck. `num_tokens()` is how many the step under way may have at most."""
        now = self._clock()
        late = now - self._last_look - LOOK_S
        self._last_look = now
        if self._since is None or now - self._since < LOOK_S:
            return self.is_stuck
        if late > LOOK_S:  # it is this process that was held up: what the engine said meanwhile is still to be read
            self._since += late
            return self.is_stuck
        self._watch_cpu(now)
        silence = now - self._since
        self.is_stuck = silence > self._patience and (self._is_idle(now) or silence > self._bound(num_tokens()))
        return self.is_stuck

    def _bound(self, num_tokens: int) -> float:
        expected = self.times.expected(num_tokens)
        return _UNMEASURED_S if expected is None else max(self._patience, _MARGIN * expected)

    def _is_idle(self, now: float) -> bool:
        """Whether it has done nothing for as long as one may be silent. What still loads may wait for a disk."""
        known = self.times.expected(1) is not None
        return known and self._idle_since is not None and now - self._idle_since >= self._patience - LOOK_S

    def _watch_cpu(self, now: float) -> None:
        if self._process is None or not self._computes_on_cpu:
            return
        if self._process.share(now) >= _IDLE:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now


class CpuMeter:
    """The CPU time of a process, of all its threads."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._last: tuple[float, float] | None = None

    def seconds(self) -> float:
        """Return the CPU time used so far. 0 where the process is gone."""
        try:
            times = self._process.cpu_times()
        except psutil.Error:
            return 0.0
        return float(times.user + times.system)

    def share(self, now: float) -> float:
        """Return how many cores it has used since the last call; the first time, and where it cannot be told, 1."""
        used, last = self.seconds(), self._last
        self._last = now, used
        if last is None or now <= last[0]:
            return 1.0
        return (used - last[1]) / (now - last[0])
