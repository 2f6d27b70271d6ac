"""PrefixWait: a request that begins like one whose prompt is being computed comes a step later and shares it."""

from __future__ import annotations

from collections.abc import Sequence

from .fold import is_scoring
from .types import FinishReason, Request, Scheduled

MIN_SHARED = 64
"""Tokens that a step of waiting must save."""

_STRIDE = 256  # tokens compared at once
_DIFFER = -1  # in place of the number of tokens that agree


class PrefixWait:
    """Says who is better admitted in the next step, when the prefix cache holds what this step computes.

    Requests that arrive together and share a long prefix, as the choices of one prompt do, would all compute it. Nobody
    waits for a request that comes after it, so each waits for no longer than those ahead of it compute. Stops saying so
    when a request that waited found nothing of what had been computed, for then this cache may share nothing, until one
    finds something.
    """

    def __init__(self, block_size: int, max_model_len: int) -> None:
        whole_rows = block_size >= max_model_len  # such a cache shares any number of tokens
        self._least = MIN_SHARED if whole_rows else max(MIN_SHARED, block_size)
        self._pays = True
        self._agreed: dict[int, dict[int, int]] = {}  # by arrivals, of who waits and of others: how far they do
        self._waited: tuple[Request, Request] | None = None  # the first that waited, until it is admitted, and for whom

    def is_better(self, request: Request, plan: Sequence[Scheduled]) -> bool:
        """Whether the step planned so far computes enough of what `request` begins with."""
        if not self._pays or is_scoring(request):
            return False
        for share in plan:
            other = share.request
            if share.num_tokens < self._least or other.cache_salt != request.cache_salt:
                continue
            if (other.priority, other.arrival) > (request.priority, request.arrival):
                continue
            if self._agree(request, other, share.start):
                if self._waited is None or self._waited[0] is request or self._waited[0].finish_reason is not None:
                    self._waited = request, other
                return True
        return False

    def _agree(self, request: Request, other: Request, start: int) -> bool:
        """Whether they agree up to `start` and as far behind it as a step of waiting must save.

        The tokens behind `start` are compared first, for most that differ do so there. Of those before, which may be a
        hundred thousand for each who waits in each step, only the ones that were not compared yet.
        """
        mine, others, end = request.token_ids, other.token_ids, start + self._least
        if end > min(len(mine) - 1, len(others)) or mine[start:end] != others[start:end]:
            return False
        agreed = self._agreed.setdefault(request.arrival, {})
        known = agreed.get(other.arrival, 0)
        if _DIFFER < known < start:
            known = start if common_prefix(mine, others, start, known) == start else _DIFFER
        agreed[other.arrival] = known if known == _DIFFER else max(known, end)
        return known != _DIFFER

    def forget(self, request: Request) -> None:
        """It waits no longer."""
        self._agreed.pop(request.arrival, None)

    def note_admitted(self, request: Request, num_hits: int) -> None:
        """Take note of what the cache held for a request that is admitted now."""
        self.forget(request)
        waited_for = self._waited[1] if self._waited is not None and self._waited[0] is request else None
        if num_hits:
            self._pays = True
        elif waited_for is not None and _has_computed(waited_for):
            self._pays = False
        if waited_for is not None:
            self._waited = None


def _has_computed(request: Request) -> bool:
    """Whether it got to where the cache could share; it did not if it left or was preempted before."""
    return request.num_computed_tokens > 0 or request.finish_reason in (FinishReason.STOP, FinishReason.LENGTH)


def common_prefix(a: Sequence[int], b: Sequence[int], most: int, known: int = 0) -> int:
    """How many leading tokens agree, `most` at most, `known` of them for certain.

    Looks no further than a stride behind the first that do not.
    """
    num_tokens = min(len(a), len(b), most)
    for start in range(known, num_tokens, _STRIDE):
        end = min(start + _STRIDE, num_tokens)
        if a[start:end] != b[start:end]:
            return next(index for index in range(start, end) if a[index] != b[index])
    return num_tokens
