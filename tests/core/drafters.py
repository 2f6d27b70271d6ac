"""Drafters of known quality."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from isotoken.core.types import Request

from .toy import VOCAB_SIZE


class GarbageDrafter:
    """Guesses at random."""

    def __init__(self, num_tokens: int, seed: int = 1) -> None:
        self._num_tokens, self._random = num_tokens, random.Random(seed)

    def propose(self, requests: Sequence[Request]) -> list[list[int]]:
        return [[self._random.randrange(VOCAB_SIZE) for _ in range(self._num_tokens)] for _ in requests]

    def release(self, request_id: str) -> None:
        pass

    def close(self) -> None:
        pass


class KnowingDrafter(GarbageDrafter):
    """Knows the output, and says it with probability `p` for each token."""

    def __init__(self, num_tokens: int, outputs: Mapping[str, Sequence[int]], p: float = 1.0, seed: int = 1) -> None:
        super().__init__(num_tokens, seed)
        self._outputs, self._p = outputs, p

    def propose(self, requests: Sequence[Request]) -> list[list[int]]:
        drafts = []
        for request in requests:
            done = request.num_output_tokens
            tokens = self._outputs[request.id][done : done + self._num_tokens]
            drafts.append([token if self._random.random() < self._p else 0 for token in tokens])
        return drafts
