"""What comes of a prompt, in the shape that users of vLLM expect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..core.types import TokenLogprobs
from .engine.types import GenerationDelta


class Logprob(NamedTuple):
    """The log-probability of one token at one position."""

    logprob: float
    rank: int  # 1 is the most likely
    decoded_token: str


Logprobs = dict[int, Logprob]
"""By token id: the token that stands there first, then the most likely ones, best first."""


@dataclass(slots=True, kw_only=True)
class CompletionOutput:
    """One choice."""

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[Logprobs] | None = None  # one for each of token_ids
    cumulative_logprob: float | None = None
    finish_reason: str | None = None  # "stop", "length", "error"
    stop_reason: str | int | None = None  # the stop string or stop token id
    error: str | None = None  # for finish_reason "error"

    @property
    def finished(self) -> bool:
        """Whether it has ended."""
        return self.finish_reason is not None


@dataclass(slots=True, kw_only=True)
class RequestResult:
    """What came of one prompt."""

    request_id: str
    prompt: str | None  # None for a prompt given as token ids
    prompt_token_ids: list[int]
    prompt_logprobs: list[Logprobs | None] | None = None  # one for each prompt token; None for the first
    outputs: list[CompletionOutput]
    num_cached_tokens: int = 0

    @property
    def finished(self) -> bool:
        """Whether every choice has ended."""
        return all(output.finished for output in self.outputs)


def fold(result: RequestResult, delta: GenerationDelta, error: str | None, text_of: Callable[[int], str]) -> None:
    """Add what is new in one choice. `text_of` gives a token's text."""
    output = result.outputs[delta.index]
    output.text += delta.text
    output.token_ids += delta.token_ids
    result.num_cached_tokens = max(result.num_cached_tokens, delta.num_cached_tokens)
    if delta.logprobs is not None:
        output.logprobs = (output.logprobs or []) + as_dicts(delta.logprobs, text_of)
        output.cumulative_logprob = (output.cumulative_logprob or 0.0) + sum(t.logprob for t in delta.logprobs)
    if delta.prompt_logprobs:
        result.prompt_logprobs = (result.prompt_logprobs or [None]) + [*as_dicts(delta.prompt_logprobs, text_of)]
    if delta.finish_reason is not None:
        output.finish_reason, output.stop_reason, output.error = delta.finish_reason, delta.stop_reason, error


def as_dicts(logprobs: Sequence[TokenLogprobs], text_of: Callable[[int], str]) -> list[Logprobs]:
    """Return each position's log-probabilities by token id."""
    dicts: list[Logprobs] = []
    for position in logprobs:
        own = {position.token_id: Logprob(position.logprob, position.rank, text_of(position.token_id))}
        top = {token: Logprob(value, i + 1, text_of(token)) for i, (token, value) in enumerate(position.top)}
        dicts.append(own | {token: entry for token, entry in top.items() if token not in own})
    return dicts
