"""Sums over the last so many seconds, in constant memory."""

from __future__ import annotations

import time
from collections import deque


class SlidingWindow:
    """Adds things up and forgets those that are older than the window, to a second."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._buckets: deque[list[float]] = deque()  # [second, sum]

    def add(self, amount: float) -> None:
        """Count an amount now."""
        second = time.monotonic() // 1
        if self._buckets and self._buckets[-1][0] == second:
            self._buckets[-1][1] += amount
        else:
            self._buckets.append([second, amount])
            self._forget(second)

    def total(self) -> float:
        """Return the sum over the window."""
        self._forget(time.monotonic() // 1)
        return sum(amount for _, amount in self._buckets)

    def _forget(self, now: float) -> None:
        while self._buckets and self._buckets[0][0] < now - self._seconds:
            self._buckets.popleft()
