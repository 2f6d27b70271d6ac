"""Drafting: asks the drafter for guesses, and does without it once it fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from .interfaces import Drafter
from .types import Request, RequestOutput, Scheduled

log = logging.getLogger("isotoken.engine")

T = TypeVar("T")


class Drafting:
    """The engine's side of speculation. Guesses are for speed only, so a drafter's error must cost nothing else."""

    def __init__(self, drafter: Drafter | None, vocab_size: int) -> None:
        self._drafter = drafter
        self._vocab_size = vocab_size
        self._num_failures = 0  # not told yet

    def draft(self, plan: Sequence[Scheduled], outputs: Sequence[RequestOutput]) -> None:
        """Write guesses to the plan's requests, and forget those that ended."""
        if self._drafter is None:
            return
        for output in outputs:
            if output.finish_reason is not None:
                self.release(output.request_id)
        ready = [share.request for share in plan if share.num_logits and _wants_drafts(share.request)]
        if ready:
            for request, drafts in zip(ready, self._guarded(lambda d: self._propose(d, ready)) or (), strict=False):
                request.draft_ids = drafts

    def release(self, request_id: str) -> None:
        """Forget a request."""
        self._guarded(lambda drafter: drafter.release(request_id))

    def close(self) -> None:
        """Give back the drafter's memory."""
        drafter, self._drafter = self._drafter, None
        if drafter is not None:
            drafter.close()

    def take_failures(self) -> int:
        """How often a drafter was switched off since this was last asked: once at most."""
        num_failures, self._num_failures = self._num_failures, 0
        return num_failures

    def _propose(self, drafter: Drafter, requests: Sequence[Request]) -> list[list[int]]:
        """Raise ValueError for guesses that no runner could take."""
        proposed = drafter.propose(requests)
        if len(proposed) != len(requests):
            raise ValueError(f"{len(proposed)} lists of guesses for {len(requests)} requests")
        for drafts in proposed:
            if drafts and not 0 <= min(drafts) <= max(drafts) < self._vocab_size:
                raise ValueError(f"guesses outside the vocabulary of {self._vocab_size}: {drafts}")
        return proposed

    def _guarded(self, call: Callable[[Drafter], T]) -> T | None:
        """Call the drafter; where it raises, log that once and go on without it."""
        if self._drafter is None:
            return None
        try:
            return call(self._drafter)
        except Exception:
            log.exception("the drafter failed and is switched off: the engine goes on without speculation")
            self._num_failures += 1
        try:
            self.close()
        except Exception:
            log.exception("nor could the drafter be closed")
        return None


def _wants_drafts(request: Request) -> bool:
    """Whether it still runs, all but its newest token is computed, and more than one token is still to come."""
    known = len(request.token_ids)
    return request.finish_reason is None and request.num_computed_tokens == known - 1 < request.max_num_tokens - 2
