"""NgramDrafter: prompt look-up. What followed the last few tokens before is likely to follow them again."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.types import Request
from . import DrafterContext
from .ngram_index import NgramIndex


class NgramDrafter:
    """Keeps an index of n-grams for each request, extended by the tokens that came since it was last asked."""

    def __init__(self, context: DrafterContext) -> None:
        self._context = context
        self._indices: dict[str, NgramIndex] = {}

    def propose(self, requests: Sequence[Request]) -> list[list[int]]:
        """Return what followed the newest earlier occurrence of each request's last tokens."""
        return [self._guess(request) for request in requests]

    def _guess(self, request: Request) -> list[int]:
        index = self._indices.get(request.id)
        if index is None:
            index = self._indices[request.id] = NgramIndex()
        tokens, num_tokens = request.token_ids, self._context.most_for(request)
        end = index.find(tokens)
        if not end:
            return []
        drafts = tokens[end : end + num_tokens]
        while len(drafts) < num_tokens:  # it reaches the present, so it repeats itself from there
            drafts += drafts[: num_tokens - len(drafts)]
        return drafts

    def release(self, request_id: str) -> None:
        """Forget a request that ended."""
        self._indices.pop(request_id, None)

    def close(self) -> None:
        """Forget everything."""
        self._indices.clear()
