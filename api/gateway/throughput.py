"""Throughput: how much work is done a second while there is more than enough of it, smoothed."""

from __future__ import annotations

from collections.abc import Callable
from math import exp


class Throughput:
    """Feed it work as it is done; it leaves out the times when there was too little to do."""

    def __init__(self, clock: Callable[[], float], smoothing_s: float = 10.0) -> None:
        self._clock = clock
        self._smoothing_s = smoothing_s
        self._done = 0.0
        self._busy_s = 0.0
        self._busy_since: float | None = None

    def busy(self, is_busy: bool) -> None:
        """Say whether there is enough to do from now on."""
        now = self._clock()
        if self._busy_since is not None:
            passed = now - self._busy_since
            fade = exp(-passed / self._smoothing_s)
            self._done, self._busy_s = self._done * fade, self._busy_s * fade + passed
        self._busy_since = now if is_busy else None

    def done(self, work: float) -> None:
        """Count work that is done."""
        if self._busy_since is not None:
            self._done += work

    @property
    def rate(self) -> float | None:
        """Work a second; None as long as too little was seen to tell."""
        return self._done / self._busy_s if self._done and self._busy_s > 0 else None
