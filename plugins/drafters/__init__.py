"""Drafters guess what comes next, so that one forward can confirm several tokens; they change speed, never output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...core.interfaces import ModelRunner, RunnerInfo
from ...core.types import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class DrafterContext:
    """What a drafter is built from."""

    num_draft_tokens: int  # the most to propose for a request
    info: RunnerInfo  # of the model that is drafted for
    prefix_caching: bool = True  # whether a draft runner's blocks may be shared,
    block_copies: bool = True  # or, where they are whole rows, copied
    load_runner: Callable[[], ModelRunner] | None = None  # loads the draft checkpoint, where one is configured

    def most_for(self, request: Request) -> int:
        """How many guesses to make for a request now: no more than pay. More are cut off."""
        return self.num_draft_tokens if request.max_drafts is None else min(self.num_draft_tokens, request.max_drafts)
