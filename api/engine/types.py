"""What the engine's callers see: deltas of text, facts about the engine, and its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ...core.types import StepStats, TokenLogprobs

State = Literal["starting", "ready", "restarting", "draining", "stopped"]


@dataclass(slots=True, kw_only=True)
class GenerationDelta:
    """What is new in one choice since its last delta. Never holds the prompt: whoever wants an echo prepends it.

    `text` may lag behind `token_ids` (an unfinished character, or what may yet become a stop string) and catches up
    at the end. A choice ends with the delta that has a finish_reason; one that fails raises EngineFailed instead.
    """

    index: int  # which of the n choices
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] | None = None  # one for each of token_ids, where asked for
    finish_reason: str | None = None  # "stop", "length", "timeout"
    stop_reason: str | int | None = None  # the stop string or stop token id; None for an end-of-sequence token
    prompt_logprobs: list[TokenLogprobs] | None = None  # whole, from position 1: on the first delta of choice 0
    num_cached_tokens: int = 0  # prompt tokens that came from the prefix cache; known from the first delta on
    offsets: list[int] | None = None  # where each token begins in the text, where filters may have changed that


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What the engine settled on when it started."""

    model: str  # the folder
    backend: str
    device: str
    dtype: str
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    vocab_size: int
    eos_token_ids: frozenset[int]
    block_size: int
    num_blocks: int
    weight_bytes: int
    kv_cache_bytes: int
    checkpoint: str = ""  # tells the files that were loaded from others that take their place
    batch_invariant: bool = False  # tokens are equal bit by bit whatever else is computed
    no_prompt_logprobs: str = ""  # why the backend cannot score prompts; empty: it can
    no_grammars: str = ""  # why outputs cannot be constrained; empty: they can
    why: tuple[str, ...] = ()  # reasons for what "auto" became, one sentence each
    settings: Mapping[str, str] = field(default_factory=dict)  # scheduler, kv_cache, sampler, drafter, ...


@dataclass(slots=True, kw_only=True)
class EngineStats:
    """The engine in numbers, for /metrics: gauges of the latest step, counters since the API process started."""

    num_requests_in_flight: int = 0  # choices submitted and not ended, as the API counts them
    num_waiting_prompt_tokens: int = 0
    num_running: int = 0  # the following gauges are of the latest step
    num_waiting: int = 0
    num_batched_requests: int = 0
    num_batched_tokens: int = 0
    num_blocks: int = 0
    num_free_blocks: int = 0
    num_undrafted: int = 0  # requests for which nothing was guessed since it would not pay
    step_duration: float = 0.0  # seconds
    num_steps: int = 0  # the following are counters
    num_tokens: int = 0  # query tokens computed
    num_new_tokens: int = 0  # output tokens
    num_preemptions: int = 0
    num_prefix_queries: int = 0
    num_prefix_hits: int = 0
    num_drafted: int = 0
    num_accepted: int = 0
    num_draft_stops: int = 0  # requests for which guessing ceased to pay
    num_drafter_failures: int = 0  # drafters switched off since they failed
    num_restarts: int = 0  # of the engine's process
    num_replayed: int = 0  # choices resubmitted after a restart
    num_failed_alone: int = 0  # choices found to kill the engine

    def engine_is_up(self, num_blocks: int) -> None:
        """An engine stands, with all its blocks free."""
        self.num_blocks = self.num_free_blocks = num_blocks

    def engine_is_gone(self) -> None:
        """Nothing runs and there is no memory any more: gauges of a process that is dead would mislead."""
        self.num_running = self.num_waiting = self.num_batched_requests = self.num_batched_tokens = 0
        self.num_undrafted = 0
        self.num_blocks = self.num_free_blocks = 0
        self.step_duration = 0.0

    def add(self, step: StepStats) -> None:
        """Fold one step in."""
        self.num_running, self.num_waiting = step.num_running, step.num_waiting
        self.num_batched_requests, self.num_batched_tokens = step.num_requests, step.num_tokens
        self.num_blocks, self.num_free_blocks = step.num_blocks, step.num_free_blocks
        self.num_undrafted, self.step_duration = step.num_undrafted, step.duration
        self.num_steps += step.num_requests > 0  # after an abort an idle engine only counts what is free
        self.num_tokens += step.num_tokens
        self.num_new_tokens += step.num_new_tokens
        self.num_preemptions += step.num_preemptions
        self.num_prefix_queries += step.num_prefix_queries
        self.num_prefix_hits += step.num_prefix_hits
        self.num_drafted += step.num_drafted
        self.num_accepted += step.num_accepted
        self.num_draft_stops += step.num_draft_stops
        self.num_drafter_failures += step.num_drafter_failures


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStats:
    """One finished request in numbers. Times are in seconds."""

    request_id: str
    model: str
    num_prompt_tokens: int
    num_cached_tokens: int  # of the prompt, from the prefix cache
    num_output_tokens: int  # of all choices
    finish_reasons: tuple[str, ...]  # of each choice: "stop", "length", "abort", "timeout", "error"
    queue_time: float | None  # until first scheduled; None: never was
    time_to_first_token: float | None
    inter_token_latencies: tuple[float, ...]  # of each token after a choice's first
    total_latency: float
    error: str | None = None
    submitted: float = 0.0  # time.monotonic() seconds
    detokenize_time: float | None = None  # spent on turning tokens into text; None: it was not measured
    num_drafted_tokens: int = 0  # guesses verified, of all choices
    num_accepted_tokens: int = 0  # of those, found right
