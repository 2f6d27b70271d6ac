"""Metered: a constraint that may take only so much of the engine's time; nobody else waits longer for it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from .batch import UInt32
from .constraints import Constraint, ConstraintError

SPARE_S = 0.5
EACH_S = 0.002
"""CPU time that one request's grammar may take: some to spare, and for each mask. A usual one takes a hundredth."""


class MeteredConstraint:
    """Passes everything on, until it has taken too long: then it fails, as one whose limits are met."""

    def __init__(self, constraint: Constraint) -> None:
        self._constraint = constraint
        self._left = SPARE_S
        self._error = ""

    def fill_mask(self, mask: UInt32) -> None:
        """Write which tokens may follow. Raises ConstraintError."""
        started = time.thread_time()
        self._constraint.fill_mask(mask)
        self._spend(time.thread_time() - started - EACH_S)
        if self._error:
            raise ConstraintError(self._error)

    def advance(self, token_ids: Sequence[int]) -> int:
        """Take tokens up to the first that may not follow, and return how many."""
        started = time.thread_time()
        count = self._constraint.advance(token_ids)
        self._spend(time.thread_time() - started)
        return count

    def rollback(self, num_tokens: int) -> None:
        """Undo the last so many tokens."""
        self._constraint.rollback(num_tokens)

    @property
    def may_end(self) -> bool:
        """Whether what was taken is a whole output."""
        return self._constraint.may_end

    @property
    def is_finished(self) -> bool:
        """Whether nothing may follow it."""
        return self._constraint.is_finished

    @property
    def error(self) -> str:
        """Why it failed."""
        return self._constraint.error or self._error

    def _spend(self, seconds: float) -> None:
        self._left = min(self._left - seconds, SPARE_S)
        if self._left < 0:
            self._error = f"it takes more than {SPARE_S} s beyond {EACH_S * 1000:g} ms for each token"
