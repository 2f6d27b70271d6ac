"""A drafter that remembers which token followed which, in all requests so far, and guesses that it will again."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from isotoken.core.types import Request
from isotoken.plugins.drafters import DrafterContext
from isotoken.plugins.hookspecs import Register, hookimpl

ISOTOKEN_API = "1.0"


class BigramDrafter:
    """Guess up to k tokens by following the last token's successor, and that one's, and so on."""

    def __init__(self, context: DrafterContext) -> None:
        self._k = context.num_draft_tokens
        self._successor: dict[int, int] = {}

    def propose(self, requests: Sequence[Request]) -> list[list[int]]:
        """Learn from every request, then guess for each."""
        for request in requests:
            self._successor.update(pairwise(request.token_ids))
        return [self._follow(request.token_ids[-1]) for request in requests]

    def release(self, request_id: str) -> None:
        """Nothing is kept for a single request."""

    def close(self) -> None:
        """There is no memory to give back."""

    def _follow(self, token: int) -> list[int]:
        guesses: list[int] = []
        while len(guesses) < self._k and token in self._successor:
            token = self._successor[token]
            guesses.append(token)
        return guesses


@hookimpl
def register_drafters(register: Register) -> None:
    """Claim the name."""
    register("bigram", BigramDrafter, description="follows the successor of each token seen so far")
