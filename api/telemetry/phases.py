"""Phases: what a request went through, with the moments between which it did, from what its stages left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..engine import RequestStats

Value = str | bool | int | float | Sequence[str]

MAX_PROMPTS = 8
"""Of one request whose phases are told; the others are in its totals."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One of them. Times are time.monotonic() seconds."""

    name: str
    start: float
    end: float
    attributes: Mapping[str, Value] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """How long it took."""
        return max(0.0, self.end - self.start)


def phases(started: float, timings: Mapping[str, float], stats: Sequence[RequestStats]) -> list[Phase]:
    """Return the phases of a request that began at `started`, in order; of its prompts each has its own.

    `timings` are what the stages before the engine took: they end where the engine's own account begins.
    """
    if not stats:
        taken = timings.get("tokenize")
        return [] if taken is None else [Phase("tokenize", started, started + taken)]
    submitted = min(one.submitted for one in stats)
    turn = submitted - timings.get("queue", 0.0)  # before a fair queue let it through
    tokenized = timings.get("tokenize", 0.0)
    found = [Phase("tokenize", max(started, turn - tokenized), max(started, turn))]
    for index, one in enumerate(stats[:MAX_PROMPTS]):
        found += _in_engine(one, turn, {"isotoken.prompt_index": index} if len(stats) > 1 else {})
    return found


def _in_engine(stats: RequestStats, turn: float, common: Mapping[str, Value]) -> list[Phase]:
    start, end = stats.submitted, stats.submitted + stats.total_latency
    if stats.queue_time is None:  # it was never taken into a step
        return [Phase("queue", turn, end, common)]
    scheduled = start + stats.queue_time
    found = [Phase("queue", turn, scheduled, common)]
    computed = {
        "isotoken.prompt_tokens": stats.num_prompt_tokens,
        "isotoken.cached_tokens": stats.num_cached_tokens,
        **common,
    }
    if stats.time_to_first_token is None:
        return [*found, Phase("prefill", scheduled, end, computed)]
    first = start + stats.time_to_first_token
    found.append(Phase("prefill", scheduled, first, computed))
    gaps = stats.inter_token_latencies
    written: dict[str, Value] = {"isotoken.output_tokens": stats.num_output_tokens, **common}
    if gaps:
        written |= {"isotoken.inter_token.mean": sum(gaps) / len(gaps), "isotoken.inter_token.max": max(gaps)}
    found.append(Phase("decode", first, end, written))
    if stats.detokenize_time is not None:  # in pieces between the tokens: one phase of their length, at the end
        found.append(Phase("detokenize", end - stats.detokenize_time, end, {"isotoken.interleaved": True, **common}))
    return found


def totals(started: float, timings: Mapping[str, float], stats: Sequence[RequestStats]) -> dict[str, float]:
    """Return the longest of each phase, in seconds: prompts of one request are computed at the same time."""
    found: dict[str, float] = {}
    for phase in phases(started, timings, stats):
        found[phase.name] = max(found.get(phase.name, 0.0), phase.seconds)
    return found
