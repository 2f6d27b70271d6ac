"""What each model did for an exchange, where one request may have been worked on by several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..engine import RequestStats
    from ..server.exchange import Exchange
    from ..server.served import ServedModel
    from .budgets import Tab


@dataclass(slots=True)
class Use:
    """What is known of an exchange before it ends."""

    models: list[tuple[int, ServedModel]] = field(default_factory=list)  # with how many prompts had ended before
    tab: Tab | None = None

    def model_of(self, index: int, stats: RequestStats) -> ServedModel | None:
        """Return the model that worked on prompt `index`: two may be of one folder, one after the other."""
        fitting = [(start, model) for start, model in self.models if model.engine.info.model == stats.model]
        return next((model for start, model in reversed(fitting) if start <= index), None)


class Sums(NamedTuple):
    """Tokens of several prompts."""

    prompt: int
    cached: int
    generated: int
    drafted: int
    accepted: int

    @classmethod
    def of(cls, group: Sequence[RequestStats]) -> Sums:
        """Add them up. A prompt that never came to its turn has used nothing."""
        ran = [stats for stats in group if stats.queue_time is not None or stats.num_output_tokens]
        return cls(
            sum(stats.num_prompt_tokens for stats in ran),
            sum(stats.num_cached_tokens for stats in ran),
            sum(stats.num_output_tokens for stats in ran),
            sum(stats.num_drafted_tokens for stats in ran),
            sum(stats.num_accepted_tokens for stats in ran),
        )


def shares(exchange: Exchange, use: Use) -> dict[ServedModel, list[RequestStats]]:
    """Return what each model did for an exchange."""
    found: dict[ServedModel, list[RequestStats]] = {}
    for index, stats in enumerate(exchange.stats):
        model = use.model_of(index, stats) or exchange.model
        if model is not None:
            found.setdefault(model, []).append(stats)
    return found
