"""NgramDrafter: prompt look-up. What followed the last few tokens before is likely to follow them again."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.types import Request
from . import DrafterContext

_LENGTHS = (3, 2)
"""Lengths of the n-grams looked up, the most telling first."""

_MOST_AT_ONCE = 8192
"""Tokens indexed in a step, some milliseconds of work: the index of a longer prompt takes some steps to catch up."""


class NgramDrafter:
    """Keeps an index of n-grams for each request, extended by the tokens that came since it was last asked."""

    def __init__(self, context: DrafterContext) -> None:
        self._context = context
        self._indices: dict[str, _Index] = {}

    def propose(self, requests: Sequence[Request]) -> list[list[int]]:
        """Return what followed the newest earlier occurrence of each request's last tokens."""
        return [
            self._index(request.id).continuation(request.token_ids, self._context.most_for(request))
            for request in requests
        ]

    def _index(self, request_id: str) -> _Index:
        index = self._indices.get(request_id)
        if index is None:
            index = self._indices[request_id] = _Index()
        return index

    def release(self, request_id: str) -> None:
        """Forget a request that ended."""
        self._indices.pop(request_id, None)

    def close(self) -> None:
        """Forget everything."""
        self._indices.clear()


class _Index:
    """Where each n-gram of one request's tokens last ended, the one at the very end left out."""

    def __init__(self) -> None:
        self._ends: dict[tuple[int, ...], int] = {}
        self._num_indexed = 0  # n-grams that end at or before this length are in

    def continuation(self, tokens: list[int], num_tokens: int) -> list[int]:
        self._extend(tokens)
        if self._num_indexed < len(tokens) - 1:  # what it knows so far may be long past
            return []
        for length in _LENGTHS:
            end = self._ends.get(tuple(tokens[-length:]))
            if end is not None:
                drafts = tokens[end : end + num_tokens]
                while len(drafts) < num_tokens:  # it reaches the present, so it repeats itself from there
                    drafts += drafts[: num_tokens - len(drafts)]
                return drafts
        return []

    def _extend(self, tokens: list[int]) -> None:
        limit = min(len(tokens) - 1, self._num_indexed + _MOST_AT_ONCE)
        for length in _LENGTHS:
            first = max(self._num_indexed + 1, length)  # length at which the first new n-gram ends
            if first > limit:  # too few tokens for one
                continue
            columns = [tokens[first - length + shift : limit - length + shift + 1] for shift in range(length)]
            self._ends.update(zip(zip(*columns, strict=True), range(first, limit + 1), strict=True))
        self._num_indexed = max(limit, self._num_indexed)
