"""Which values of a label are told by name: the busiest, as many as fit. Everything else is `other`."""

from __future__ import annotations

import time
from collections.abc import Callable

OTHER = "other"
_MAX_LENGTH = 64
_CANDIDATES = 4  # for each place, how many of those without one are counted


class TopLabels:
    """Gives out a bounded number of places, and passes them on now and then to those who are busier.

    An amount is counted under exactly one label, the one that its value has at that moment. So the sum over all labels
    is right at any time, and no series ever jumps: one whose place is lost simply ends.
    """

    def __init__(self, places: int, *, period: float = 600.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._places = places
        self._period = period
        self._clock = clock
        self._shown: dict[str, float] = {}  # how busy they were, of late
        self._others: dict[str, float] = {}  # a sketch of the busiest among the rest
        self._next_review = clock() + period

    def label(self, value: str, weight: float = 1.0) -> str:
        """Return what to call this value, and note that it was busy by so much."""
        shown = self._shown
        if value in shown:
            shown[value] += weight
            return value
        if len(value) > _MAX_LENGTH:
            return self.label(value[:_MAX_LENGTH], weight)
        if len(shown) < self._places:
            shown[value] = weight
            return value
        self._note(value, weight)
        return OTHER

    def _note(self, value: str, weight: float) -> None:
        """Count one of the rest, in bounded memory: a newcomer takes over the count of the least busy."""
        count = self._others.get(value)
        if count is None and len(self._others) >= _CANDIDATES * self._places:
            count = self._others.pop(min(self._others, key=self._others.__getitem__))
        self._others[value] = (count or 0.0) + weight

    def review(self) -> None:
        """Pass places on, when it is time: from the least busy to those twice as busy, at most a quarter at once.

        To be called whenever the labels are looked at.
        """
        if self._clock() < self._next_review:
            return
        self._next_review = self._clock() + self._period
        for _ in range(max(1, self._places // 4)):
            if not self._others:
                break
            best = max(self._others, key=self._others.__getitem__)
            least = min(self._shown, key=self._shown.__getitem__)
            if self._others[best] <= 2 * self._shown[least]:
                break
            self._shown[best] = self._others.pop(best)
            del self._shown[least]
        for counts in (self._shown, self._others):
            for value in counts:
                counts[value] /= 2
