"""PrefixWait: a request that begins like one whose prompt is being computed comes a step later and shares it."""

from __future__ import annotations

from collections.abc import Sequence

from .fold import is_scoring
from .types import Request, Scheduled

MIN_SHARED = 64
"""Tokens that a step of waiting must save."""

_STRIDE = 256  # tokens compared at once


class PrefixWait:
    """Says who is better admitted in the next step, when the prefix cache holds what this step computes.

    Requests that arrive together and share a long prefix, as the choices of one prompt do, would all compute it. Stops
    saying so when a request that waited found nothing: then this cache shares nothing.
    """

    def __init__(self, block_size: int, max_model_len: int) -> None:
        whole_rows = block_size >= max_model_len  # such a cache shares any number of tokens
        self._least = MIN_SHARED if whole_rows else max(MIN_SHARED, block_size)
        self._pays = True
        self._waited: Request | None = None

    def is_better(self, request: Request, plan: Sequence[Scheduled]) -> bool:
        """Whether the step planned so far computes enough of what `request` begins with."""
        if not self._pays or is_scoring(request):
            return False
        known = request.token_ids[:-1]
        for share in plan:
            other = share.request
            if share.num_tokens < self._least or other.cache_salt != request.cache_salt:
                continue
            end = min(share.start + share.num_tokens, common_prefix(other.token_ids, known))
            if end - share.start >= self._least:
                self._waited = request
                return True
        return False

    def note_admitted(self, request: Request, num_hits: int) -> None:
        """Take note of what the cache held for a request that is admitted now."""
        if request is self._waited:
            self._waited, self._pays = None, num_hits > 0


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading tokens agree."""
    num_tokens = min(len(a), len(b))
    for start in range(0, num_tokens, _STRIDE):
        end = min(start + _STRIDE, num_tokens)
        if a[start:end] != b[start:end]:
            return next(index for index in range(start, end) if a[index] != b[index])
    return num_tokens
