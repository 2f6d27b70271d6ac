"""Drafters of known quality: garbage, perfect, and anything between."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from ..core.interfaces import Drafter, RunnerInfo
from ..core.types import Request


class Replay:
    """Guesses each request's expected tokens, right with the given probability, else any token."""

    def __init__(self, known: Mapping[str, Sequence[int]], count: int, right: float, vocab_size: int) -> None:
        self._known, self._count, self._right, self._vocab_size = known, count, right, vocab_size
        self._dice = random.Random(count)
        self.released: list[str] = []

    def propose(self, requests: Sequence[Request]) -> list[list[int]]:
        """Guess up to `count` tokens for each request."""
        return [self._guess(request) for request in requests]

    def _guess(self, request: Request) -> list[int]:
        expected = list(self._known.get(request.id, ()))[request.num_output_tokens :][: self._count]
        expected += [self._any() for _ in range(self._count - len(expected))]
        return [token if self._dice.random() < self._right else self._any() for token in expected]

    def _any(self) -> int:
        return self._dice.randrange(self._vocab_size)

    def release(self, request_id: str) -> None:
        """Remember who ended."""
        self.released.append(request_id)

    def close(self) -> None:
        """Hold nothing."""


def replay(
    known: Mapping[str, Sequence[int]], *, count: int = 4, right: float = 1.0
) -> Callable[[RunnerInfo], Drafter]:
    """Make a factory of Replay drafters for Setup.drafter; `known` maps request ids to their output."""
    return lambda info: Replay(known, count, right, info.vocab_size)


def garbage(*, count: int = 3) -> Callable[[RunnerInfo], Drafter]:
    """Make a factory of drafters that guess at random."""
    return replay({}, count=count)
