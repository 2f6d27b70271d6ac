"""The values that the core passes around: requests, their parameters, what was scheduled and what came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .constraints import Constraint


class IsotokenError(Exception):
    """Base of the errors that isotoken raises for its users."""


class Unsupported(IsotokenError):  # reads as a verdict, like NotImplemented
    """A declared absence was asked for: the backend, device or model cannot do this."""


class CheckpointError(IsotokenError):
    """A model folder is damaged, incomplete or of an unknown architecture. Names the file and the tensor."""


class EngineError(IsotokenError):
    """The engine cannot go on: the failure cannot be pinned on one request. A supervisor starts a new one."""


class FinishReason(StrEnum):
    """Why a request ended."""

    STOP = "stop"  # an end-of-sequence or stop token
    LENGTH = "length"  # max_tokens or max_model_len
    ABORT = "abort"  # the caller left
    TIMEOUT = "timeout"  # its deadline passed
    ERROR = "error"  # the runner failed on this request


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeParams:
    """The token-only part of the public SamplingParams: validated, resolved, and all that decides the next token."""

    max_tokens: int = 16  # 0: score the prompt only
    min_tokens: int = 0  # end and stop tokens are banned before this many output tokens
    temperature: float = 1.0  # 0 is greedy
    top_k: int = 0  # 0 is off
    top_p: float = 1.0  # 1 is off
    min_p: float = 0.0  # 0 is off
    seed: int = 0  # unsigned 64 bit, always resolved: drawn where the request is submitted
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    allowed_token_ids: tuple[int, ...] | None = None
    bad_words_ids: tuple[tuple[int, ...], ...] = ()  # token sequences that may not be completed
    stop_token_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    grammar: str | None = None  # what the output must be, in the words of the engine's GrammarCompiler
    num_logprobs: int | None = (
        None  # None: off; 0: the drawn token only; k: the k best besides; -1: the whole vocabulary
    )
    num_prompt_logprobs: int | None = None  # likewise, for prompt positions 1..


@dataclass(eq=False, slots=True, kw_only=True)
class Request:
    """A request's whole state: the one mutable class. Only the scheduler and the KV cache write to it."""

    id: str
    token_ids: list[int]  # prompt, then accepted output
    num_prompt_tokens: int  # a replayed request starts with output already in token_ids
    params: DecodeParams
    priority: int = 0  # lower runs first; ties in arrival order
    deadline: float | None = None  # time.monotonic() seconds
    cache_salt: bytes = b""  # root of the chain of block hashes: requests with other salts never share
    draft_ids: list[int] = field(default_factory=list)  # guesses that follow token_ids
    max_drafts: int | None = None  # guesses that pay now: a drafter may stop there, more are cut off; None: any number
    block_ids: list[int] = field(default_factory=list)
    block_hashes: list[bytes] = field(default_factory=list)  # of the blocks that are full and published
    num_computed_tokens: int = 0  # a prefix of token_ids has its K/V in the cache
    num_cached_tokens: int = 0  # prompt tokens that came from the prefix cache when it was first scheduled
    num_scored_tokens: int = 0  # prompt positions whose logprobs were already reported
    row_id: int = -1  # stable row below max_num_seqs while running
    num_preemptions: int = 0
    finish_reason: FinishReason | None = None
    arrival: int = 0  # set, with the next three, when the scheduler takes it: its place among equals,
    end_token_ids: frozenset[int] = frozenset()  # the tokens that end it,
    max_num_tokens: int = 0  # the length of token_ids that ends it,
    allowed_ids: frozenset[int] | None = None  # and params.allowed_token_ids as a set
    constraint: Constraint | None = None  # where params.grammar is at the end of token_ids; the engine gives it

    @property
    def num_output_tokens(self) -> int:
        """Tokens generated so far."""
        return len(self.token_ids) - self.num_prompt_tokens


class Scheduled(NamedTuple):
    """One request's share of a step."""

    request: Request
    start: int  # first position computed this step
    num_tokens: int  # query length, drafts included
    num_drafts: int
    num_logits: int  # the last num_logits query positions give a logits row each


class TokenLogprobs(NamedTuple):
    """Log-probabilities at one position, from the raw logits."""

    token_id: int  # the token drawn, or the prompt's own
    logprob: float
    rank: int  # 1 is the most likely
    top: list[tuple[int, float]]  # the k best (token id, logprob), best first


@dataclass(slots=True, kw_only=True)
class RequestOutput:
    """What one step brought to one request."""

    request_id: str
    token_ids: list[int]  # new this step
    finish_reason: FinishReason | None = None
    stop_token_id: int | None = None  # the token that ended it, where one did (it is the last of token_ids)
    logprobs: list[TokenLogprobs] | None = None  # one for each new token
    prompt_logprobs: list[TokenLogprobs] | None = None  # of prompt positions scored this step, in order from position 1
    num_cached_tokens: int = 0
    error: str | None = None  # for finish_reason ERROR: what went wrong
    num_drafted: int = 0  # guesses verified this step
    num_accepted: int = 0  # of those, found right


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStats:
    """One step in numbers, for hooks and metrics. Counters are of this step; gauges are as it ended."""

    num_running: int
    num_waiting: int
    num_requests: int  # in this step's batch
    num_tokens: int  # query tokens computed
    num_new_tokens: int  # output tokens accepted
    num_blocks: int
    num_free_blocks: int
    num_preemptions: int
    num_prefix_queries: int  # prompt tokens looked up in the prefix cache
    num_prefix_hits: int  # of those, found
    num_drafted: int
    num_accepted: int  # of the drafted
    duration: float  # seconds, whole step
    num_undrafted: int = 0  # requests for which nothing was guessed since it would not pay
    num_draft_stops: int = 0  # requests for which guessing ceased to pay
    num_drafter_failures: int = 0  # 1 in the step in which the drafter failed and was switched off
