"""Drafting: asks the drafter for as many guesses as pay, and does without it once it fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from .constraints import num_fitting
from .draft_pace import DraftPace, DraftPolicy
from .interfaces import Drafter
from .types import Request, RequestOutput, Scheduled

log = logging.getLogger("isotoken.engine")

T = TypeVar("T")

TRY_EVERY = 8
"""Steps: guesses that are only tried go together, for in a full batch one more token may cost as much as many."""


class DraftCounts(NamedTuple):
    """What StepStats tells of drafting besides the guesses themselves."""

    num_undrafted: int = 0
    num_draft_stops: int = 0
    num_drafter_failures: int = 0


class Drafting:
    """The engine's side of speculation. Guesses are for speed only, so a drafter's error must cost nothing else.

    With a policy each request gets as many guesses as pay for it, maybe none; else as many as the drafter makes.
    """

    def __init__(self, drafter: Drafter | None, vocab_size: int, policy: DraftPolicy | None = None) -> None:
        self._drafter = drafter
        self._vocab_size = vocab_size
        self._policy = policy
        self._paces: dict[str, DraftPace] = {}
        self._num_steps = 0
        self._num_undrafted = self._num_stops = self._num_failures = 0  # not told yet

    def draft(self, plan: Sequence[Scheduled], outputs: Sequence[RequestOutput]) -> None:
        """Write guesses to the plan's requests, and forget those that ended."""
        if self._drafter is None:
            return
        for output in outputs:
            if output.finish_reason is not None:
                self.release(output.request_id)
        ready = [share.request for share in plan if share.num_logits and _wants_drafts(share.request)]
        if self._policy is not None:
            self._learn(plan, outputs)
            ready = self._worth_it(ready, self._policy, len(plan))
        if ready:
            for request, guesses in zip(ready, self._guarded(lambda d: self._propose(d, ready)) or (), strict=False):
                drafts = guesses if request.max_drafts is None else guesses[: request.max_drafts]
                request.draft_ids = drafts[: num_fitting(request, drafts)] if request.constraint else drafts

    def release(self, request_id: str) -> None:
        """Forget a request."""
        self._paces.pop(request_id, None)
        self._guarded(lambda drafter: drafter.release(request_id))

    def close(self) -> None:
        """Give back the drafter's memory."""
        drafter, self._drafter = self._drafter, None
        self._paces.clear()
        if drafter is not None:
            drafter.close()

    def take_counts(self) -> DraftCounts:
        """What happened since this was last asked. A drafter fails once at most."""
        counts = DraftCounts(self._num_undrafted, self._num_stops, self._num_failures)
        self._num_undrafted = self._num_stops = self._num_failures = 0
        return counts

    def _learn(self, plan: Sequence[Scheduled], outputs: Sequence[RequestOutput]) -> None:
        """Tell the requests' paces how many of their guesses were right."""
        num_new = {output.request_id: len(output.token_ids) for output in outputs}
        for share in plan:
            pace = self._paces.get(share.request.id) if share.num_drafts else None
            if pace is not None and num_new.get(share.request.id):
                pace.note(share.num_drafts, num_new[share.request.id] - 1)

    def _worth_it(self, requests: Sequence[Request], policy: DraftPolicy, num_requests: int) -> list[Request]:
        """Set how many guesses each request is to have, and return those for which there are to be any."""
        asked: list[Request] = []
        self._num_steps += 1
        may_try = self._num_steps % TRY_EVERY == 0
        for request in requests:
            pace = self._paces.get(request.id)
            if pace is None:
                pace = self._paces[request.id] = DraftPace()
            was_off = pace.is_off
            request.max_drafts = pace.num_drafts(policy, num_requests, may_try=may_try)
            self._num_stops += pace.is_off and not was_off
            if request.max_drafts:
                asked.append(request)
        self._num_undrafted += len(requests) - len(asked)
        return asked

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
