"""GCRA: how a rate is kept to with one number a bucket, the moment at which it would be full again.

A bucket that refills evenly, `limit` units a window, holds `limit` when full. `full_at` says all: taking n moves it
n / limit windows into the future, and what would move it further than a window from now is refused. Giving back moves
it back. The arithmetic in redis (limiter.lua) is the same.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """So many units a window."""

    limit: int
    window_s: float = 60.0

    @property
    def interval(self) -> float:
        """Seconds in which one unit grows back."""
        return self.window_s / self.limit

    def after(self, full_at: float, now: float, amount: float) -> float:
        """Return the new `full_at` once `amount` units are taken, or given back where it is negative."""
        return max(full_at, now) + amount * self.interval

    def wait(self, full_at: float, now: float, amount: float) -> float:
        """Return after how many seconds `amount` units may be taken; 0: now. More than the limit waits for a full one.

        That lets a single request through which asks for more than a minute holds, and makes the next one wait for it.
        """
        ahead = self.after(full_at, now, min(amount, self.limit)) - now
        return max(0.0, ahead - self.window_s - 1e-6)  # a microsecond's grace: sums of fractions are never exact

    def remaining(self, full_at: float, now: float) -> int:
        """Return how many units are left."""
        return max(0, int((self.window_s - max(0.0, full_at - now)) / self.interval + 1e-6))

    def reset(self, full_at: float, now: float) -> float:
        """Return after how many seconds the bucket is full."""
        return max(0.0, full_at - now)
